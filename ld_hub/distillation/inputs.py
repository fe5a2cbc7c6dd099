"""What every distillation term gets to see.

Shapes: N images, A rows of the student, B rows of the teacher, K selected rows, M classes that both know, R = reg_max.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ld_hub.distillation.correspondence import Matching, Partners, nearest
from ld_hub.ops.dist import reduce_counts
from ld_hub.ops.resampling import on_cells
from ld_hub.structures import Assignment, DenseOutput, Encoding, Rows, StepCounts, Targets, Towers


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
class Pairs:
    """Rows of the student beside the rows of the teacher that belong to them.

    Attributes:
        student: Predictions with gradient.
        teacher: Predictions without.
        rows: Of the student.
        partners: Of the teacher, in the same order.
        matching: How the two correspond; None means that they have the same rows and classes.
        crossed: Whether the teacher's head made the student's predictions: both have the teacher's rows and classes.
    """

    student: DenseOutput
    teacher: DenseOutput
    rows: Rows
    partners: Rows
    matching: Matching | None = None
    crossed: bool = False

    @property
    def predicted(self) -> Rows:
        """Where the student's predictions stand: the rows themselves, or the teacher's where its head made them."""
        return self.partners if self.crossed else self.rows

    @property
    def weight(self) -> Tensor:
        """``(K,)`` 1.0, or 0.0 for filling rows and rows without a partner."""
        return self.partners.weight

    def classes(self) -> tuple[Tensor, Tensor]:
        """Class logits ``(K, M)`` of the classes that both know, in the same order."""
        mine, theirs = self.predicted.gather(self.student.cls_logits), self.partners.gather(self.teacher.cls_logits)
        if self.crossed or self.matching is None or self.matching.all_classes:
            return mine, theirs
        return (
            mine.index_select(1, self.matching.student_classes),
            theirs.index_select(1, self.matching.teacher_classes),
        )

    def outputs(self) -> tuple[Tensor, Tensor]:
        """What the box branches say, each in its own coding: ``(K, 4, R+1)`` or ``(K, 4)``."""
        return self.predicted.gather(self.student.box), self.partners.gather(self.teacher.box)

    def boxes(self) -> tuple[Tensor, Tensor]:
        """Boxes ``(K, 4)``, xyxy px of the student's images, each decoded by its own head's coder."""
        mine, theirs = self.outputs()
        mine = self.student.coder.decode_rows(mine, self.student.priors, self.predicted.priors)
        theirs = self.teacher.coder.decode_rows(theirs, self.teacher.priors, self.partners.priors)
        scale = 1.0 if self.matching is None else self.matching.teacher_scale
        return mine, theirs if scale == 1 else theirs / scale

    def edge_shifts(self) -> Tensor | None:
        """What a distance from the teacher's centre has to be changed by to count from the student's.

        Returns:
            ``(K, 4)`` left, top, right, bottom, in strides of the student; None where centres coincide.
        """
        if self.crossed or self.matching is None or self.matching.same_centers:
            return None
        priors, theirs = self.student.priors, self.teacher.priors
        center, stride = priors.centers[self.rows.priors], priors.strides[self.rows.priors]
        ahead = (center - theirs.centers[self.partners.priors] / self.matching.teacher_scale) / stride[:, None]
        return torch.cat([ahead, -ahead], dim=1)


@dataclass(frozen=True, eq=False)
class MapInputs:
    """One batch as terms on maps see it: all there is where an image encoder teaches (`TermInputs` where a detector).

    Attributes:
        student: Predictions and maps with gradient.
        teacher: Of the same images; whatever comes in, terms see it without gradient.
        assignment: Of the student's rows.
        targets: Ground truths.
        counts: Normalisers of the whole optimizer step; None means this batch, over all ranks.
    """

    student: DenseOutput
    teacher: DenseOutput | Encoding
    assignment: Assignment
    targets: Targets
    counts: StepCounts | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "teacher", self.teacher.detach())

    def step_counts(self) -> StepCounts:
        """Target-only normalisers of the whole optimizer step."""
        if self.counts is not None:
            return self.counts
        return reduce_counts([StepCounts.local(self.assignment)])

    def teacher_maps(self) -> list[tuple[int, Tensor]]:
        """Index of each of the student's levels that is taught, and the teacher's map on its cells, finest first.

        Each level is taught by the encoder's map of nearest stride, interpolated (`on_cells`).
        """
        if not isinstance(self.teacher, Encoding):
            raise AssertionError("a detector's maps belong to its rows: TermInputs")
        priors, strides = self.student.priors, self.teacher.strides
        found = []
        for shape, stride in zip(priors.level_shapes, priors.level_strides, strict=True):
            k = nearest(stride, strides)
            found.append(on_cells(self.teacher.maps[k], strides[k], shape, stride))
        return list(enumerate(found))


@dataclass(frozen=True, eq=False)
class TermInputs(MapInputs):
    """One batch as student and teacher see it.

    Attributes:
        student: Predictions with gradient: its own, or the teacher's head's on its towers (`own`).
        teacher: Predictions for the same images; whatever comes in, terms see it without gradient.
        assignment: Of the student's rows.
        targets: Ground truths.
        counts: Normalisers of the whole optimizer step; None means this batch, over all ranks.
        matching: How the two correspond; None means that they have the same rows and classes.
        teacher_head: The teacher's head from the taps of its towers on (CrossKD): class and box maps of each level to
            predictions, differentiable; None where nobody asked for towers.
        confident: Whether regions around targets are replaced by the rows where the teacher sees an object.
        own: Where `student` is what the teacher's head makes of the student's towers: the same batch with the student's
            own predictions, on which regions are found. None where `student` is these.
        selections: Regions found so far in this step, shared by the terms.
        shared: What the teacher's head makes of the student's towers, by what these are re-standardised over; made
            once in this step for all terms (`ld_hub.distillation.cross_head`).
    """

    teacher: DenseOutput
    matching: Matching | None = None
    teacher_head: Callable[[Towers], DenseOutput] | None = None
    confident: bool = False
    own: TermInputs | None = None
    selections: dict[tuple[object, ...], Selection] = field(default_factory=dict, init=False)
    shared: dict[str, DenseOutput] = field(default_factory=dict, init=False)
    partners: Partners | None = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "partners", self._partners())

    def _partners(self) -> Partners | None:
        if self.own is not None:
            return self.own.partners
        return None if self.matching is None else self.matching.partners(self.student, self.teacher)

    def matched(self, matching: Matching) -> TermInputs:
        """The same batch under a correspondence of rows and classes."""
        return replace(self, matching=matching)

    def crossed(self, output: DenseOutput) -> TermInputs:
        """The same batch with predictions that the teacher's head made of the student's towers."""
        return replace(self, student=output, own=self)

    def pairs(self, rows: Rows) -> Pairs:
        """Rows of the student beside the teacher's that belong to them; the same rows where both have the same."""
        partners = rows if self.partners is None else self.partners.of(rows)
        return Pairs(self.student, self.teacher, rows, partners, self.matching, crossed=self.own is not None)

    def common_levels(self) -> list[tuple[int, int]]:
        """Indices of each pyramid level that both have: the student's and the teacher's, finest first."""
        if self.matching is None:
            return [(level, level) for level in range(len(self.student.priors.level_shapes))]
        mine, theirs = self.matching.first
        return [(mine + level, theirs + level) for level in range(self.matching.levels)]

    def teacher_maps(self) -> list[tuple[int, Tensor]]:
        """See `MapInputs.teacher_maps`: the levels that both pyramids have, as they are."""
        if self.teacher.features is None:
            raise AssertionError("terms on maps need those of both pyramids: forward(images, features=True)")
        return [(mine, self.teacher.features[theirs]) for mine, theirs in self.common_levels()]

    def everywhere(self) -> Pairs:
        """All rows of the student in place, beside their partners; off the images their weight is 0."""
        return self.pairs(Rows.every(self.assignment.valid, self.student.box.dtype))

    def class_maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Class logits of all rows, ``(N, A, M)`` the student's and the teacher's, and their weight ``(N, A)``."""
        pairs, images = self.everywhere(), len(self.student.box)
        student, teacher, weight = (part.unflatten(0, (images, -1)) for part in (*pairs.classes(), pairs.weight))
        return student, teacher, weight

    def student_scores(self, rows: Rows) -> Tensor:
        """Best class score of each row, the w_i of GFL: ``(K,)`` without gradient."""
        logits = rows.gather(self.student.cls_logits.detach())
        return logits.amax(dim=1).sigmoid() if len(logits) else logits.new_zeros(0)
