"""PKD: maps are compared by Pearson's correlation of each channel (arXiv 2207.02039)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ld_hub.distillation import plain
from ld_hub.distillation.features import FeatureTerm, standardised
from ld_hub.distillation.inputs import MapInputs, TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import WholeConfig, register_term
from ld_hub.papers import Paper, register_paper

PAPER = register_paper(
    Paper(
        "2207.02039",
        "cao2022pkd",
        "{PKD}: General Distillation Framework for Object Detectors via {P}earson Correlation Coefficient",
        "Cao, Weihan and Zhang, Yifan and Gao, Jianfei and Cheng, Anda and Cheng, Ke and Cheng, Jian",
        2022,
        "NeurIPS",
    )
)


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

    paper = PAPER
    learns = ("features",)
    config_class = PearsonFeatureConfig

    def forward(self, inputs: MapInputs) -> Tensor:
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

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        total, images = 0.0, len(inputs.student.box)
        groups = dict[tuple[int, int], list[list[tuple[float, ...]]]]()  # channels of student and teacher
        for part in plain.maps(self, inputs):
            together = self.config.over == "batch"
            taken = range(len(part.student)) if together else part.inside
            group = groups.setdefault((part.level, 0 if together else part.image), [[], []])
            for side, cells in zip(group, (part.student, part.teacher), strict=True):
                side += [tuple(cells[p]) for p in taken]
        for student, teacher in groups.values():
            for s, t in zip(zip(*student, strict=True), zip(*teacher, strict=True), strict=True):
                a, b = ([(x - plain.mean(side)) / plain.deviation(side) for x in side] for side in (s, t))
                half = plain.mean([(x - y) ** 2 / 2 for x, y in zip(a, b, strict=True)])  # 1 - r
                total += half / len(student[0]) / (1 if self.config.over == "batch" else images)
        return self.config.weight * total


register_recipe(
    Recipe(
        "pkd",
        {"pkd": PearsonFeatureConfig()},
        "correlation of pyramid channels (PKD, NeurIPS 2022)",
        paper=PAPER.address,
    )
)
