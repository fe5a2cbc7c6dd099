"""Terms on class logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.matching import common_classes
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import CONFIG, SampleMeanConfig, Term, TermConfig, kl_divergence, register_term
from ld_hub.errors import ConfigError
from ld_hub.ops.dist import mean_over_ranks
from ld_hub.structures import DetectorSpec, StepCounts


def require_common_classes(student: DetectorSpec, teacher: DetectorSpec) -> None:
    """Refuse a pair that has no class in common.

    Raises:
        ConfigError: With classes of both and the way out.
    """
    if not common_classes(student, teacher):
        mine, theirs = (", ".join(s.label_names[:5]) for s in (student, teacher))
        raise ConfigError(
            f"Student '{student.name}' ({student.num_classes} classes: {mine} ...) and teacher '{teacher.name}' "
            f"({teacher.num_classes}: {theirs} ...) have no class name in common. Give both the same label_names, say "
            "which is which (class_map), or compare boxes alone: a recipe of box terms ('ld'), or the term 'box_iou' "
            "with weighting='region'."
        )


class ClassTerm(Term[CONFIG]):
    """Base of terms that compare class scores."""

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """At least one class must have the same name in both."""
        remarks = super().setup(student, teacher)
        require_common_classes(student, teacher)
        return remarks


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
class ClassKL(ClassTerm[ClassKLConfig]):
    """``weight * sum over levels of the mean over rows of T^2 KL``. See `ClassKLConfig`."""

    config_class = ClassKLConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """A softmax needs at least two classes to say anything."""
        remarks = super().setup(student, teacher)
        if len(common_classes(student, teacher)) == 1:
            remarks.append("The class term is void: a softmax over one class is always 1. Use 'bckd', or drop it.")
        return remarks

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        rows = select(inputs, config).rows
        pairs = inputs.pairs(rows)
        student, teacher = pairs.classes()
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
        share = pairs.weight / per_level.clamp(min=torch.finfo(kl.dtype).tiny ** 0.5)[levels]
        return config.weight * (kl * share).sum()


@dataclass(frozen=True)
class ClassBCEConfig(SampleMeanConfig):
    """Binary classification distillation (BCKD, arXiv 2308.14286): each class of a row is a problem of its own.

    Attributes:
        beta: Exponent of the difference of scores, by which an entry is weighted.
        detach_factor: Whether that weight is a constant to the gradient. As released it is not, so that its gradient
            adds to that of the cross-entropy.
    """

    kind: ClassVar[str] = "class_bce"
    weight: float = 1.0
    region: str = "all"
    beta: float = 1.0
    detach_factor: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta < float("inf") or (0 < self.beta < 1 and not self.detach_factor):
            raise ConfigError(
                f"beta is {self.beta!r}; expected 0 or a number of at least 1 (between them the factor's slope is "
                "infinite where the scores agree; with detach_factor any number of at least 0 will do)."
            )


@register_term
class ClassBCE(ClassTerm[ClassBCEConfig]):
    """``weight * sum over rows and classes of |t - s|^beta BCE(s, t) / samples``, s and t being scores."""

    config_class = ClassBCEConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        pairs = inputs.pairs(select(inputs, config).rows)
        student, teacher = pairs.classes()
        per_row = binary_divergence(student, teacher, config.beta, config.detach_factor)
        return config.weight * (per_row * pairs.weight).sum() / config.samples(inputs)


def binary_divergence(student: Tensor, teacher: Tensor, beta: float = 1.0, detach_factor: bool = False) -> Tensor:
    """``sum over c of |t_c - s_c|^beta BCE(s_c, t_c)`` of scores, which is 0 where all scores agree (BCKD).

    Args:
        student: ``(K, C)`` logits.
        teacher: ``(K, C)`` logits.
        beta: Exponent.
        detach_factor: See `ClassBCEConfig`.

    Returns:
        ``(K,)``.
    """
    target = teacher.sigmoid()
    gap = (student.detach() if detach_factor else student).sigmoid().sub(target).abs()
    entropy = F.binary_cross_entropy_with_logits(student, target, reduction="none")
    return (entropy * (gap if beta == 1 else gap.pow(beta))).sum(dim=1)
