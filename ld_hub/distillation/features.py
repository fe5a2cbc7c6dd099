"""What terms on the pyramid share: levels, adapters, statistics of channels.

Shapes: N images, L levels, P cells of a level (row-major), F channels. Maps are handled as rows ``(N, P, F)``.
Cells on the padding of a batch take no part. Where a student's pyramid is narrower or wider than its teacher's, a
linear adapter per level (a 1x1 convolution) brings it to the teacher's width; it is trained and checkpointed with the
student and is no part of the published model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ld_hub.distillation.correspondence import nearest
from ld_hub.distillation.inputs import MapInputs
from ld_hub.distillation.terms import CONFIG, Term
from ld_hub.structures import DetectorSpec, EncoderSpec

EPS = 1e-6  # least standard deviation of a channel


@dataclass(frozen=True, eq=False)
class Level:
    """One pyramid level of a batch as a feature term sees it.

    Attributes:
        index: Index of the level in the student's pyramid.
        student: ``(N, P, F)`` adapted to the teacher's width, with gradient.
        teacher: ``(N, P, F)`` without gradient.
        valid: ``(N, P)`` 1.0 for cells on the images, 0.0 on padding.
        shape: Height and width in cells, P = height * width.
        stride: px per cell.
    """

    index: int
    student: Tensor
    teacher: Tensor
    valid: Tensor
    shape: tuple[int, int]
    stride: int


class FeatureTerm(Term[CONFIG]):
    """Base of terms on pyramid maps: adapts widths, hands out the levels that both pyramids have."""

    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Adapters are made where widths differ."""
        remarks = super().setup(student, teacher)
        width, wanted = student.feature_channels, teacher.feature_channels
        widths = [wanted] * len(student.strides)
        self.adapters = _adapters(width, widths if width != wanted else [])
        self.build(widths)
        if width == wanted:
            return remarks
        remark = f"The pyramid has {width} channels and the teacher's {wanted}: adapters are trained with the student."
        return [*remarks, remark]

    def setup_encoder(self, student: DetectorSpec, encoder: EncoderSpec) -> list[str]:
        """Adapters are always made: a pyramid's channels and an encoder's have nothing to do with each other."""
        chosen = [nearest(stride, encoder.strides) for stride in student.strides]
        widths = [encoder.channels[k] for k in chosen]
        self.adapters = _adapters(student.feature_channels, widths)
        self.build(widths)
        pairs = ", ".join(f"{s} by {encoder.strides[k]:.4g}" for s, k in zip(student.strides, chosen, strict=True))
        return [
            f"'{encoder.name}' is an image encoder: the student's levels are taught by its maps of nearest stride, "
            f"interpolated ({pairs} px), through adapters that are trained with the student."
        ]

    def build(self, widths: Sequence[int]) -> None:
        """Make what else the term trains.

        Args:
            widths: For each of the student's levels the channels that its adapted map and the teacher's have.
        """

    def levels(self, inputs: MapInputs) -> Iterator[Level]:
        """The levels of a batch that are taught, finest first."""
        ours = inputs.student.features
        if ours is None:
            raise AssertionError("terms on maps need those of both pyramids: forward(images, features=True)")
        priors, per_cell = inputs.student.priors, inputs.student.priors.anchors_per_cell
        valid = inputs.assignment.valid[:, ::per_cell]
        sizes = [size // per_cell for size in priors.level_sizes]
        for index, theirs in inputs.teacher_maps():
            mine = rows_of(ours[index])
            yield Level(
                index=index,
                student=self.adapters[index](mine) if self.adapters else mine,
                teacher=rows_of(theirs),
                valid=valid.split(sizes, dim=1)[index].to(mine.dtype),
                shape=priors.level_shapes[index],
                stride=priors.level_strides[index],
            )


def _adapters(width: int, wanted: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(width, each) for each in wanted)


def rows_of(feature: Tensor) -> Tensor:
    """``(N, F, H, W)`` to ``(N, P, F)`` in float32 (float64 stays)."""
    rows = feature.flatten(2).transpose(1, 2)
    return rows if rows.dtype == torch.float64 else rows.float()


def moments(values: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(N, 1, F)`` of each channel over the valid cells; the latter at least `EPS`.

    Args:
        values: ``(N, P, F)``.
        valid: ``(N, P)`` 1.0 or 0.0.
    """
    share = (valid / valid.sum(dim=1, keepdim=True))[..., None]
    mean = (values * share).sum(dim=1, keepdim=True)
    variance = ((values - mean).square() * share).sum(dim=1, keepdim=True)
    return mean, variance.clamp(min=EPS**2).sqrt()


def standardised(values: Tensor, valid: Tensor) -> Tensor:
    """Each channel with mean 0 and standard deviation 1 over the valid cells; constant channels become 0."""
    mean, deviation = moments(values, valid)
    return (values - mean) / deviation
