"""DIST: Knowledge Distillation from a Stronger Teacher (arXiv 2205.10536), on the class scores of a dense detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ld_hub.distillation import plain
from ld_hub.distillation.classes import ClassTerm
from ld_hub.distillation.correspondence import common_classes
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import PredictionConfig, WholeConfig, register_term
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DetectorSpec

PAPER = register_paper(
    Paper(
        "2205.10536",
        "huang2022dist",
        "Knowledge Distillation from A Stronger Teacher",
        "Huang, Tao and You, Shan and Wang, Fei and Qian, Chen and Xu, Chang",
        2022,
        "NeurIPS",
    )
)
EPS = 1e-8


@dataclass(frozen=True)
class CorrelationConfig(WholeConfig, PredictionConfig):
    """Weights of DIST's two relations; `weight` multiplies both.

    Attributes:
        inter: Between the classes of a location.
        intra: Between the locations of a class, image by image, so that a batch may be split.
    """

    kind: ClassVar[str] = "dist"
    inter: float = 1.0
    intra: float = 1.0


@register_term
class Correlation(ClassTerm[CorrelationConfig]):
    """``1 - Pearson's r`` of the class scores over classes and over locations, means of both (DIST, eq. 8-10)."""

    paper = PAPER
    learns = ("cls",)
    config_class = CorrelationConfig

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Both need classes in common."""
        remarks = super().setup(student, teacher)
        if len(common_classes(student, teacher)) == 1:
            remarks.append("With one class there is no relation between classes: only the one between locations acts.")
        return remarks

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        student, teacher, weight = inputs.class_maps()
        student, teacher = student.sigmoid(), teacher.sigmoid()
        over_classes = pearson_distance(student, teacher, torch.ones_like(student), dim=2) * weight  # (N, A)
        inter = (over_classes.sum(dim=1) / weight.sum(dim=1).clamp(min=1)).sum()
        over_locations = pearson_distance(student, teacher, weight[..., None].expand_as(student), dim=1)  # (N, M)
        intra = over_locations.mean(dim=1).sum()
        return config.weight * (config.inter * inter + config.intra * intra) / inputs.step_counts().images

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        config, total = self.config, 0.0
        sides = plain.predictions(inputs.student), plain.predictions(inputs.teacher)
        for student, teacher, valid in zip(*sides, inputs.assignment.valid.tolist(), strict=True):
            s, t = (
                [row.scores for row, inside in zip(side, valid, strict=True) if inside] for side in (student, teacher)
            )
            by_class = list(zip(zip(*s, strict=True), zip(*t, strict=True), strict=True))
            inter = [plain.correlation(a, b) for a, b in zip(s, t, strict=True)]
            intra = [plain.correlation(a, b) for a, b in by_class]
            for weight, found in ((config.inter, inter), (config.intra, intra)):
                total += weight * plain.mean([0.0 if r is None else 1 - r for r in found])
        return config.weight * total / len(inputs.student.box)


def pearson_distance(student: Tensor, teacher: Tensor, weight: Tensor, dim: int) -> Tensor:
    """``1 - r`` along a dimension, over the entries of weight 1; where a side is constant, 0.

    Args:
        student: Values with gradient.
        teacher: Values of the same shape.
        weight: 1.0 or 0.0, of the same shape.
        dim: Dimension that r is taken over.
    """
    count = weight.sum(dim=dim, keepdim=True).clamp(min=1)

    def centred(values: Tensor) -> Tensor:
        return (values - (values * weight).sum(dim=dim, keepdim=True) / count) * weight

    a, b = centred(student), centred(teacher)
    power = a.square().sum(dim=dim) * b.square().sum(dim=dim)
    varies = power > EPS**4
    r = (a * b).sum(dim=dim) / torch.where(varies, power, 1).sqrt()
    return torch.where(varies, 1 - r, r.new_zeros(()))


register_recipe(
    Recipe(
        "dist", {"dist": CorrelationConfig()}, "correlation of class scores (DIST, NeurIPS 2022)", paper=PAPER.address
    )
)
