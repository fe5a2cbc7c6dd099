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
from ld_hub.distillation.features import moments, rows_of
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.methods import pkd
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import CONFIG, Term, TermConfig, WholeConfig, kl_divergence, register_term
from ld_hub.errors import ConfigError
from ld_hub.ops.boxes import overlap
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import DenseOutput, DetectorSpec, Rows

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

    over: Literal["image", "batch"] = "image"


class CrossTerm(Term[CONFIG]):
    """Base of terms on the crossed output."""

    needs: ClassVar[frozenset[str]] = frozenset({"towers"})

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """The student's tower maps have to fit into the teacher's head."""
        remarks = super().setup(student, teacher)
        for field in ("strides", "tower_channels"):
            mine, theirs = getattr(student, field), getattr(teacher, field)
            if mine != theirs:
                way = "teacher_scale=1"
                if field == "tower_channels":  # without a convolution before the tap, its map is the pyramid's
                    way = f"build the student with head_width={theirs} (fpn_channels where its towers are short)"
                raise ConfigError(
                    f"{field} is {mine} in student '{student.name}' and {theirs} in teacher '{teacher.name}': the "
                    f"student's maps do not fit into the teacher's head. Way out: {way}."
                )
        return remarks


def crossed(inputs: TermInputs, over: str) -> DenseOutput:
    """The teacher's head on the student's tower maps; made once per step for both terms."""
    key = ("crossed", over)
    if key not in inputs.shared:
        mine, theirs = inputs.student.towers, inputs.teacher.towers
        if mine is None or theirs is None or inputs.teacher_head is None:
            raise AssertionError("CrossKD needs the tower maps of both, and the teacher's head")
        valid = inputs.teacher.priors.valid(inputs.targets.image_sizes)[:, :: inputs.teacher.priors.anchors_per_cell]
        sizes = [cls_map.shape[-2] * cls_map.shape[-1] for cls_map, _ in theirs]
        levels = zip(mine, theirs, valid.split(sizes, dim=1), strict=True)
        towers = [
            (restandardised(cls, cls_target, cells, over), restandardised(box, box_target, cells, over))
            for (cls, box), (cls_target, box_target), cells in levels
        ]
        inputs.shared[key] = inputs.teacher_head(tuple(towers))
    return inputs.shared[key]


def restandardised(student: Tensor, teacher: Tensor, valid: Tensor, over: str) -> Tensor:
    """The student's map with the teacher's mean and standard deviation of each channel (CrossKD, appendix).

    Args:
        student: ``(N, F, H, W)``.
        teacher: ``(N, F, H, W)``.
        valid: ``(N, P)`` bool, cells on the images.
        over: ``"image"``: over an image's valid cells; ``"batch"``: over all cells of the batch.
    """
    rows, target = rows_of(student), rows_of(teacher)  # in float32: sums of half-precision maps would be too coarse
    cells = valid.to(rows.dtype)
    if over == "batch":
        mine, theirs = rows.flatten(0, 1)[None], target.flatten(0, 1)[None]
        cells = torch.ones_like(mine[..., 0])
    else:
        mine, theirs = rows, target
    (mean, deviation), (new_mean, new_deviation) = moments(mine, cells), moments(theirs, cells)
    moved = (rows - mean) / deviation * new_deviation + new_mean
    return moved.transpose(1, 2).reshape(student.shape).to(student.dtype)


@dataclass(frozen=True)
class CrossClassConfig(CrossConfig):
    """The class term of CrossKD: quality focal loss against the teacher's scores, over all rows."""

    kind: ClassVar[str] = "cross_class"


@register_term
class CrossClass(CrossTerm[CrossClassConfig]):
    """``weight * sum over rows and classes of |p - t| BCE(p, t) / positives``, p crossed and t teacher's scores."""

    paper = PAPER
    learns = ("towers",)
    config_class = CrossClassConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        valid = inputs.teacher.priors.valid(inputs.targets.image_sizes).flatten()
        logits = crossed(inputs, self.config.over).cls_logits.flatten(0, 1)
        per_row = binary_divergence(logits, inputs.teacher.cls_logits.flatten(0, 1))
        positives = inputs.step_counts().positives.sum().clamp(min=1)
        return self.config.weight * (per_row * valid).sum() / positives

    def loops(self, inputs: TermInputs) -> float:
        """See `Term.loops`."""
        total = 0.0
        output, teacher = _plain_crossed(inputs, self.config.over), inputs.teacher
        sides = plain.predictions(output), plain.predictions(teacher), _plain_valid(inputs)
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
class CrossBox(CrossTerm[CrossBoxConfig]):
    """``weight * sum over rows of w d(p, t) / sum of w``, w the teacher's best class score; d is KL or 1 - IoU."""

    paper = PAPER
    learns = ("towers",)
    config_class = CrossBoxConfig

    def forward(self, inputs: TermInputs) -> Tensor:
        """Scalar."""
        config, teacher = self.config, inputs.teacher
        output = crossed(inputs, config.over)
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
        output, teacher = _plain_crossed(inputs, self.config.over), inputs.teacher
        strides, sums = teacher.priors.strides.tolist(), list[tuple[float, float]]()
        sides = plain.predictions(output), plain.predictions(teacher), _plain_valid(inputs)
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


def _plain_valid(inputs: TermInputs, per_cell: int = 1) -> list[list[bool]]:
    """Which of the teacher's rows, or of its cells, are on the images."""
    valid: list[list[bool]] = inputs.teacher.priors.valid(inputs.targets.image_sizes)[:, ::per_cell].tolist()
    return valid


def _plain_crossed(inputs: TermInputs, over: str) -> DenseOutput:
    """`crossed`, the student's maps being moved number by number."""
    assert inputs.teacher_head is not None  # noqa: S101
    valid, start, towers = _plain_valid(inputs, inputs.teacher.priors.anchors_per_cell), 0, []
    for mine, theirs in zip(inputs.student.towers or (), inputs.teacher.towers or (), strict=True):
        size = mine[0].shape[2] * mine[0].shape[3]
        inside = [[p for p in range(size) if over == "batch" or image[start + p]] for image in valid]
        towers.append((_plain_moved(mine[0], theirs[0], inside, over), _plain_moved(mine[1], theirs[1], inside, over)))
        start += size
    return inputs.teacher_head(tuple(towers))


def _plain_moved(student: Tensor, teacher: Tensor, inside: list[list[int]], over: str) -> Tensor:
    """`restandardised` number by number; `inside` are the cells of each image that statistics are of."""
    mine, theirs = student.flatten(2).tolist(), teacher.flatten(2).tolist()  # by image, channel and cell
    moved = []
    for n, image in enumerate(mine):
        group = range(len(mine)) if over == "batch" else [n]
        for c, channel in enumerate(image):
            s, t = ([side[i][c][p] for i in group for p in inside[i]] for side in (mine, theirs))
            scale = plain.deviation(t) / plain.deviation(s)
            moved.append([(value - plain.mean(s)) * scale + plain.mean(t) for value in channel])
    return torch.tensor(moved, dtype=student.dtype).view_as(student)


_TERMS: dict[str, TermConfig] = {"cross_cls": CrossClassConfig(), "cross_box": CrossBoxConfig()}
register_recipe(
    Recipe(
        "crosskd",
        _TERMS,
        "student's features through the teacher's head (CVPR 2024)",
        paper=PAPER.address,
        families=FAMILIES,
    )
)
register_recipe(
    Recipe(
        "crosskd_pkd",
        {**_TERMS, "cross_pkd": pkd.PearsonFeatureConfig()},
        "CrossKD and PKD together",
        paper=PAPER.address,
        families=FAMILIES,
    )
)
