"""Cosine distance of pyramid maps: only the direction of a cell's features counts, not their size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ld_hub.distillation import plain
from ld_hub.distillation.features import EPS, FeatureTerm
from ld_hub.distillation.inputs import MapInputs, TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import WholeConfig, register_term
from ld_hub.papers import Paper, register_paper

PAPER = register_paper(
    Paper(
        "2312.06709",
        "ranzinger2024amradio",
        "{AM-RADIO}: Agglomerative Vision Foundation Model -- Reduce All Domains Into One",
        "Ranzinger, Mike and Heinrich, Greg and Kautz, Jan and Molchanov, Pavlo",
        2024,
        "CVPR",
    )
)


@dataclass(frozen=True)
class CosineFeatureConfig(WholeConfig):
    """Cosine distance of the features of each cell.

    The weight was not tuned: ``balance="gradient"`` finds one.
    """

    kind: ClassVar[str] = "cosine"
    weight: float = 1.0


@register_term
class CosineFeature(FeatureTerm[CosineFeatureConfig]):
    """``weight * sum over levels of the mean over cells of 1 - cos(s, t)``, mean over images.

    Encoders of images differ by orders of magnitude in the size of their features, between models and between cells of
    one image, and this distance sees none of it. AM-RADIO (arXiv 2312.06709) matches spatial features by a sum of
    cosine distance and smooth L1; here the cosine stands alone. Where widths differ, the student's cells go through a
    1x1 adapter first (`FeatureTerm`).
    """

    paper = PAPER
    learns = ("features",)
    config_class = CosineFeatureConfig

    def forward(self, inputs: MapInputs) -> Tensor:
        """Scalar."""
        total = inputs.student.box.new_zeros(())
        for level in self.levels(inputs):
            student, teacher = (F.normalize(side, dim=2, eps=EPS) for side in (level.student, level.teacher))
            distance = (1 - (student * teacher).sum(dim=2)) * level.valid  # (N, P)
            total = total + (distance.sum(dim=1) / level.valid.sum(dim=1)).sum()
        return self.config.weight * total / inputs.step_counts().images

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        total = 0.0
        for part in plain.maps(self, inputs):
            cells = [(part.student[p], part.teacher[p]) for p in part.inside]
            total += plain.mean([1 - plain.cosine(mine, theirs) for mine, theirs in cells])
        return self.config.weight * total / len(inputs.student.box)


register_recipe(
    Recipe("cosine", {"cosine": CosineFeatureConfig()}, "direction of each cell's features", paper=PAPER.address)
)
