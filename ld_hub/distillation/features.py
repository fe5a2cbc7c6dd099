"""Terms on the pyramid: imitation of feature maps in a region, PKD, CWD, MGD.

Shapes: N images, L levels, P cells of a level (row-major), F channels. Maps are handled as rows ``(N, P, F)``.
Cells on the padding of a batch take no part. Where a student's pyramid is narrower or wider than its teacher's, a
linear adapter per level (a 1x1 convolution) brings it to the teacher's width; it is trained and checkpointed with the
student and is no part of the published model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ld_hub.distillation.correspondence import require_common_classes
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import CONFIG, Term, TermConfig, WholeConfig, register_term
from ld_hub.errors import ConfigError
from ld_hub.structures import DetectorSpec, Priors, Rows

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
        self.adapters = nn.ModuleList()
        if width == wanted:
            return remarks
        self.adapters.extend(nn.Linear(width, wanted) for _ in student.strides)
        remark = f"The pyramid has {width} channels and the teacher's {wanted}: adapters are trained with the student."
        return [*remarks, remark]

    def levels(self, inputs: TermInputs) -> Iterator[Level]:
        """The levels of a batch that student and teacher have in common, finest first."""
        ours, theirs = inputs.student.features, inputs.teacher.features
        if ours is None or theirs is None:
            raise AssertionError("feature terms need the maps of both pyramids: forward(images, features=True)")
        priors, per_cell = inputs.student.priors, inputs.student.priors.anchors_per_cell
        valid = inputs.assignment.valid[:, ::per_cell]
        sizes = [size // per_cell for size in priors.level_sizes]
        for index, theirs_at in inputs.common_levels():
            mine = rows_of(ours[index])
            yield Level(
                index=index,
                student=self.adapters[index](mine) if self.adapters else mine,
                teacher=rows_of(theirs[theirs_at]),
                valid=valid.split(sizes, dim=1)[index].to(mine.dtype),
                shape=priors.level_shapes[index],
                stride=priors.level_strides[index],
            )


def rows_of(feature: Tensor) -> Tensor:
    """``(N, F, H, W)`` to ``(N, P, F)`` in float32 (float64 stays)."""
    rows = feature.flatten(2).transpose(1, 2)
    return rows if rows.dtype == torch.float64 else rows.float()


def cells_of(rows: Rows, priors: Priors, images: int) -> tuple[Tensor, ...]:
    """The cells that at least one of some rows stands on, 1.0 or 0.0: ``(N, P)`` of each level."""
    chosen = rows.mask(images).unflatten(1, (-1, priors.anchors_per_cell)).amax(dim=2)
    levels: tuple[Tensor, ...] = chosen.split([size // priors.anchors_per_cell for size in priors.level_sizes], dim=1)
    return levels


@dataclass(frozen=True)
class FeatureMSEConfig(TermConfig):
    """Imitation of the pyramid's maps in a region (FitNets, arXiv 1412.6550; the regions of LD's Table 6).

    The mean over the region's cells of each level is taken and the levels' means are added.

    Attributes:
        mean: Cells that a level's mean is over: ``"image"``, of each image, so that a batch may be split (then the
            mean over images is taken); ``"batch"``, of this rank's batch, as published.
    """

    kind: ClassVar[str] = "feature_mse"
    weight: float = 2.0
    region: str = "all"
    mean: Literal["image", "batch"] = "image"

    def published(self, reference: str) -> FeatureMSEConfig:
        """Means over this rank's cells; levels without positives are left out (reference SPEC 4)."""
        region = "gi_batch" if self.region == "gi" else self.region
        return replace(self, mean="batch", levels="with_positives", region=region)


@register_term
class FeatureMSE(FeatureTerm[FeatureMSEConfig]):
    """``weight * sum over levels of the mean over cells and channels of (s - t)^2``. See `FeatureMSEConfig`."""

    config_class = FeatureMSEConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config, total = self.config, inputs.student.box.new_zeros(())
        cells = cells_of(select(inputs, config).rows, inputs.student.priors, len(inputs.student.box))
        for level in self.levels(inputs):
            chosen = cells[level.index]
            error = (level.student - level.teacher).square().mean(dim=2) * chosen  # (N, P)
            if config.mean == "batch":
                total = total + error.sum() / chosen.sum().clamp(min=1)
            else:
                per_image = error.sum(dim=1) / chosen.sum(dim=1).clamp(min=1)
                total = total + per_image.sum() / inputs.step_counts().images
        return config.weight * total


@dataclass(frozen=True)
class PearsonFeatureConfig(WholeConfig):
    """PKD (arXiv 2207.02039): maps are compared after each channel is standardised, so that only patterns count.

    Attributes:
        over: What a channel is standardised over: ``"image"``, each image's own cells, so that a batch may be split;
            ``"batch"``, all cells of this rank's batch, padding included, as published.
    """

    kind: ClassVar[str] = "pkd"
    weight: float = 6.0
    over: Literal["image", "batch"] = "image"


@register_term
class PearsonFeature(FeatureTerm[PearsonFeatureConfig]):
    """``weight * sum over levels of the mean of (s' - t')^2 / 2``, which is 1 - r of each channel (PKD, eq. 4)."""

    config_class = PearsonFeatureConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        total = inputs.student.box.new_zeros(())
        for level in self.levels(inputs):
            student, teacher, valid = level.student, level.teacher, level.valid
            if self.config.over == "batch":
                student, teacher = student.flatten(0, 1)[None], teacher.flatten(0, 1)[None]
                valid = torch.ones_like(student[..., 0])
            distance = (standardised(student, valid) - standardised(teacher, valid)).square() * valid[..., None]
            per_image = distance.sum(dim=1).mean(dim=1) / valid.sum(dim=1) / 2
            images = inputs.step_counts().images if self.config.over == "image" else 1
            total = total + per_image.sum() / images
        return self.config.weight * total


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


@dataclass(frozen=True)
class ChannelKLConfig(WholeConfig):
    """CWD (arXiv 2011.13256): each channel's map as a distribution over the cells of an image.

    Attributes:
        on: ``"features"``, the pyramid's channels, or ``"logits"``, the class logits.
        temperature: T.
    """

    kind: ClassVar[str] = "cwd"
    weight: float = 10.0
    on: Literal["features", "logits"] = "features"
    temperature: float = 1.0


@register_term
class ChannelKL(FeatureTerm[ChannelKLConfig]):
    """``weight * sum over levels of T^2 KL / F``, mean over images (CWD, eq. 4). See `ChannelKLConfig`."""

    config_class = ChannelKLConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """See `FeatureTerm.setup`; logits need no adapters, and have channels in common only where classes are."""
        if self.config.on == "features":
            return super().setup(student, teacher)
        require_common_classes(student, teacher)
        return []

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        temperature, total = self.config.temperature, inputs.student.box.new_zeros(())
        for student, teacher, valid in self._maps(inputs):
            outside = (1 - valid)[..., None] * (torch.finfo(student.dtype).min / 8)  # no share of the softmax
            log_p = (student / temperature + outside).log_softmax(dim=1)
            log_t = (teacher / temperature + outside).log_softmax(dim=1)
            total = total + (log_t.exp() * (log_t - log_p)).sum() / student.shape[2]
        return self.config.weight * temperature**2 * total / inputs.step_counts().images

    def _maps(self, inputs: TermInputs) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Student and teacher ``(N, P, F)`` and valid cells ``(N, P)`` of each level."""
        if self.config.on == "features":
            for level in self.levels(inputs):
                yield level.student, level.teacher, level.valid
            return
        student, teacher, weight = inputs.class_maps()
        sizes = inputs.student.priors.level_sizes
        yield from zip(student.split(sizes, 1), teacher.split(sizes, 1), weight.split(sizes, 1), strict=True)


@dataclass(frozen=True)
class MaskedGenerationConfig(WholeConfig):
    """MGD (arXiv 2205.01529): the teacher's map is generated from a part of the student's cells.

    Attributes:
        masked: Share of the student's cells that are put to zero, drawn anew in every step.
    """

    kind: ClassVar[str] = "mgd"
    weight: float = 2e-5
    masked: float = 0.65

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.masked < 1:
            raise ConfigError(f"masked is {self.masked!r}; expected a share of at least 0 and below 1.")


@register_term
class MaskedGeneration(FeatureTerm[MaskedGenerationConfig]):
    """``weight * sum over levels, cells and channels of (G(masked s) - t)^2``, mean over images (MGD, eq. 3).

    G is 3x3 convolution, ReLU, 3x3 convolution, one per level, trained with the student. The draw of the cells is the
    only thing in which two splits of a batch differ.
    """

    config_class = MaskedGenerationConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """See `FeatureTerm.setup`; makes the generators."""
        remarks, width = super().setup(student, teacher), teacher.feature_channels
        self.generators = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
            for _ in student.strides
        )
        return remarks

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        total = inputs.student.box.new_zeros(())
        for level in self.levels(inputs):
            kept = torch.rand(level.valid.shape, device=level.valid.device) >= self.config.masked
            student = level.student * (level.valid * kept)[..., None]
            image = student.transpose(1, 2).unflatten(2, level.shape)
            generated = self.generators[level.index](image).flatten(2).transpose(1, 2)
            total = total + ((generated - level.teacher).square() * level.valid[..., None]).sum()
        return self.config.weight * total / inputs.step_counts().images
