"""What every distillation term gets to see."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ld_hub.ops.dist import reduce_counts
from ld_hub.structures import Assignment, DenseOutput, Rows, StepCounts, Targets


@dataclass(frozen=True, eq=False)
class Selection:
    """The rows of a region and how much each matters.

    Attributes:
        rows: Which rows.
        importance: ``(K,)`` the region's own weight of each row, without gradient, 0 on filling rows.
    """

    rows: Rows
    importance: Tensor


@dataclass(frozen=True, eq=False)
class TermInputs:
    """One batch as student and teacher see it.

    Attributes:
        student: Predictions with gradient.
        teacher: Predictions of the same rows; whatever comes in, terms see it without gradient.
        assignment: Of the student's rows.
        targets: Ground truths.
        counts: Normalisers of the whole optimizer step; None means this batch, over all ranks.
        selections: Regions found so far in this step, shared by the terms.
    """

    student: DenseOutput
    teacher: DenseOutput
    assignment: Assignment
    targets: Targets
    counts: StepCounts | None = None
    selections: dict[tuple[object, ...], Selection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "teacher", self.teacher.detach())

    def step_counts(self) -> StepCounts:
        """Target-only normalisers of the whole optimizer step."""
        if self.counts is not None:
            return self.counts
        return reduce_counts([StepCounts.local(self.assignment)])

    def student_scores(self, rows: Rows) -> Tensor:
        """Best class score of each row, the w_i of GFL: ``(K,)`` without gradient."""
        logits = rows.gather(self.student.cls_logits.detach())
        return logits.amax(dim=1).sigmoid() if len(logits) else logits.new_zeros(0)
