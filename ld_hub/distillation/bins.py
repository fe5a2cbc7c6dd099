"""Terms on the bin distributions of box edges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import Term, TermConfig, kl_divergence, register_term
from ld_hub.errors import ConfigError
from ld_hub.ops.distribution import rebin
from ld_hub.structures import DetectorSpec


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
        rebin: Move a teacher's distributions to the student's bins where their numbers differ
            (`ld_hub.ops.distribution.rebin`); otherwise that is an error.
    """

    kind: ClassVar[str] = "box_bins_kl"
    weight: float = 0.25
    temperature: float = 10.0
    normalizer: Literal["images", "none"] = "images"
    kl_divisor: int | None = 17
    joint: bool = False
    rebin: bool = False

    def published(self, reference: str) -> BoxBinsKLConfig:
        """A plain sum over rows, a mean over bins."""
        return replace(self, normalizer="none", kl_divisor=None)


@register_term
class BoxBinsKL(Term[BoxBinsKLConfig]):
    """``weight / 4 * sum over rows and edges of importance * T^2 KL``. See `BoxBinsKLConfig`.

    Distances count from the student's centres: where a teacher's are elsewhere (FCOS against anchors), its
    distributions are moved.
    """

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
        if student.reg_max != teacher.reg_max and not self.config.rebin:
            raise ConfigError(
                f"reg_max is {student.reg_max} in student '{student.name}' and {teacher.reg_max} in teacher "
                f"'{teacher.name}'. Build the student with reg_max={teacher.reg_max}, or let the term move the "
                "teacher's distributions to the student's bins (rebin=True)."
            )
        return remarks

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        region = select(inputs, config)
        pairs = inputs.pairs(region.rows)
        student, teacher = pairs.outputs()
        shift = pairs.edge_shifts()
        if shift is not None or student.shape[-1] != teacher.shape[-1]:
            teacher = config.temperature * rebin(teacher / config.temperature, student.shape[-1], shift)
        if config.joint:
            student, teacher = student.flatten(1).unsqueeze(1), teacher.flatten(1).unsqueeze(1)  # (K, 1, 4(R+1))
        kl = kl_divergence(student, teacher, config.temperature, config.kl_divisor)  # (K, 4), or (K, 1)
        total = config.weight / 4 * ((region.importance * pairs.weight)[:, None] * kl).sum()
        return total if config.normalizer == "none" else total * (2 / inputs.step_counts().images)
