"""Numbers in 8 bits: each group has its own scale, and its largest value stays as it is.

A group is the last dimension of a tensor: the bins of an edge, the classes of a row, the cells of a channel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 255  # between a group's largest value and its smallest
LARGEST = 6e4  # that float16 can hold, nearly


class Quantized(NamedTuple):
    """``(..., K)`` numbers, of which ``top - scale * codes`` is left.

    Attributes:
        codes: ``(..., K)`` uint8.
        scale: ``(...)`` float16.
        top: ``(...)`` float16, the largest number of each group; None where it was taken off.
    """

    codes: Tensor
    scale: Tensor
    top: Tensor | None = None

    def restore(self) -> Tensor:
        """``(..., K)`` float32."""
        below = self.codes * -self.scale.float()[..., None]
        return below if self.top is None else below + self.top.float()[..., None]


def quantize(values: Tensor, *, shift: bool = True) -> Quantized:
    """Numbers ``(..., K)`` in 8 bits, off by at most half a scale, and by a 2048th of the largest of the group.

    Args:
        values: Of any floating-point type; beyond 60,000 they are cut off.
        shift: Keep the largest number of each group; False gives it up, as it means nothing in logits of a softmax.
    """
    values = values.float().clamp(-LARGEST, LARGEST)
    largest = values.amax(dim=-1)
    top = largest.half().float() if shift else largest
    reach = (top - values.amin(dim=-1)).clamp(min=0)
    scale = (reach * (1 + 2**-10) / STEPS).half()  # rounded, but not so far that the smallest number is out of reach
    step = scale.float()[..., None]
    codes = torch.where(step > 0, (top[..., None] - values) / step.clamp(min=1e-12), 0.0)
    return Quantized(codes.round().clamp(0, STEPS).to(torch.uint8), scale, top.half() if shift else None)
