"""Classes that count more or less than others in the class loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

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
        return logits.new_tensor(self.class_weights) if self.class_weights else None
