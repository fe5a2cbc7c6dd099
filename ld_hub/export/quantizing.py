"""int8: the trunk's convolutions in whole numbers, their ranges measured on training images (post-training, static).

Weights have one scale per output channel, maps one scale and zero point each. The head's last convolutions, the softmax
over bins and the decoding of boxes stay float32 (`ld_hub.export.trunk`).
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ld_hub.export.trunk import convolutions, is_last

if TYPE_CHECKING:
    import onnx

Inputs = Mapping[str, NDArray[Any]]
OPERATORS = ["Conv", "Relu", "Clip"]  # an activation behind a convolution becomes the limit of its range
COMPARED = 4  # calibration images on which layers are compared


def layers_of(network: onnx.ModelProto) -> dict[str, list[str]]:
    """Convolutions that may be quantized: names of their nodes by those of their weights."""
    return {weight: nodes for weight, nodes in convolutions(network).items() if not is_last(weight)}


class Quantizer:
    """A network and the ranges of its maps on calibration images.

    Args:
        network: As `ld_hub.export.onnx_format.convert` makes it; stays as it is.
        inputs: Its inputs, one calibration image after the other.

    Attributes:
        layers: As of `layers_of`.
    """

    def __init__(self, network: onnx.ModelProto, inputs: Iterator[Inputs]) -> None:
        import onnx

        self.layers = layers_of(network)
        self._network = onnx.shape_inference.infer_shapes(network)
        self._compared: list[Inputs] = []
        self._ranges = _ranges(self._network, self._remembered(inputs))

    def quantized(self, kept: Collection[str] = ()) -> onnx.ModelProto:
        """A copy with int8 convolutions.

        Args:
            kept: Layers that stay float32.
        """
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        made = onnx.ModelProto()
        made.CopyFrom(self._network)
        whole = {name for layer, names in self.layers.items() if layer not in kept for name in names}
        left = [node.name for node in made.graph.node if node.op_type == "Conv" and node.name not in whole]
        quantizer = QDQQuantizer(
            made,
            per_channel=True,
            reduce_range=True,  # weights of 7 bits: sums of 8 overflow on processors without VNNI
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self._ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=left,
            op_types_to_quantize=OPERATORS,
            extra_options={},
        )
        with _quiet():
            quantizer.quantize_model()
        quantizer.model.topological_sort()
        result: onnx.ModelProto = quantizer.model.model
        return result

    def by_cost(self) -> list[str]:
        """The layers, first the one whose quantization alone moves scores and boxes most on some calibration images."""
        expected = _outputs(self._network, self._compared)
        costs = {}
        for layer in self.layers:
            alone = self.quantized([other for other in self.layers if other != layer])
            found = _outputs(alone, self._compared)
            costs[layer] = sum(_distance(*pair) for pair in zip(found, expected, strict=True))
        return sorted(costs, key=lambda layer: -costs[layer])

    def _remembered(self, inputs: Iterator[Inputs]) -> Iterator[Inputs]:
        """The same inputs, of which the first are kept to compare layers on."""
        for each in inputs:
            if len(self._compared) < COMPARED:
                self._compared.append(each)
            yield each


def with_int8_weights(network: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose trunk's convolutions store int8 weights, one scale per output channel, and compute in float32.

    Args:
        network: As `ld_hub.export.onnx_format.convert` makes it; stays as it is.
    """
    import onnx
    from onnx import helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(network)
    stored = {each.name: each for each in made.graph.initializer}
    nodes = []
    for layer in layers_of(network):
        whole, scale = rounded(numpy_helper.to_array(stored[layer]))
        names = f"{layer}_whole", f"{layer}_scale"
        made.graph.initializer.remove(stored[layer])
        made.graph.initializer.extend(map(numpy_helper.from_array, (whole, scale), names))
        nodes.append(helper.make_node("DequantizeLinear", names, [layer], name=f"{layer}_back", axis=0))
    behind = list(made.graph.node)
    del made.graph.node[:]
    made.graph.node.extend(nodes + behind)
    return made


def rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights ``(out, ...)`` as int8 in -127..127 and a scale ``(out,)``: their product is the nearest to them.

    Args:
        weight: Of a convolution.
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
    by_channel = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(weight / by_channel), -127, 127).astype(np.int8), scale


def _ranges(network: onnx.ModelProto, inputs: Iterator[Inputs]) -> Any:
    """Least and largest value of every map, over all inputs."""
    import onnx
    from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> Inputs | None:
            return next(inputs, None)

    with tempfile.TemporaryDirectory() as place, _quiet():
        file = Path(place) / "network.onnx"
        onnx.save(network, file)
        calibrator = create_calibrator(file, OPERATORS, augmented_model_path=str(Path(place) / "with_ranges.onnx"))
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def _outputs(network: onnx.ModelProto, inputs: Sequence[Inputs]) -> list[list[NDArray[Any]]]:
    """What a network gives for each of some inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
    order = sorted(each.name for each in network.graph.output)
    return [session.run(order, dict(each)) for each in inputs]


def _distance(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> float:
    """Sum of the outputs' differences, each relative to the norm of what was expected."""
    pairs = zip(found, expected, strict=True)
    return sum(
        float(np.linalg.norm(mine - theirs) / max(float(np.linalg.norm(theirs)), 1e-12)) for mine, theirs in pairs
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of onnxruntime's quantizer."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
