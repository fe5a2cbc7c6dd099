"""A batch in plain numbers: what second versions of terms (`Term.loops`) are written with.

Nothing here runs in training. It knows no tensor operation beyond looking up which rows a region has and what they
decode to, both of which have second versions of their own in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ld_hub.distillation.cross_head import CrossHead
from ld_hub.distillation.features import FeatureTerm
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.regions import RegionConfig, select
from ld_hub.distillation.terms import Over, Term
from ld_hub.structures import DenseOutput

Numbers = list[float]


@dataclass(frozen=True)
class Prediction:
    """What one detector says at one row.

    Attributes:
        cls: C class logits.
        box: Bin logits of the left, top, right and bottom edge, or four numbers where a head has no bins.
        corners: Decoded box, xyxy px.
    """

    cls: Numbers
    box: Any  # list[Numbers] or Numbers
    corners: Numbers

    @property
    def scores(self) -> Numbers:
        """C class scores."""
        return [sigmoid(logit) for logit in self.cls]


@dataclass(frozen=True)
class Row:
    """A row of a region: where it is and what the two say there.

    Attributes:
        image: Index of the image.
        index: Index of the row in the image.
        level: Index of the pyramid level.
        stride: px per cell.
        importance: How much it matters in the region.
        student: Prediction.
        teacher: Prediction.
    """

    image: int
    index: int
    level: int
    stride: float
    importance: float
    student: Prediction
    teacher: Prediction


def rows(inputs: TermInputs, config: RegionConfig) -> list[Row]:
    """The rows of a region, of detectors whose rows and classes are the same."""
    if inputs.partners is not None:
        raise AssertionError("second versions in loops compare a row with the teacher's same row")
    selection, priors = select(inputs, config), inputs.student.priors
    student, teacher = predictions(inputs.student), predictions(inputs.teacher)
    levels, strides = priors.levels.tolist(), priors.strides.tolist()
    found = []
    chosen = (selection.rows.index.tolist(), selection.rows.weight.tolist(), selection.importance.tolist())
    for flat, weight, importance in zip(*chosen, strict=True):
        image, a = divmod(flat, len(priors))
        if weight:
            both = student[image][a], teacher[image][a]
            found.append(Row(image, a, levels[a], strides[a], importance, *both))
    return found


def predictions(output: DenseOutput) -> list[list[Prediction]]:
    """What a detector says at each row of each image."""
    parts = output.cls_logits.tolist(), output.box.tolist(), output.decode().tolist()
    return [[Prediction(*row) for row in zip(*image, strict=True)] for image in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Map:
    """One pyramid level of one image.

    Attributes:
        level: Index of the level.
        image: Index of the image.
        student: P cells of F numbers, adapted to the teacher's width.
        teacher: P cells of F numbers.
        inside: Indices of the cells that lie on the image.
        height: In cells.
        width: In cells; P = height * width, row by row.
        stride: px per cell.
    """

    level: int
    image: int
    student: list[Numbers]
    teacher: list[Numbers]
    inside: list[int]
    height: int
    width: int
    stride: int


def maps(term: FeatureTerm[Any], inputs: TermInputs) -> Iterator[Map]:
    """Level by level, the maps of each image."""
    assert inputs.student.features is not None and inputs.teacher.features is not None  # noqa: S101
    priors, start = inputs.student.priors, 0
    for level, (mine, theirs) in enumerate(zip(inputs.student.features, inputs.teacher.features, strict=True)):
        height, width = priors.level_shapes[level]
        size = height * width
        for image, valid in enumerate(inputs.assignment.valid[:, :: priors.anchors_per_cell].tolist()):
            student, teacher = cells(mine[image].tolist()), cells(theirs[image].tolist())
            if term.adapters:
                weight, bias = (p.tolist() for p in term.adapters[level].parameters())
                student = [linear(cell, weight, bias) for cell in student]
            inside = [p for p in range(size) if valid[start + p]]
            yield Map(level, image, student, teacher, inside, height, width, priors.level_strides[level])
        start += size


def cells(channels: Sequence[Sequence[Sequence[float]]]) -> list[Numbers]:
    """A map of F channels, H rows and W columns as P cells of F numbers."""
    flat = [[value for row in channel for value in row] for channel in channels]
    return [list(cell) for cell in zip(*flat, strict=True)]


def seen(cross_head: CrossHead, term: Term[Any], inputs: TermInputs) -> TermInputs:
    """A batch as a term sees it (`Distiller.seen`), the student's maps being moved number by number."""
    over = term.config.crossing
    if over is None:
        return inputs
    assert inputs.teacher_head is not None  # noqa: S101
    adapters = cross_head.adapters
    per_cell, start, towers = inputs.teacher.priors.anchors_per_cell, 0, []
    valid = [image[::per_cell] for image in teacher_valid(inputs)]
    for mine, theirs in zip(inputs.student.towers or (), inputs.teacher.towers or (), strict=True):
        size = mine[0].shape[2] * mine[0].shape[3]
        inside = [[p for p in range(size) if over == "batch" or image[start + p]] for image in valid]
        weights = [adapters[branch].get_parameter("weight").tolist() if adapters else None for branch in ("cls", "box")]
        moved = [_moved(*maps, inside, over) for maps in zip(mine, theirs, weights, strict=True)]
        towers.append((moved[0], moved[1]))
        start += size
    return inputs.crossed(inputs.teacher_head(tuple(towers)))


def teacher_valid(inputs: TermInputs) -> list[list[bool]]:
    """Which of the teacher's rows are on the images."""
    valid: list[list[bool]] = inputs.teacher.priors.valid(inputs.targets.image_sizes).tolist()
    return valid


def _moved(
    student: Tensor, teacher: Tensor, weight: list[Numbers] | None, inside: list[list[int]], over: Over
) -> Tensor:
    """`restandardised` number by number; `inside` are the cells of each image that statistics are of."""
    mine, theirs = student.flatten(2).tolist(), teacher.flatten(2).tolist()  # by image, channel and cell
    if weight is not None:
        adapted = [[linear(cell, weight, [0.0] * len(weight)) for cell in zip(*image, strict=True)] for image in mine]
        mine = [[list(channel) for channel in zip(*image, strict=True)] for image in adapted]
    moved = []
    for n, image in enumerate(mine):
        group = range(len(mine)) if over == "batch" else [n]
        for c, channel in enumerate(image):
            s, t = ([side[i][c][p] for i in group for p in inside[i]] for side in (mine, theirs))
            middle, scale, new = mean(s), deviation(t) / deviation(s), mean(t)
            moved.append([(value - middle) * scale + new for value in channel])
    return torch.tensor(moved, dtype=student.dtype).view_as(teacher)


def samples(inputs: TermInputs) -> int:
    """The positives of each image, at least 1, summed."""
    return sum(max(sum(image), 1) for image in inputs.assignment.positive.tolist())


def sigmoid(logit: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-logit))


def softmax(logits: Sequence[float]) -> Numbers:
    """Shares that add up to 1."""
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def kl(student: Sequence[float], teacher: Sequence[float], temperature: float = 1.0) -> float:
    """``T^2 KL(softmax(t / T) || softmax(s / T))`` of logits."""
    p, q = (softmax([logit / temperature for logit in logits]) for logits in (teacher, student))
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def cross_entropy(logit: float, target: float) -> float:
    """Binary cross-entropy of a logit's score against a score."""
    score = sigmoid(logit)
    return -(target * math.log(score) + (1 - target) * math.log(1 - score))


def overlap(a: Sequence[float], b: Sequence[float], kind: str) -> float:
    """IoU, GIoU or DIoU of two boxes; unions and hulls of less than 1e-6 count as that (`ld_hub.ops.boxes.overlap`)."""
    both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    wide, high = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    if kind == "diou":
        far = (a[0] + a[2] - b[0] - b[2]) ** 2 / 4 + (a[1] + a[3] - b[1] - b[3]) ** 2 / 4
        return both / (union + 1e-6) - far / (wide**2 + high**2 + 1e-6)
    iou = both / max(union, 1e-6)
    hull = max(max(0, wide) * max(0, high), 1e-6)
    return iou if kind == "iou" else iou - (hull - max(union, 1e-6)) / hull


def mean(values: Sequence[float]) -> float:
    """Their mean; 0 of none."""
    return sum(values) / len(values) if values else 0.0


def deviation(values: Sequence[float]) -> float:
    """The root of the mean squared difference from their mean, at least 1e-6."""
    middle = mean(values)
    return max(math.sqrt(mean([(value - middle) ** 2 for value in values])), 1e-6)


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson's r; None where a side is constant."""
    (mean_a, mean_b) = mean(a), mean(b)
    power = sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)
    if power < 1e-32:
        return None
    return sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / math.sqrt(power)


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Cosine of the angle between two vectors; one shorter than 1e-6 counts as that long."""
    long, wide = (max(math.sqrt(sum(x**2 for x in side)), 1e-6) for side in (a, b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / (long * wide)


def linear(values: Sequence[float], weight: Sequence[Sequence[float]], bias: Sequence[float]) -> Numbers:
    """``W x + b``."""
    return [sum(w * x for w, x in zip(row, values, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
