"""The student's features through the teacher's frozen head, for any term on predictions (CrossKD, arXiv 2306.11369).

What is compared is not the student's own output but what the teacher's head makes of the student's tower maps, so that
the task's and the teacher's demands never meet on one output. Rows and classes are then the teacher's on both sides;
where terms look is found on the student's own predictions, as ever. Shapes: N images, P cells of a level, F channels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ld_hub.distillation.features import moments, rows_of
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.terms import Over
from ld_hub.errors import ConfigError
from ld_hub.structures import DetectorSpec, Towers

BRANCHES = ("cls", "box")


class CrossHead(nn.Module):
    """What the teacher's head makes of the student's towers; one per teacher, shared by all terms that ask for it.

    Where the student's towers are narrower or wider than the teacher's, a linear adapter per branch (a 1x1 convolution,
    the same for all levels, as the towers are) brings them to the teacher's width. It has no bias, which the statistics
    would take away again. It is trained and checkpointed with the student and is no part of the published model.

    Attributes:
        adapters: By branch, ``"cls"`` and ``"box"``; empty where widths agree.
    """

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict()

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Make adapters where they are needed; they begin the same in every run.

        Args:
            student: Its description.
            teacher: Of `ld_hub.distillation.correspondence.as_seen`.

        Returns:
            Remarks for the user.
        """
        width, wanted = student.tower_channels, teacher.tower_channels
        if width == wanted:
            return []
        random = torch.Generator().manual_seed(0)
        for branch in BRANCHES:
            adapter = nn.utils.skip_init(nn.Linear, width, wanted, bias=False)
            nn.init.normal_(adapter.weight, std=width**-0.5, generator=random)
            self.adapters[branch] = adapter
        return [f"The head's towers have {width} channels and the teacher's {wanted}: adapters are trained with them."]

    def forward(self, inputs: TermInputs, over: Over) -> TermInputs:
        """The same batch with the teacher's head's predictions, made once per step, in the place of the student's.

        Args:
            inputs: With the tower maps of both.
            over: See `restandardised`.
        """
        if over not in inputs.shared:
            if inputs.teacher_head is None:
                raise AssertionError("terms that see the student through the teacher's head need that head")
            inputs.shared[over] = inputs.teacher_head(self._towers(inputs, over))
        return inputs.crossed(inputs.shared[over])

    def _towers(self, inputs: TermInputs, over: Over) -> Towers:
        """The student's class and box maps of each level, fit for the teacher's head."""
        mine, theirs, priors = inputs.student.towers, inputs.teacher.towers, inputs.teacher.priors
        if mine is None or theirs is None:
            raise AssertionError("terms on the crossed output need the maps: forward(images, towers=True)")
        valid = priors.valid(inputs.targets.image_sizes)[:, :: priors.anchors_per_cell]
        sizes = [cls_map.shape[-2] * cls_map.shape[-1] for cls_map, _ in theirs]
        levels = zip(mine, theirs, valid.split(sizes, dim=1), strict=True)
        return tuple(
            (
                restandardised(cls, cls_target, cells, over, self._adapter("cls")),
                restandardised(box, box_target, cells, over, self._adapter("box")),
            )
            for (cls, box), (cls_target, box_target), cells in levels
        )

    def _adapter(self, branch: str) -> nn.Module | None:
        return self.adapters[branch] if self.adapters else None


def restandardised(
    student: Tensor, teacher: Tensor, valid: Tensor, over: Over, adapter: nn.Module | None = None
) -> Tensor:
    """The student's map with the teacher's mean and standard deviation of each channel (CrossKD, appendix).

    Args:
        student: ``(N, F, H, W)``.
        teacher: ``(N, F', H, W)``.
        valid: ``(N, P)`` bool, cells on the images.
        over: ``"image"``: over an image's valid cells; ``"batch"``: over all cells of the batch.
        adapter: From F to F' channels, where they differ.

    Returns:
        ``(N, F', H, W)``.
    """
    rows, target = rows_of(student), rows_of(teacher)  # in float32: sums of half-precision maps would be too coarse
    rows = rows if adapter is None else adapter(rows)
    cells = valid.to(rows.dtype)
    if over == "batch":
        mine, theirs = rows.flatten(0, 1)[None], target.flatten(0, 1)[None]
        cells = torch.ones_like(mine[..., 0])
    else:
        mine, theirs = rows, target
    (mean, deviation), (new_mean, new_deviation) = moments(mine, cells), moments(theirs, cells)
    moved = (rows - mean) / deviation * new_deviation + new_mean
    return moved.transpose(1, 2).reshape(teacher.shape).to(student.dtype)


def spec_through_head(student: DetectorSpec, teacher: DetectorSpec) -> DetectorSpec:
    """What the student is to a term that sees it through the teacher's head: bins and classes are the teacher's.

    Raises:
        ConfigError: If the student's maps do not fit into the teacher's head.
    """
    if student.strides != teacher.strides:
        raise ConfigError(
            f"strides is {student.strides} in student '{student.name}' and {teacher.strides} in teacher "
            f"'{teacher.name}': the student's maps do not fit into the teacher's head. Way out: teacher_scale=1."
        )
    return replace(teacher, points=student.points)
