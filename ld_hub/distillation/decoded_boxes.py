"""Terms on decoded boxes: they need no bins, so they run between any two heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ld_hub.distillation.correspondence import require_common_classes
from ld_hub.distillation.inputs import Pairs, TermInputs
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import SampleMeanConfig, Term, register_term
from ld_hub.errors import ConfigError
from ld_hub.ops.boxes import overlap
from ld_hub.structures import DetectorSpec


@dataclass(frozen=True)
class BoxIoUConfig(SampleMeanConfig):
    """IoU-based box distillation of BCKD (arXiv 2308.14286): a row counts as much as the two disagree on its class.

    Attributes:
        iou: ``"giou"`` as released, ``"iou"`` as the paper's name says, or ``"diou"``.
        weighting: What a row is weighted by: ``"gap"``, the largest difference of class scores; ``"region"``, its
            importance in the region (the student's best class score in most), which needs no common classes.
        beta: Exponent of that weight.
    """

    kind: ClassVar[str] = "box_iou"
    weight: float = 4.0
    region: str = "all"
    iou: Literal["giou", "iou", "diou"] = "giou"
    weighting: Literal["gap", "region"] = "gap"
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iou not in {"giou", "iou", "diou"}:
            raise ConfigError(f"iou is {self.iou!r}; expected 'giou', 'iou' or 'diou'.")
        if self.weighting not in {"gap", "region"}:
            raise ConfigError(f"weighting is {self.weighting!r}; expected 'gap' or 'region'.")
        if not 0 <= self.beta < float("inf"):
            raise ConfigError(f"beta is {self.beta!r}; expected a finite number of at least 0.")


@register_term
class BoxIoU(Term[BoxIoUConfig]):
    """``weight * sum over rows of [max_c |t_c - s_c|]^beta (1 - IoU(student, teacher)) / samples``; s, t are scores."""

    config_class = BoxIoUConfig
    any_grid = True

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Any two heads; weighting by class scores needs a common class."""
        if self.config.weighting == "gap":
            require_common_classes(student, teacher)
        return super().setup(student, teacher)

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        region = select(inputs, config)
        pairs = inputs.pairs(region.rows)
        weight = pairs.weight * (score_gap(pairs) if config.weighting == "gap" else region.importance).pow(config.beta)
        stride = inputs.student.priors.strides[pairs.rows.priors][:, None]
        student, teacher = pairs.boxes()
        distance = 1 - overlap(student / stride, teacher / stride, config.iou)
        return config.weight * (weight * distance).sum() / config.samples(inputs)


@torch.no_grad()
def score_gap(pairs: Pairs) -> Tensor:
    """Largest difference between the class scores of the two, ``(K,)`` without gradient."""
    mine, theirs = pairs.classes()
    return (mine.sigmoid() - theirs.sigmoid()).abs().amax(dim=1)
