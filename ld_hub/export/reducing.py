"""A network in smaller numbers: which, and what of it stays float32 so that its AP stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ld_hub.export.half import halved
from ld_hub.export.quantizing import Inputs, Quantizer, with_int8_weights

if TYPE_CHECKING:
    import onnx


def reduced(network: onnx.ModelProto, precision: str, to: str) -> onnx.ModelProto:
    """A network in a precision that takes no calibration.

    Args:
        network: As `ld_hub.export.onnx_format.convert` makes it; stays as it is.
        precision: One of `ld_hub.export.formats.PRECISIONS`, but for int8.
        to: Format; OpenVINO halves what it writes itself.
    """
    if precision == "float16" and to == "onnx":
        return halved(network)
    return with_int8_weights(network) if precision == "int8_weights" else network


def quantized(
    network: onnx.ModelProto,
    inputs: Iterator[Inputs],
    lost_ap: Callable[[onnx.ModelProto], float],
    allowed: float,
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A network in int8; where it loses too much AP, the layers that cost most stay float32: 1, 2, 4, 8 ... of them.

    Args:
        network: As `ld_hub.export.onnx_format.convert` makes it; stays as it is.
        inputs: For calibration.
        lost_ap: What the AP of a network is below the model's.
        allowed: Most of that.

    Returns:
        The first network that loses no more, else the one that loses least; and its layers that stayed float32.
    """
    quantizer = Quantizer(network, inputs)
    best: tuple[onnx.ModelProto, tuple[str, ...]] = quantizer.quantized(), ()
    least = lost_ap(best[0])
    ranked = quantizer.by_cost() if least > allowed else []
    number = 1
    while least > allowed and number < len(ranked):
        kept = tuple(ranked[:number])
        candidate = quantizer.quantized(kept)
        loss = lost_ap(candidate)
        if loss < least:
            best, least = (candidate, kept), loss
        number *= 2
    return best
