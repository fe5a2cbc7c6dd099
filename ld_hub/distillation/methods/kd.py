"""KD: the class scores of the positives, softened (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ld_hub.checked import Scalar
from ld_hub.distillation import plain
from ld_hub.distillation.classes import ClassTerm
from ld_hub.distillation.correspondence import common_classes
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import PredictionConfig, kl_divergence, register_term
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DetectorSpec, Rows

PAPER = register_paper(
    Paper(
        "1503.02531",
        "hinton2015distilling",
        "Distilling the Knowledge in a Neural Network",
        "Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff",
        2015,
    )
)
RETINANET: dict[str, dict[str, Scalar]] = {"kd": {"temperature": 8.0}}  # LD's configuration of it (reference SPEC 8)


@dataclass(frozen=True)
class ClassKLConfig(PredictionConfig):
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

    def published(self, reference: str, family: str) -> ClassKLConfig:
        """Means over this rank's rows and over classes."""
        return replace(self, counts="local", kl_divisor=None)


@register_term
class ClassKL(ClassTerm[ClassKLConfig]):
    """``weight * sum over levels of the mean over rows of T^2 KL``. See `ClassKLConfig`."""

    paper = PAPER
    learns = ("cls",)
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

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        config, groups = self.config, dict[tuple[int, int], list[float]]()
        together = config.counts == "local" or config.region == "main"
        for row in plain.rows(inputs, config):
            kl = plain.kl(row.student.cls, row.teacher.cls, config.temperature)
            image = 0 if together else row.image
            groups.setdefault((row.level, image), []).append(kl / (config.kl_divisor or len(row.student.cls)))
        images = 1 if together else len(inputs.student.box)
        return config.weight * sum(plain.mean(group) for group in groups.values()) / images

    def _counts(self, inputs: TermInputs, rows: Rows) -> Tensor:
        """``(K,)`` what each row is divided by."""
        counts, priors = self.config.counts, inputs.assignment.priors
        levels, group = len(priors.level_shapes), priors.levels[rows.priors]
        if counts == "step" and self.config.region == "main":
            return inputs.step_counts().positives[group]
        if counts == "step":
            group = group + levels * (rows.index // rows.per_image)
        sizes = inputs.student.cls_logits.new_zeros(levels * len(inputs.student.cls_logits))
        size = sizes.scatter_add(0, group, rows.weight.to(sizes.dtype))[group]
        return size * inputs.step_counts().images if counts == "step" else size


register_recipe(
    Recipe(
        "kd",
        {"kd": ClassKLConfig()},
        "class KL on the positives",
        paper=PAPER.address,
        families={"retinanet": RETINANET},
    )
)
