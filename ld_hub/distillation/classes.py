"""Terms on class logits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ld_hub.distillation.correspondence import common_classes, require_common_classes
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import CONFIG, SampleMeanConfig, Term, TermConfig, kl_divergence, register_term
from ld_hub.errors import ConfigError
from ld_hub.structures import DetectorSpec, Rows


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
        counts: Rows that a mean is over: ``"step"``, positives of all ranks and accumulated micro-batches, or, in
            regions other than ``"main"``, of each image (then the mean over images is taken), so that a batch may be
            split; ``"local"``, of this rank's batch, as published.
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
        share = pairs.weight / self._counts(inputs, rows).clamp(min=torch.finfo(kl.dtype).tiny ** 0.5)
        return config.weight * (kl * share).sum()

    def _counts(self, inputs: TermInputs, rows: Rows) -> Tensor:
        """``(K,)`` what each row is divided by."""
        counts, priors = self.config.counts, inputs.student.priors
        levels, group = len(priors.level_shapes), priors.levels[rows.priors]
        if counts == "step" and self.config.region == "main":
            return inputs.step_counts().positives[group]
        if counts == "step":
            group = group + levels * (rows.index // rows.per_image)
        sizes = inputs.student.cls_logits.new_zeros(levels * len(inputs.student.cls_logits))
        size = sizes.scatter_add(0, group, rows.weight.to(sizes.dtype))[group]
        return size * inputs.step_counts().images if counts == "step" else size


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
