"""BCKD: each class a binary problem, and the IoU of boxes (arXiv 2308.14286). Boxes need no bins: any two heads do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ld_hub.distillation import plain
from ld_hub.distillation.classes import ClassTerm, binary_divergence
from ld_hub.distillation.correspondence import require_common_classes
from ld_hub.distillation.inputs import Pairs, TermInputs
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.regions import select
from ld_hub.distillation.terms import SampleMeanConfig, Term, register_term
from ld_hub.errors import ConfigError
from ld_hub.ops.boxes import overlap
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DetectorSpec

PAPER = register_paper(
    Paper(
        "2308.14286",
        "yang2023bckd",
        "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection",
        "Yang, Longrong and Zhou, Xianpan and Li, Xuewei and Qiao, Liang and Li, Zheyang and Yang, Ziwei and "
        "Wang, Gaoang and Li, Xi",
        2023,
        "ICCV",
    )
)


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

    paper = PAPER
    learns = ("cls",)
    config_class = ClassBCEConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config = self.config
        pairs = inputs.pairs(select(inputs, config).rows)
        student, teacher = pairs.classes()
        per_row = binary_divergence(student, teacher, config.beta, config.detach_factor)
        return config.weight * (per_row * pairs.weight).sum() / config.samples(inputs)

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        config, total = self.config, 0.0
        for row in plain.rows(inputs, config):
            for logit, score, target in zip(row.student.cls, row.student.scores, row.teacher.scores, strict=True):
                total += abs(target - score) ** config.beta * plain.cross_entropy(logit, target)
        return config.weight * total / (plain.samples(inputs) + config.count_eps)


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

    paper = PAPER
    learns = ("box",)
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
        stride = inputs.assignment.priors.strides[pairs.rows.priors][:, None]
        student, teacher = pairs.boxes()
        distance = 1 - overlap(student / stride, teacher / stride, config.iou)
        return config.weight * (weight * distance).sum() / config.samples(inputs)

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        config, total = self.config, 0.0
        for row in plain.rows(inputs, config):
            gap = max(abs(t - s) for s, t in zip(row.student.scores, row.teacher.scores, strict=True))
            weight = gap if config.weighting == "gap" else row.importance
            mine, theirs = ([side / row.stride for side in p.corners] for p in (row.student, row.teacher))
            total += weight**config.beta * (1 - plain.overlap(mine, theirs, config.iou))
        return config.weight * total / (plain.samples(inputs) + config.count_eps)


@torch.no_grad()
def score_gap(pairs: Pairs) -> Tensor:
    """Largest difference between the class scores of the two, ``(K,)`` without gradient."""
    mine, theirs = pairs.classes()
    return (mine.sigmoid() - theirs.sigmoid()).abs().amax(dim=1)


register_recipe(
    Recipe(
        "bckd",
        {"bckd_cls": ClassBCEConfig(), "bckd_box": BoxIoUConfig()},
        "binary class distillation + IoU of boxes (BCKD, ICCV 2023)",
        paper=PAPER.address,
    )
)
register_recipe(Recipe("bckd_cls", {"bckd_cls": ClassBCEConfig()}, "BCKD's class term alone", paper=PAPER.address))
register_recipe(
    Recipe(
        "bckd_box", {"bckd_box": BoxIoUConfig()}, "BCKD's box term alone; for images of any size", paper=PAPER.address
    )
)
