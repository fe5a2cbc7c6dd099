"""The part of a network that smaller numbers may stand in: backbone, neck, towers, up to the head's last convolutions.

Distributions of edges, boxes and scores are computed behind it, in float32: there a rounded number is a moved edge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_HEAD, _TOWER = "model.head.", "_tower."


def convolutions(network: onnx.ModelProto) -> dict[str, list[str]]:
    """Names of the convolutions by the weights that they have in common, in the order in which they are computed.

    Args:
        network: As `ld_hub.export.onnx_format.convert` makes it.
    """
    stored = {each.name for each in network.graph.initializer}
    found: dict[str, list[str]] = {}
    for node in network.graph.node:
        if node.op_type == "Conv" and node.input[1] in stored:
            found.setdefault(node.input[1], []).append(node.name)
    return found


def is_last(weight: str) -> bool:
    """Whether a convolution, named by its weights, is one of the head's that predict."""
    return weight.startswith(_HEAD) and _TOWER not in weight


def trunk(network: onnx.ModelProto) -> set[str]:
    """Names of the nodes up to the head's last convolutions, these included.

    Args:
        network: As `ld_hub.export.onnx_format.convert` makes it.
    """
    nodes = list(network.graph.node)
    last = {name for weight, names in convolutions(network).items() if is_last(weight) for name in names}
    behind: set[str] = set()  # values that a last convolution had a part in
    for node in nodes:
        if node.name in last or behind.intersection(node.input):
            behind.update(node.output)
    wanted: set[str] = set()  # values that a convolution of the trunk needs
    found: set[str] = set()
    for node in reversed(nodes):
        ends = "Conv" in node.op_type and not behind.intersection(node.input)
        if ends or wanted.intersection(node.output):
            found.add(node.name)
            wanted.update(node.input)
    return found
