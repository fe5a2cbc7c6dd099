"""CrossKD (arXiv 2306.11369): the student's features through the teacher's frozen head.

The head's output for the student's features has to be the teacher's own, so that the task's and the teacher's demands
never meet on one output. Shapes: N images, B rows of the teacher, P cells of a level, F channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ld_hub.checked import Scalar
from ld_hub.distillation import plain
from ld_hub.distillation.classes import binary_divergence
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.methods import pkd
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import Over, Term, TermConfig, WholeConfig, kl_divergence, register_term
from ld_hub.ops.boxes import overlap
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DenseOutput, Rows

PAPER = register_paper(
    Paper(
        "2306.11369",
        "wang2024crosskd",
        "{CrossKD}: Cross-Head Knowledge Distillation for Object Detection",
        "Wang, Jiabao and Chen, Yuming and Zheng, Zhaohui and Li, Xiang and Cheng, Ming-Ming and Hou, Qibin",
        2024,
        "CVPR",
    )
)
# What the published configurations set differently from GFocal's
FAMILIES: dict[str, dict[str, dict[str, Scalar]]] = {
    "atss": {"cross_box": {"quality_weight": 1.0}, "cross_pkd": {"weight": 1.0}},
    "fcos": {
        "cross_cls": {"weight": 0.4},
        "cross_box": {"weight": 0.75, "iou": "iou"},
        "cross_pkd": {"weight": 2.0},
    },
    "retinanet": {"cross_pkd": {"weight": 2.0}},
}


@dataclass(frozen=True)
class CrossConfig(WholeConfig):
    """What both terms have.

    Attributes:
        over: What the statistics of the student's maps are taken over, and sums are divided by: ``"image"``, each
            image on its own, so that a batch may be split; ``"batch"``, this rank's batch, as published.
    """

    over: Over = "image"

    @property
    def crossing(self) -> Over | None:
        """See `TermConfig.crossing`."""
        return self.over


@dataclass(frozen=True)
class CrossClassConfig(CrossConfig):
    """The class term of CrossKD: quality focal loss against the teacher's scores, over all rows."""

    kind: ClassVar[str] = "cross_class"


@register_term
class CrossClass(Term[CrossClassConfig]):
    """``weight * sum over rows and classes of |p - t| BCE(p, t) / positives``, p crossed and t teacher's scores."""

    paper = PAPER
    learns = ("towers",)
    config_class = CrossClassConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        valid = inputs.teacher.priors.valid(inputs.targets.image_sizes).flatten()
        student, teacher = (output.cls_logits.flatten(0, 1) for output in (inputs.student, inputs.teacher))
        per_row = binary_divergence(student, teacher)
        positives = inputs.step_counts().positives.sum().clamp(min=1)
        return self.config.weight * (per_row * valid).sum() / positives

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        total = 0.0
        sides = plain.predictions(inputs.student), plain.predictions(inputs.teacher), plain.teacher_valid(inputs)
        for image in zip(*sides, strict=True):
            for mine, theirs, valid in zip(*image, strict=True):
                for logit, p, t in zip(mine.cls, mine.scores, theirs.scores, strict=True):
                    total += abs(p - t) * plain.cross_entropy(logit, t) * valid
        positives = sum(sum(image) for image in inputs.assignment.positive.tolist())
        return self.config.weight * total / max(positives, 1)


@dataclass(frozen=True)
class CrossBoxConfig(CrossConfig):
    """The box term of CrossKD: KL between bins, or an IoU loss between boxes where the teacher's head has no bins.

    Attributes:
        iou: Without bins: ``"giou"``, or ``"iou"`` (FCOS).
        quality_weight: Weight of the BCE between centerness scores, where the teacher's head has them (ATSS).
    """

    kind: ClassVar[str] = "cross_box"
    iou: Literal["giou", "iou"] = "giou"
    quality_weight: float = 0.0


@register_term
class CrossBox(Term[CrossBoxConfig]):
    """``weight * sum over rows of w d(p, t) / sum of w``, w the teacher's best class score; d is KL or 1 - IoU."""

    paper = PAPER
    learns = ("towers",)
    config_class = CrossBoxConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config, output, teacher = self.config, inputs.student, inputs.teacher
        valid = teacher.priors.valid(inputs.targets.image_sizes)
        weight = teacher.cls_logits.amax(dim=2).sigmoid() * valid  # (N, B)
        total = _mean(self._distance(output, teacher), weight, config.over, inputs)
        if config.quality_weight and output.quality is not None and teacher.quality is not None:
            target = teacher.quality.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(output.quality, target, reduction="none")
            total = total + config.quality_weight * _mean(entropy, weight, config.over, inputs)
        return config.weight * total

    def _distance(self, output: DenseOutput, teacher: DenseOutput) -> Tensor:
        """``(N, B)``."""
        if teacher.coder.reg_max is not None:
            return kl_divergence(output.box, teacher.box, temperature=1.0, divisor=1).sum(dim=2)
        rows = Rows.every(torch.ones_like(output.box[..., 0], dtype=torch.bool))
        boxes = [o.coder.decode_rows(rows.gather(o.box), o.priors, rows.priors) for o in (output, teacher)]
        stride = output.priors.strides[rows.priors][:, None]
        distance = 1 - overlap(boxes[0] / stride, boxes[1] / stride, self.config.iou)
        return distance.view(output.box.shape[:2])

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        output, teacher = inputs.student, inputs.teacher
        strides, sums = teacher.priors.strides.tolist(), list[tuple[float, float]]()
        sides = plain.predictions(output), plain.predictions(teacher), plain.teacher_valid(inputs)
        for n, image in enumerate(zip(*sides, strict=True)):
            distance = weight = 0.0
            for a, (mine, theirs, valid) in enumerate(zip(*image, strict=True)):
                share = max(theirs.scores) * valid
                gap = self._plain_distance(mine, theirs, strides[a])
                if self.config.quality_weight and output.quality is not None and teacher.quality is not None:
                    logit, target = output.quality[n, a].item(), teacher.quality[n, a].item()
                    gap += self.config.quality_weight * plain.cross_entropy(logit, plain.sigmoid(target))
                distance, weight = distance + share * gap, weight + share
            sums.append((distance, weight))
        if self.config.over == "batch":
            sums = [(sum(distance for distance, _ in sums), sum(weight for _, weight in sums))]
        return self.config.weight * plain.mean([distance / weight for distance, weight in sums])

    def _plain_distance(self, mine: plain.Prediction, theirs: plain.Prediction, stride: float) -> float:
        if isinstance(mine.box[0], list):  # bins
            return sum(plain.kl(m, t) for m, t in zip(mine.box, theirs.box, strict=True))
        a, b = ([side / stride for side in prediction.corners] for prediction in (mine, theirs))
        return 1 - plain.overlap(a, b, self.config.iou)


def _mean(values: Tensor, weight: Tensor, over: str, inputs: TermInputs) -> Tensor:
    """Weighted mean ``(N, B)`` over rows: of each image, then over the images of the step; or of the batch."""
    tiny = torch.finfo(values.dtype).tiny ** 0.5
    if over == "batch":
        return (values * weight).sum() / weight.sum().clamp(min=tiny)
    per_image = (values * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=tiny)
    return per_image.sum() / inputs.step_counts().images


TERMS: dict[str, TermConfig] = {"cross_cls": CrossClassConfig(), "cross_box": CrossBoxConfig()}
register_recipe(
    Recipe(
        "crosskd",
        TERMS,
        "student's features through the teacher's head (CVPR 2024)",
        paper=PAPER.address,
        families=FAMILIES,
    )
)
register_recipe(
    Recipe(
        "crosskd_pkd",
        {**TERMS, "cross_pkd": pkd.PearsonFeatureConfig()},
        "CrossKD and PKD together",
        paper=PAPER.address,
        families=FAMILIES,
    )
)
