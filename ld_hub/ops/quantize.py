"""Numbers in 8 bits: each group has its own scale, counted down from its largest.

A group is the last dimension of a tensor: the bins of an edge, the classes of a row, the cells of a channel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

STEPS = 255  # between a group's largest value and its smallest
LARGEST = 6e4  # that float16 can hold, nearly


class Quantized(NamedTuple):
    """``(..., K)`` numbers in codes.

    With `top` they are even steps below it, ``top - scale * codes``. Without, they are logits of a softmax, which does
    not see what is added to all of them: ``-scale * codes^2 / 255``, in steps that are fine where the probability is.

    Attributes:
        codes: ``(..., K)`` uint8.
        scale: ``(...)`` float16, the difference of the largest and the smallest over 255.
        top: ``(...)`` float16, the largest number of each group; None for logits of a softmax.
    """

    codes: Tensor
    scale: Tensor
    top: Tensor | None = None

    def restore(self) -> Tensor:
        """``(..., K)`` float32."""
        codes, scale = self.codes.float(), self.scale.float()[..., None]
        if self.top is None:
            return codes * codes * (-scale / STEPS)
        return self.top.float()[..., None] - codes * scale


def quantize(values: Tensor, *, softmax: bool = False) -> Quantized:
    """Numbers ``(..., K)`` in 8 bits.

    Args:
        values: Of any floating-point type; beyond 60,000 they are cut off.
        softmax: Whether they are logits of a softmax. Those are off by at most ``sqrt(d r) / 255`` (and r / 260,000),
            d below the largest of a group that reaches over r; others by ``r / 510`` and a 2048th of the largest.
    """
    values = values.float().clamp(-LARGEST, LARGEST)
    largest = values.amax(dim=-1)
    top = largest if softmax else largest.half().float()
    reach = (top - values.amin(dim=-1)).clamp(min=0)
    scale = (reach * (1 + 2**-10) / STEPS).half()  # rounded, but not so far that the smallest number is out of reach
    step = scale.float()[..., None]
    steps = torch.where(step > 0, (top[..., None] - values) / step.clamp(min=1e-12), 0.0)
    codes = (steps.clamp(min=0) * STEPS).sqrt() if softmax else steps
    return Quantized(codes.round().clamp(0, STEPS).to(torch.uint8), scale, None if softmax else top.half())
