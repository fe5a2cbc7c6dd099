"""Classes that count more or less than others in the class loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

_Self = TypeVar("_Self", bound="WeightedClasses")


@dataclass(frozen=True)
class WeightedClasses:
    """Part of a criterion: the class loss of each entry is multiplied by the weight of its class.

    Attributes:
        class_weights: C factors of the classes' columns, of objects and of background alike; empty for 1 each, as
            published.
    """

    class_weights: tuple[float, ...] = field(default=(), kw_only=True)

    def weighing(self: _Self, weights: Mapping[str, float], names: Sequence[str]) -> _Self:
        """The same criterion with other weights.

        Args:
            weights: By class; 1 for those that are not named.
            names: The classes, in the order of the logits.
        """
        return replace(self, class_weights=tuple(weights.get(name, 1.0) for name in names))

    def class_factors(self, logits: Tensor) -> Tensor | None:
        """``(C,)`` weights where the logits lie; None where all are 1."""
        return _factors(self.class_weights, logits.dtype, logits.device) if self.class_weights else None


@lru_cache(maxsize=8)
def _factors(weights: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept: a copy to the device in every step would make the host wait."""
    with torch.inference_mode(False):
        return torch.tensor(weights, dtype=dtype, device=device)
