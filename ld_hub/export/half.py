"""float16: half the bytes of weights and maps, float32 at both ends and wherever boxes and scores are computed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ld_hub.export.trunk import trunk

if TYPE_CHECKING:
    import onnx


def halved(network: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a network whose trunk computes in float16; inputs and outputs stay what they are.

    Args:
        network: As `ld_hub.export.onnx_format.convert` makes it; stays as it is.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    made = onnx.ModelProto()
    made.CopyFrom(network)
    inside = trunk(network)
    outside = [node.name for node in network.graph.node if node.name not in inside]
    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)
    half: onnx.ModelProto = convert_float_to_float16(made, keep_io_types=True, node_block_list=outside)
    del half.graph.value_info[:]  # the types that were
    OnnxModel(half).topological_sort()  # the converter appends its casts
    return half
