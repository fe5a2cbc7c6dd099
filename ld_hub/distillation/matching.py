"""Which teacher row belongs to each student row, and which classes are the same.

Rows correspond by level and cell, levels by stride. Within a cell, anchor corresponds to anchor where both heads have
as many; otherwise the teacher's best-scoring anchor teaches, and of several anchors of the student only its
best-scoring one is taught. Nothing here looks at families: two heads on the same cells correspond as they are.

Shapes: N images, A rows of the student, B rows of the teacher, K selected rows, M common classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ld_hub.errors import ConfigError
from ld_hub.structures import DenseOutput, DetectorSpec, Priors, Rows

_NUMBERED = re.compile(r"class_\d+")  # the name of a class that nobody named


def as_seen(
    teacher: DetectorSpec, teacher_scale: float = 1.0, class_map: Mapping[str, str] | None = None
) -> DetectorSpec:
    """A teacher in the student's terms: strides in px of the student's images, classes by the student's names.

    Args:
        teacher: Its description.
        teacher_scale: Size of the teacher's images over the student's.
        class_map: The teacher's name of classes that the student calls otherwise: ``{"person": "pedestrian"}`` says
            that the student's person is the teacher's pedestrian.

    Raises:
        ConfigError: If `class_map` names a class that the teacher does not have.
    """
    renamed = {theirs: mine for mine, theirs in (class_map or {}).items()}
    missing = [name for name in renamed if name not in teacher.label_names]
    if missing:
        raise ConfigError(
            f"class_map names '{missing[0]}' as a class of teacher '{teacher.name}', which has "
            f"{', '.join(teacher.label_names[:8])}{' ...' if len(teacher.label_names) > 8 else ''}. "
            "It maps the student's names to the teacher's."
        )
    strides = tuple(stride / teacher_scale for stride in teacher.strides)
    whole = tuple(int(stride) if stride == int(stride) else stride for stride in strides)
    labels = tuple(renamed.get(name, name) for name in teacher.label_names)
    return replace(teacher, strides=whole, label_names=labels)  # type: ignore[arg-type]  # unequal to any if no int


def common_classes(student: DetectorSpec, teacher: DetectorSpec) -> list[tuple[int, int]]:
    """Columns of the class logits that mean the same class, in the student's order.

    Args:
        student: Its description.
        teacher: Of `as_seen`.

    Returns:
        Pairs of a student's and a teacher's column. Equal lists correspond one to one; otherwise classes correspond
        by name, and numbered ones (which nobody named) to nothing.
    """
    if student.label_names == teacher.label_names:
        return [(i, i) for i in range(student.num_classes)]
    column = {name: i for i, name in enumerate(teacher.label_names) if not _NUMBERED.fullmatch(name)}
    return [(i, column[name]) for i, name in enumerate(student.label_names) if name in column]


def require_common_classes(student: DetectorSpec, teacher: DetectorSpec) -> None:
    """Refuse a pair that has no class in common.

    Raises:
        ConfigError: With classes of both and the way out.
    """
    if not common_classes(student, teacher):
        mine, theirs = (", ".join(s.label_names[:5]) + " ..." * (len(s.label_names) > 5) for s in (student, teacher))
        raise ConfigError(
            f"Student '{student.name}' ({student.num_classes} classes: {mine}) and teacher '{teacher.name}' "
            f"({teacher.num_classes}: {theirs}) have no class name in common. Give both the same label_names, say "
            "which is which (class_map), or compare boxes alone: a recipe of box terms ('ld'), or the term 'box_iou' "
            "with weighting='region'."
        )


class Partners(NamedTuple):
    """The teacher's row of each row of the student.

    Attributes:
        row: ``(N, A)`` int64 into the flattened ``N * B`` rows of the teacher.
        exists: ``(N, A)`` bool, False where a row has no partner (its `row` is then any).
        per_image: B.
    """

    row: Tensor
    exists: Tensor
    per_image: int

    def of(self, rows: Rows) -> Rows:
        """The partners of some rows of the student, in the same order, with weight 0 where there is none."""
        weight = rows.weight * rows.gather(self.exists)
        return Rows(rows.gather(self.row), weight, self.per_image)


class Matching(nn.Module):
    """The correspondence of two detectors; made once, asked in every step.

    Args:
        student: Its description.
        teacher: Of `as_seen`.
        teacher_scale: Size of the teacher's images over the student's.

    Attributes:
        remarks: What the user should know about the pair.
        first: Index of the first level that both have, in the student and in the teacher.
        levels: Number of levels that both have.
        same_centers: Whether the centres of matched rows are known to coincide.

    Raises:
        ConfigError: If the two have no level in common.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec, teacher_scale: float = 1.0) -> None:
        super().__init__()
        self.names = student.name, teacher.name
        self.teacher_scale = teacher_scale
        self.first, self.levels = self._common_levels(student, teacher)
        self.anchors = student.anchors_per_cell, teacher.anchors_per_cell
        self.row_by_row = student.strides == teacher.strides and self.anchors[0] == self.anchors[1]
        self.same_centers = student.family == teacher.family
        pairs = common_classes(student, teacher)
        self.all_classes = student.label_names == teacher.label_names
        columns = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        self.register_buffer("student_classes", columns[:, 0].contiguous(), persistent=False)
        self.register_buffer("teacher_classes", columns[:, 1].contiguous(), persistent=False)
        self.student_classes: Tensor
        self.teacher_classes: Tensor
        self.remarks = self._remarks(student, teacher, len(pairs))

    def _common_levels(self, student: DetectorSpec, teacher: DetectorSpec) -> tuple[tuple[int, int], int]:
        both = [stride for stride in student.strides if stride in teacher.strides]
        first = (student.strides.index(both[0]), teacher.strides.index(both[0])) if both else (0, 0)
        runs = [list(s.strides[i : i + len(both)]) for s, i in zip((student, teacher), first, strict=True)]
        if not both or runs != [both, both]:
            raise ConfigError(
                f"The strides of student '{student.name}' and teacher '{teacher.name}' do not correspond: "
                f"{_list(student.strides)} against {_list(teacher.strides)} px (of the student's images, at "
                f"teacher_scale {self.teacher_scale:g}). Choose a teacher with the student's strides, or a power of "
                "two as teacher_scale."
            )
        return first, len(both)

    def _remarks(self, student: DetectorSpec, teacher: DetectorSpec, common: int) -> list[str]:
        remarks = []
        if self.levels < len(student.strides):
            alone = [str(stride) for stride in student.strides if stride not in teacher.strides]
            remarks.append(f"The student's levels of stride {', '.join(alone)} have no partner and learn nothing.")
        if self.anchors[0] != self.anchors[1]:
            mine, theirs = self.anchors
            remarks.append(
                f"{mine} row(s) per cell against {theirs}: in each cell "
                + ("the teacher's best-scoring row teaches" if theirs > 1 else "the teacher's row teaches")
                + (" the student's best-scoring one." if mine > 1 else ".")
            )
        if not self.all_classes:
            remarks.append(
                f"{common} of the student's {student.num_classes} classes have the name of one of the teacher's "
                f"{teacher.num_classes}; only these are compared."
            )
        return remarks

    def partners(self, student: DenseOutput, teacher: DenseOutput) -> Partners | None:
        """The teacher's row of each row of a batch, or None where both have the same rows.

        Raises:
            ConfigError: If the levels of the batch do not have the same cells.
        """
        mine, theirs = student.priors, teacher.priors
        (start, shapes), (their_start, their_shapes) = self._cells(mine, 0), self._cells(theirs, 1)
        if shapes != their_shapes:
            raise ConfigError(
                f"Levels of student '{self.names[0]}' and teacher '{self.names[1]}' have different cells: {shapes} "
                f"against {their_shapes}. The teacher has to see the same images, {self.teacher_scale:g} times as "
                "big (teacher_scale)."
            )
        if self.row_by_row:
            return None
        images, (per_cell, their_per_cell) = len(student.box), self.anchors
        size = sum(height * width for height, width in shapes)
        row = torch.arange(len(mine), device=student.box.device)
        cell, anchor = row // per_cell - start, row % per_cell
        exists = ((cell >= 0) & (cell < size)).expand(images, -1)  # (N, A)
        first = (cell.clamp(min=0, max=size - 1) + their_start) * their_per_cell  # of the teacher's rows on the cell
        if per_cell == their_per_cell:
            partner = (first + anchor).expand(images, -1)
        else:
            best = _best_anchor(self._known(teacher.cls_logits), their_per_cell)
            partner = first + best.index_select(1, first // their_per_cell)
            exists = exists & (_best_anchor(student.cls_logits, per_cell).index_select(1, row // per_cell) == anchor)
        image = torch.arange(images, device=row.device)[:, None]
        return Partners(image * len(theirs) + partner, exists, len(theirs))

    def _cells(self, priors: Priors, side: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Number of cells before the common levels, and height and width in cells of these."""
        first = self.first[side]
        before = sum(height * width for height, width in priors.level_shapes[:first])
        return before, priors.level_shapes[first : first + self.levels]

    def _known(self, logits: Tensor) -> Tensor:
        """The teacher's logits ``(..., C)`` of the common classes, of all if there are none."""
        if self.all_classes or not len(self.teacher_classes):
            return logits
        return logits.index_select(-1, self.teacher_classes)


def _list(strides: tuple[float, ...]) -> str:
    return ", ".join(f"{stride:.4g}" for stride in strides)


def _best_anchor(logits: Tensor, per_cell: int) -> Tensor:
    """``(N, A, C)`` logits to ``(N, cells)``: which of its anchors has the best class score, the first on a tie."""
    if per_cell == 1:
        return logits.new_zeros(logits.shape[:2], dtype=torch.int64)
    best: Tensor = logits.detach().amax(dim=2).unflatten(1, (-1, per_cell)).argmax(dim=2)
    return best
