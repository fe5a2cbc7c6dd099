"""Which teacher row belongs to each student row, and which classes are the same.

Rows correspond by level and cell, levels by stride. Within a cell, anchor corresponds to anchor where both heads have
as many; otherwise the teacher's best-scoring anchor teaches, and of the student's anchors that a term looks at only the
best-scoring one of each cell is taught. Nothing here looks at families: two heads on the same cells correspond as they
are. Where no strides agree (images 1.5 times as big), a row's partner is on the level of nearest stride, on the cell
that its centre falls into; only terms on decoded boxes can use that (`Term.any_grid`).

Shapes: N images, A rows of the student, B rows of the teacher, K selected rows, M common classes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
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
    labels = rename(teacher.label_names, class_map or {}, teacher.name)
    strides = tuple(stride / teacher_scale for stride in teacher.strides)
    whole = tuple(int(stride) if stride == int(stride) else stride for stride in strides)
    return replace(teacher, strides=whole, label_names=labels)  # type: ignore[arg-type]  # unequal to any if no int


def rename(names: Sequence[str], class_map: Mapping[str, str], teacher: str) -> tuple[str, ...]:
    """A teacher's classes by the student's names.

    Args:
        names: The teacher's names.
        class_map: See `as_seen`.
        teacher: Whose classes they are, for the message.

    Raises:
        ConfigError: If `class_map` names a class that is not among them.
    """
    renamed = {theirs: mine for mine, theirs in class_map.items()}
    missing = [name for name in renamed if name not in names]
    if missing:
        raise ConfigError(
            f"class_map names '{missing[0]}' as a class of teacher '{teacher}', which has "
            f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}. It maps the student's names to the teacher's."
        )
    return tuple(renamed.get(name, name) for name in names)


def class_pairs(mine: Sequence[str], theirs: Sequence[str]) -> list[tuple[int, int]]:
    """Places of two lists of names that mean the same class, in the order of the first.

    Args:
        mine: The student's classes.
        theirs: The teacher's, by the student's names.

    Returns:
        Pairs of places. Equal lists correspond one to one; otherwise classes correspond by name, and numbered ones
        (which nobody named) to nothing.
    """
    if tuple(mine) == tuple(theirs):
        return [(i, i) for i in range(len(mine))]
    place = {name: i for i, name in enumerate(theirs) if not _NUMBERED.fullmatch(name)}
    return [(i, place[name]) for i, name in enumerate(mine) if name in place]


def common_classes(student: DetectorSpec, teacher: DetectorSpec) -> list[tuple[int, int]]:
    """Columns of the class logits that mean the same class, in the student's order.

    Args:
        student: Its description.
        teacher: Of `as_seen`.

    Returns:
        Pairs of a student's and a teacher's column, as of `class_pairs`.
    """
    return class_pairs(student.label_names, teacher.label_names)


def common_levels(student: DetectorSpec, teacher: DetectorSpec) -> tuple[tuple[int, int], int]:
    """Levels of equal stride.

    Args:
        student: Its description.
        teacher: Of `as_seen`.

    Returns:
        Index of the first such level in the student and in the teacher, and how many follow one another in both: 0
        where there is none, or where one of the two has others in between.
    """
    both = [stride for stride in student.strides if stride in teacher.strides]
    if not both:
        return (0, 0), 0
    first = student.strides.index(both[0]), teacher.strides.index(both[0])
    runs = [list(s.strides[i : i + len(both)]) for s, i in zip((student, teacher), first, strict=True)]
    return (first, len(both)) if runs == [both, both] else ((0, 0), 0)


def require_common_levels(student: DetectorSpec, teacher: DetectorSpec) -> None:
    """Refuse a pair whose levels do not correspond.

    Raises:
        ConfigError: With the strides of both and the way out.
    """
    if not common_levels(student, teacher)[1]:
        raise ConfigError(
            f"The strides of student '{student.name}' and teacher '{teacher.name}' do not correspond: "
            f"{listed(student.strides)} against {listed(teacher.strides)} px of the student's images. Choose a teacher "
            "with the student's strides, a power of two as teacher_scale, or terms on decoded boxes alone ('box_iou', "
            "recipe 'bckd_box')."
        )


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
        rank: ``(N, A)`` the student's best class logit where its rows of a cell contend for one partner; else None.
        rivals: The student's rows of a cell.
    """

    row: Tensor
    exists: Tensor
    per_image: int
    rank: Tensor | None = None
    rivals: int = 1

    def of(self, rows: Rows) -> Rows:
        """The partners of some rows of the student, in the same order, with weight 0 where there is none.

        Where rows of a cell contend, the best-scoring one of them is taught, the first on a tie.
        """
        weight = rows.weight * rows.gather(self.exists)
        if self.rank is not None:
            weight = weight * self._best(rows, rows.gather(self.rank).masked_fill(weight == 0, -torch.inf))
        return Rows(rows.gather(self.row), weight, self.per_image)

    def _best(self, rows: Rows, rank: Tensor) -> Tensor:
        """``(K,)`` bool: the first of the best-ranked of the K rows on each cell."""
        cell, cells = rows.index // self.rivals, self.row.numel() // self.rivals
        best = rank.new_full((cells,), -torch.inf).scatter_reduce(0, cell, rank, "amax")
        order = torch.arange(len(cell), device=cell.device)
        candidate = torch.where(rank == best[cell], order, len(cell))
        first = order.new_full((cells,), len(cell)).scatter_reduce(0, cell, candidate, "amin")
        return first[cell] == order


class Matching(nn.Module):
    """The correspondence of two detectors; made once, asked in every step.

    Args:
        student: Its description.
        teacher: Of `as_seen`.
        teacher_scale: Size of the teacher's images over the student's.

    Attributes:
        remarks: What the user should know about the pair.
        first: Index of the first level that both have, in the student and in the teacher.
        levels: Number of levels that both have; 0 where strides do not agree.
        same_centers: Whether the centres of matched rows are known to coincide.
    """

    def __init__(self, student: DetectorSpec, teacher: DetectorSpec, teacher_scale: float = 1.0) -> None:
        super().__init__()
        self.names = student.name, teacher.name
        self.teacher_scale = teacher_scale
        self.first, self.levels = common_levels(student, teacher)
        self.nearest = tuple(nearest(stride, teacher.strides) for stride in student.strides)
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

    def _remarks(self, student: DetectorSpec, teacher: DetectorSpec, common: int) -> list[str]:
        remarks = []
        if not self.levels:
            pairs = ", ".join(
                f"{s} by {teacher.strides[k]:.4g}" for s, k in zip(student.strides, self.nearest, strict=True)
            )
            remarks.append(f"No strides agree; the student's levels are taught by those of nearest stride: {pairs} px.")
        elif self.levels < len(student.strides):
            alone = [str(stride) for stride in student.strides if stride not in teacher.strides]
            remarks.append(f"The student's levels of stride {', '.join(alone)} have no partner and learn nothing.")
        if self.anchors[0] != self.anchors[1]:
            mine, theirs = self.anchors
            remarks.append(
                f"{mine} row(s) per cell against {theirs}: in each cell "
                + ("the teacher's best-scoring row teaches" if theirs > 1 else "the teacher's row teaches")
                + (" the student's best-scoring one of those that a term looks at." if mine > 1 else ".")
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
        if not self.levels:
            return self._by_position(student, teacher)
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
        theirs_of = cell.clamp(min=0, max=size - 1) + their_start
        if per_cell == their_per_cell:
            return self._partners((theirs_of * per_cell + anchor).expand(images, -1), exists, student, teacher)
        return self._partners(self._teaching(teacher, theirs_of), exists, student, teacher)

    def _by_position(self, student: DenseOutput, teacher: DenseOutput) -> Partners:
        """Partners where no strides agree: the cell of the level of nearest stride that a row's centre falls into."""
        mine, theirs = student.priors, teacher.priors
        starts = list(accumulate((height * width for height, width in theirs.level_shapes), initial=0))
        cells, inside = [], []
        for level, centers in zip(self.nearest, mine.centers.split(mine.level_sizes), strict=True):
            height, width = theirs.level_shapes[level]
            place = (centers * (self.teacher_scale / theirs.level_strides[level])).floor().long()
            column, line = place.unbind(dim=1)
            inside.append((column < width) & (line < height))
            cells.append(starts[level] + line.clamp(max=height - 1) * width + column.clamp(max=width - 1))
        exists = torch.cat(inside).expand(len(student.box), -1)
        return self._partners(self._teaching(teacher, torch.cat(cells)), exists, student, teacher)

    def _teaching(self, teacher: DenseOutput, cell: Tensor) -> Tensor:
        """``(A,)`` cells of the teacher to its row on each that teaches, ``(N, A)`` into its B rows."""
        per_cell = self.anchors[1]
        best = _best_anchor(self._known(teacher.cls_logits), per_cell)
        return cell * per_cell + best.index_select(1, cell)

    def _partners(self, row: Tensor, exists: Tensor, student: DenseOutput, teacher: DenseOutput) -> Partners:
        """Finish: rows into the B of each image become rows into those of the batch."""
        image, rivals = torch.arange(len(row), device=row.device)[:, None], self.anchors[0]
        alone = rivals == 1 or (bool(self.levels) and rivals == self.anchors[1])
        rank = None if alone else student.cls_logits.detach().amax(dim=2)
        return Partners(image * len(teacher.priors) + row, exists, len(teacher.priors), rank, rivals)

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


def listed(strides: tuple[float, ...]) -> str:
    """Strides as text."""
    return ", ".join(f"{stride:.4g}" for stride in strides)


def nearest(stride: float, strides: tuple[float, ...]) -> int:
    """Index of the stride whose ratio to one is nearest to 1, the first on a tie."""
    return min(range(len(strides)), key=lambda k: abs(math.log(strides[k] / stride)))


def _best_anchor(logits: Tensor, per_cell: int) -> Tensor:
    """``(N, A, C)`` logits to ``(N, cells)``: which of its anchors has the best class score, the first on a tie."""
    if per_cell == 1:
        return logits.new_zeros(logits.shape[:2], dtype=torch.int64)
    best: Tensor = logits.detach().amax(dim=2).unflatten(1, (-1, per_cell)).argmax(dim=2)
    return best
