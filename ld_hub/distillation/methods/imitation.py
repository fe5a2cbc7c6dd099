"""Imitation of feature maps in a region: FitNets and its followers, and the LD paper's method with it.

Shapes: N images, P cells of a level (row-major), F channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from ld_hub.distillation import plain
from ld_hub.distillation.features import FeatureTerm
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.methods import ld
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import Term, TermConfig, register_term
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DetectorSpec, EncoderSpec, Priors, Rows

FITNETS = register_paper(
    Paper(
        "1412.6550",
        "romero2015fitnets",
        "{FitNets}: Hints for Thin Deep Nets",
        "Romero, Adriana and Ballas, Nicolas and Kahou, Samira Ebrahimi and Chassang, Antoine and Gatta, Carlo and "
        "Bengio, Yoshua",
        2015,
        "International Conference on Learning Representations",
    )
)
FINE_GRAINED = register_paper(
    Paper(
        "1906.03609",
        "wang2019finegrained",
        "Distilling Object Detectors with Fine-grained Feature Imitation",
        "Wang, Tao and Yuan, Li and Zhang, Xiaopeng and Feng, Jiashi",
        2019,
        "CVPR",
    )
)
DEFEAT = register_paper(
    Paper(
        "2103.14475",
        "guo2021defeat",
        "Distilling Object Detectors via Decoupled Features",
        "Guo, Jianyuan and Han, Kai and Wang, Yunhe and Wu, Han and Chen, Xinghao and Xu, Chunjing and Xu, Chang",
        2021,
        "CVPR",
    )
)


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

    def published(self, reference: str, family: str) -> FeatureMSEConfig:
        """Means over this rank's cells; levels without positives are left out (reference SPEC 4)."""
        region = "gi_batch" if self.region == "gi" else self.region
        return replace(self, mean="batch", levels="with_positives", region=region)


@register_term
class FeatureMSE(FeatureTerm[FeatureMSEConfig]):
    """``weight * sum over levels of the mean over cells and channels of (s - t)^2``. See `FeatureMSEConfig`."""

    paper = FITNETS
    learns = ("features",)
    config_class = FeatureMSEConfig

    def setup_encoder(self, student: DetectorSpec, encoder: EncoderSpec) -> list[str]:
        """Refused: regions are of rows, and a mean square of maps that no one has brought to a scale says nothing."""
        return Term.setup_encoder(self, student, encoder)

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

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        config, per_cell = self.config, inputs.student.priors.anchors_per_cell
        starts = [sum(inputs.student.priors.level_sizes[:level]) for level in range(len(inputs.common_levels()))]
        chosen = {(r.level, r.image, (r.index - starts[r.level]) // per_cell) for r in plain.rows(inputs, config)}
        groups = dict[tuple[int, int], list[float]]()
        for part in plain.maps(self, inputs):
            group = groups.setdefault((part.level, 0 if config.mean == "batch" else part.image), [])
            for p, (student, teacher) in enumerate(zip(part.student, part.teacher, strict=True)):
                if (part.level, part.image, p) in chosen:
                    group.append(plain.mean([(s - t) ** 2 for s, t in zip(student, teacher, strict=True)]))
        images = 1 if config.mean == "batch" else len(inputs.student.box)
        return config.weight * sum(plain.mean(group) for group in groups.values()) / images


# Rows of the LD paper's table of feature imitation
register_recipe(
    Recipe(
        "fitnets",
        {"feature": FeatureMSEConfig()},
        "imitation of the pyramid, every cell (FitNets)",
        paper=FITNETS.address,
    )
)
register_recipe(
    Recipe(
        "inside_gt",
        {"feature": FeatureMSEConfig(region="inside_gt")},
        "imitation inside the boxes",
        paper=ld.PAPER.address,
    )
)
register_recipe(
    Recipe(
        "main_region",
        {"feature": FeatureMSEConfig(region="main")},
        "imitation on the positives",
        paper=ld.PAPER.address,
    )
)
register_recipe(
    Recipe(
        "fine_grained",
        {"feature": FeatureMSEConfig(region="fine_grained")},
        "imitation near objects (CVPR 2019)",
        paper=FINE_GRAINED.address,
    )
)
register_recipe(
    Recipe(
        "defeat",
        {
            "foreground": FeatureMSEConfig(region="inside_gt"),
            "background": FeatureMSEConfig(region="outside_gt", weight=4.0),
        },
        "imitation, foreground and background apart (DeFeat, CVPR 2021)",
        paper=DEFEAT.address,
    )
)
register_recipe(
    Recipe(
        "vlr_fine_grained",
        {**ld.MAIN, "feature": FeatureMSEConfig(region="fine_grained")},
        "vlr and imitation near objects (LD's R-50 settings)",
        paper=ld.PAPER.address,
        families=ld.FAMILIES,
    )
)
