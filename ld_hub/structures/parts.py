"""What a detector is composed of, as far as the others have to know: who answers for what, and what it costs."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from ld_hub.structures.outputs import DenseOutput
from ld_hub.structures.priors import Priors
from ld_hub.structures.targets import Assignment, StepCounts, Targets


class Assigner(Protocol):
    """Says which row answers for which ground truth; independent of predictions."""

    def __call__(self, priors: Priors, targets: Targets, num_classes: int) -> Assignment:
        """``(A,)`` priors and ``(N, G)`` ground truths to an `Assignment` of ``(N, A)`` rows."""
        ...


class Criterion(Protocol):
    """The detection losses of a family."""

    def __call__(
        self, output: DenseOutput, assignment: Assignment, counts: StepCounts | None = None
    ) -> dict[str, Tensor]:
        """Scalars by name; `counts` are the normalisers of the whole optimizer step."""
        ...

    @property
    def box_loss(self) -> str:
        """Which loss of boxes: ``"giou"``, ``"ciou"``, ``"l1"``."""
        ...

    def published(self, coder: Any, reference: Any, *, distilling: bool = False, box_loss: Any = "giou") -> Criterion:
        """The exact computation of a code base, ``"ld"`` or ``"bckd"``; the coder is that of the family."""
        ...
