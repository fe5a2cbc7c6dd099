"""Distillation terms: one number per batch, weighted, for the student's gradient.

A term is configured by a frozen dataclass whose `kind` names the term, so that a recipe is plain data.
Published computations (`reference=`) are presets of the same fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.regions import REGIONS, Criterion, select
from ld_hub.errors import ConfigError
from ld_hub.ops.dist import mean_over_ranks
from ld_hub.registry import Registry
from ld_hub.structures import DetectorSpec, StepCounts

CONFIG = TypeVar("CONFIG", bound="TermConfig")


@dataclass(frozen=True)
class TermConfig:
    """What every term has.

    Attributes:
        weight: Factor of the term in the loss.
        region: Rows the term looks at: ``"main"`` positives, ``"vlr"`` valuable localization region,
            ``"vlr_background"`` the same without positives, ``"inside"`` a box but not positive, ``"all"``.
        gamma: VLR only: lower bound as a share of the adaptive threshold.
        criterion: VLR only: ``"iof"`` as released, ``"diou"`` as the paper writes.
        first_step: First optimizer step at which the term counts.
        last_step: Last such step; None means to the end.
    """

    kind: ClassVar[str] = ""
    weight: float = 1.0
    region: str = "main"
    gamma: float = 0.25
    criterion: Criterion = "iof"
    first_step: int = 0
    last_step: int | None = None

    def __post_init__(self) -> None:
        if not self.weight >= 0 or self.weight == float("inf"):
            raise ConfigError(f"weight is {self.weight!r}; expected a finite number of at least 0.")
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma is {self.gamma!r}; expected a number from 0 to 1.")
        if self.criterion not in {"iof", "diou"}:
            raise ConfigError(f"criterion is {self.criterion!r}; expected 'iof' or 'diou'.")
        REGIONS[self.region]

    def active(self, step: int) -> bool:
        """Whether the term counts at an optimizer step."""
        return self.first_step <= step and (self.last_step is None or step <= self.last_step)

    def published(self: CONFIG, reference: str) -> CONFIG:
        """The same term as a code base computes it (``"ld"`` or ``"bckd"``)."""
        return self


class Term(nn.Module, ABC, Generic[CONFIG]):
    """Base of all terms.

    Args:
        config: Its fields.
    """

    config_class: ClassVar[type[TermConfig]] = TermConfig

    def __init__(self, config: CONFIG) -> None:
        super().__init__()
        self.config = config

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Check that the two detectors can be compared; make adapters.

        Returns:
            Remarks for the user, e.g. that the term is void for these detectors.

        Raises:
            ConfigError: With the field, both values and the way out.
        """
        for field in ("strides", "anchors_per_cell"):
            mine, theirs = getattr(student, field), getattr(teacher, field)
            if mine != theirs:
                raise ConfigError(
                    f"The rows of student '{student.name}' and teacher '{teacher.name}' do not correspond: "
                    f"{field} {mine} against {theirs}. Choose a teacher of the student's family."
                )
        return []

    @abstractmethod
    def forward(self, inputs: TermInputs) -> Tensor:
        """The weighted loss of a batch, a scalar."""


TERMS: Registry[type[Term[TermConfig]]] = Registry("term")
_TERM = TypeVar("_TERM", bound="type[Term]")  # type: ignore[type-arg]


def register_term(term: _TERM) -> _TERM:
    """Class decorator: make a term available to recipes under its configuration's `kind`."""
    TERMS.register(term.config_class.kind, term)
    return term


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float, divisor: int | None) -> Tensor:
    """``T^2 KL(softmax(t / T) || softmax(s / T)) / divisor`` over the last dimension.

    Args:
        student: ``(..., M)`` logits.
        teacher: ``(..., M)`` logits.
        temperature: T.
        divisor: Constant; None divides by M, the mean that the published code takes (reference SPEC 1).
    """
    target = (teacher / temperature).softmax(dim=-1)
    log_p = (student / temperature).log_softmax(dim=-1)
    per_row = F.kl_div(log_p, target, reduction="none").sum(dim=-1)
    return per_row * (temperature**2 / (divisor or student.shape[-1]))


@dataclass(frozen=True)
class BoxBinsKLConfig(TermConfig):
    """Localization Distillation (arXiv 2102.12252, eq. 4): KL between the bin distributions of each box edge.

    Attributes:
        temperature: T.
        normalizer: ``"images"``: 2 / N x the sum over rows, N being the images of the whole optimizer step, so that
            the batch size does not matter (equal to the published loss at its 2 images per device); ``"none"``: the
            plain sum of this rank's batch, as published.
        kl_divisor: The KL is divided by this; 17 keeps the published strength for any reg_max, None divides by the
            number of bins.
        joint: One softmax over the bins of all four edges, as LD's RetinaNet head has it; edges are then no
            distributions of their own. Its KL takes the place of the sum over edges.
    """

    kind: ClassVar[str] = "box_bins_kl"
    weight: float = 0.25
    temperature: float = 10.0
    normalizer: Literal["images", "none"] = "images"
    kl_divisor: int | None = 17
    joint: bool = False

    def published(self, reference: str) -> BoxBinsKLConfig:
        """A plain sum over rows, a mean over bins."""
        return replace(self, normalizer="none", kl_divisor=None)


@register_term
class BoxBinsKL(Term[BoxBinsKLConfig]):
    """``weight / 4 * sum over rows and edges of importance * T^2 KL``. See `BoxBinsKLConfig`."""

    config_class = BoxBinsKLConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Both heads need bins, the same number of them."""
        remarks = super().setup(student, teacher)
        for spec in (student, teacher):
            if spec.reg_max is None:
                raise ConfigError(
                    f"Localization distillation compares bin distributions, and '{spec.name}' has none. "
                    f"Take its form with bins (boxes='bins', e.g. '{spec.family}_r50_bins'), or the recipe 'kd' "
                    "(classes only)."
                )
        if student.reg_max != teacher.reg_max:
            raise ConfigError(
                f"reg_max is {student.reg_max} in student '{student.name}' and {teacher.reg_max} in teacher "
                f"'{teacher.name}'. Build the student with reg_max={teacher.reg_max}."
            )
        if student.label_names != teacher.label_names:
            remarks.append("The teacher knows other classes than the student; box edges are distilled all the same.")
        return remarks

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        region = select(inputs, config.region, config.gamma, config.criterion)
        student, teacher = region.rows.gather(inputs.student.box), region.rows.gather(inputs.teacher.box)
        if config.joint:
            student, teacher = student.flatten(1).unsqueeze(1), teacher.flatten(1).unsqueeze(1)  # (K, 1, 4(R+1))
        kl = kl_divergence(student, teacher, config.temperature, config.kl_divisor)  # (K, 4), or (K, 1)
        total = config.weight / 4 * (region.importance[:, None] * kl).sum()
        return total if config.normalizer == "none" else total * (2 / inputs.step_counts().images)


@dataclass(frozen=True)
class ClassKLConfig(TermConfig):
    """Classification distillation (Hinton et al., arXiv 1503.02531) on the class logits of a region.

    The mean over the rows of each pyramid level is taken and the levels' means are added, as published.

    Attributes:
        temperature: T.
        counts: Rows that a mean is over: ``"step"``, of all ranks and accumulated micro-batches (in regions other
            than ``"main"``, of all ranks in the micro-step); ``"local"``, of this rank's batch, as published.
        kl_divisor: The KL is divided by this. The published code takes the mean over classes, which makes the term
            stronger the fewer classes there are; 80 keeps its strength on COCO for any number. None: number of classes.
    """

    kind: ClassVar[str] = "class_kl"
    weight: float = 10.0
    temperature: float = 2.0
    counts: Literal["step", "local"] = "step"
    kl_divisor: int | None = 80

    def published(self, reference: str) -> ClassKLConfig:
        """Means over this rank's rows and over classes."""
        return replace(self, counts="local", kl_divisor=None)


@register_term
class ClassKL(Term[ClassKLConfig]):
    """``weight * sum over levels of the mean over rows of T^2 KL``. See `ClassKLConfig`."""

    config_class = ClassKLConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Both must have the same classes in the same order."""
        remarks = super().setup(student, teacher)
        if student.num_classes != teacher.num_classes:
            raise ConfigError(
                f"num_classes is {student.num_classes} in student '{student.name}' and {teacher.num_classes} in "
                f"teacher '{teacher.name}'. Use a teacher trained on the student's classes, or a recipe without "
                "a class term ('ld')."
            )
        if student.label_names != teacher.label_names:
            pairs = zip(student.label_names, teacher.label_names, strict=True)
            mine, theirs = next((a, b) for a, b in pairs if a != b)
            raise ConfigError(
                f"The classes of student and teacher differ: '{mine}' in '{student.name}' stands where teacher "
                f"'{teacher.name}' has '{theirs}'. Give both the same label_names in the same order."
            )
        if student.num_classes == 1:
            remarks.append("The class term is void: a softmax over one class is always 1. Drop it or use 'ld'.")
        return remarks

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        rows = select(inputs, config.region, config.gamma, config.criterion).rows
        student, teacher = rows.gather(inputs.student.cls_logits), rows.gather(inputs.teacher.cls_logits)
        kl = kl_divergence(student, teacher, config.temperature, config.kl_divisor)  # (K,)
        levels = inputs.student.priors.levels[rows.priors]
        if config.region == "main" and config.counts == "step":
            per_level = inputs.step_counts().positives
        elif config.region == "main":
            per_level = StepCounts.local(inputs.assignment).positives
        else:
            per_level = kl.new_zeros(len(inputs.student.priors.level_shapes))
            per_level = per_level.scatter_add(0, levels, rows.weight.to(kl.dtype))
            per_level = mean_over_ranks(per_level) if config.counts == "step" else per_level
        share = rows.weight / per_level.clamp(min=torch.finfo(kl.dtype).tiny ** 0.5)[levels]
        return config.weight * (kl * share).sum()
