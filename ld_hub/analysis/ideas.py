"""The ideas of distillation on one photograph, as arrays: who answers for what, where terms look, edges as bins.

Nothing is drawn here. The way is that of a training step: the same batch, the same assigner, the same regions, the
teacher asked as the trainer asks it.

Shapes: A rows, L levels, (h, w) cells of a level that lie on the photograph, k rows of a cell, G objects, R+1 bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ld_hub.analysis import probe
from ld_hub.analysis.photograph import Photograph
from ld_hub.distillation import REGIONS, TermInputs
from ld_hub.distillation.correspondence import Matching
from ld_hub.distillation.regions import OF_TEACHER, RegionConfig, require_region, select
from ld_hub.engine.tasks import ask
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.models.inference import evaluating
from ld_hub.ops.boxes import pairwise_iou
from ld_hub.preprocessing.transforms import Preprocessor, collate
from ld_hub.structures import Assignment, DenseOutput, ImageBatch, Priors, Rows, Targets
from ld_hub.structures.targets import BACKGROUND, IGNORED

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Where nobody names regions: those around objects first, those that are nearly everywhere last.
ORDER = ("main", "vlr", "main+vlr", "inside_gt", "fine_grained", "confident", "gi", "gi_batch", "all", "outside_gt")


@dataclass(frozen=True)
class Level:
    """One level of the pyramid, as it lies on the photograph.

    Attributes:
        stride: px of the model's input per cell.
        cell: Width and height of a cell in px of the photograph.
        first: x, y in px of the photograph of the point that the first cell counts edges from. Of points that is the
            middle of its part of the image; anchors stand on its top left corner, as in the published code.
    """

    stride: int
    cell: tuple[float, float]
    first: tuple[float, float]


@dataclass(frozen=True, eq=False)
class RegionMap:
    """Where terms of one region look.

    Attributes:
        name: Registered name.
        members: L arrays ``(h, w)``: rows of each cell that are in the region.
        importance: L arrays ``(h, w)``: the largest importance of these rows, 0 where there is none.
    """

    name: str
    members: list[Ints]
    importance: list[Floats]


@dataclass(frozen=True, eq=False)
class Edges:
    """What one detector says of one object's edges, all in px of the photograph.

    Attributes:
        name: Of the detector.
        center: x, y of the place that edges are counted from.
        bin: Width and height of a bin.
        bins: ``(4, R+1)`` probabilities of left, top, right, bottom; None where edges are plain numbers.
        box: ``(4,)`` the decoded box, xyxy.
        iou: With the object's box.
    """

    name: str
    center: tuple[float, float]
    bin: tuple[float, float]
    bins: Floats | None
    box: Floats
    iou: float


@dataclass(frozen=True, eq=False)
class Ideas:
    """Everything that the picture shows.

    Attributes:
        photograph: The image and its G objects.
        student: Name of the detector.
        teacher: Name of the other one, or None.
        size: Width and height of the image in px as the detectors see it.
        levels: The L levels.
        owners: L arrays ``(h, w)``: the object that a cell answers for, -1 for background, -2 for cells that take no
            part in training.
        regions: Where terms look.
        left_out: Why a registered region is not shown, by its name.
        chosen: Index of the object whose edges are read, or None where no cell answers for any.
        edges: What the student says of it, and the teacher; empty where no cell answers for the object.
    """

    photograph: Photograph
    student: str
    teacher: str | None
    size: tuple[int, int]
    levels: list[Level]
    owners: list[Ints]
    regions: list[RegionMap]
    left_out: dict[str, str]
    chosen: int | None
    edges: list[Edges]

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Regions that are not shown, by the sentence that says why."""
        found: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            sentence = reason.partition(". ")[0].rstrip(".") + "."
            found.setdefault(sentence.replace(f"The region '{name}'", "Such a region"), []).append(name)
        return found


def gather(
    photograph: Photograph,
    student: DenseDetector,
    teacher: DenseDetector | None = None,
    *,
    names: tuple[str, str] = ("student", "teacher"),
    regions: Sequence[str] | None = None,
    chosen: int | None = None,
) -> Ideas:
    """Run the detectors over a photograph as training does, and read everything.

    Args:
        photograph: With at least one object.
        student: Its assigner decides who answers for what; both run where it is.
        teacher: Whose scores some regions need, and whose edges are read beside the student's.
        names: What the two are called.
        regions: Registered names, all of which must be possible; None takes all that are.
        chosen: Index of the object whose edges are read; None takes the largest one that a cell answers for.

    Raises:
        UnknownNameError: If there is no region of a name.
        ConfigError: If there is no object of that index, or a region cannot be made for these detectors.
    """
    if chosen is not None and not 0 <= chosen < len(photograph):
        known = f"objects 1 to {len(photograph)}" if len(photograph) > 1 else "object 1 only"
        raise ConfigError(f"There is no object {chosen + 1}: the photograph has the {known}.")
    wanted, left_out = _possible(regions, student, teacher)
    with evaluating(student):
        batch = _batch(photograph, student)
        inputs = _inputs(batch, student, teacher)
        size = (int(batch.image_sizes[0, 0]), int(batch.image_sizes[0, 1]))
        found = [region_map(inputs, RegionConfig(region=name), size) for name in wanted]
        number = chosen if chosen is not None else largest_answered(inputs.assignment, photograph.boxes)
        edges = [] if number is None else _edges(inputs, number, batch, names, teacher is not None)
    return Ideas(
        photograph=photograph,
        student=names[0],
        teacher=None if teacher is None else names[1],
        size=(size[1], size[0]),
        levels=_levels(inputs.student.priors, batch.scale_factors[0]),
        owners=owners(inputs.assignment, size),
        regions=found,
        left_out=left_out,
        chosen=number,
        edges=edges,
    )


def _possible(
    regions: Sequence[str] | None, student: DenseDetector, teacher: DenseDetector | None
) -> tuple[list[str], dict[str, str]]:
    """Regions that can be made, and why others cannot; what was asked for by name must be possible."""
    possible: list[str] = []
    left_out: dict[str, str] = {}
    ordered = sorted(REGIONS, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    for name in ordered if regions is None else dict.fromkeys(regions):
        config = RegionConfig(region=name)  # refuses unknown names
        try:
            if teacher is None and name in OF_TEACHER:
                raise ConfigError(f"The region '{name}' compares with a teacher, and there is none (--teacher).")
            require_region(config, student.spec, student.spec if teacher is None else teacher.spec)
        except ConfigError as error:
            if regions is not None:
                raise
            left_out[name] = str(error)
        else:
            possible.append(name)
    return possible, left_out


def _batch(photograph: Photograph, model: DenseDetector) -> ImageBatch:
    """The photograph as a training batch of one, without a flip."""
    batch = collate([Preprocessor(model.data_config)(photograph.image)])
    boxes = torch.from_numpy(photograph.boxes.copy()) * batch.scale_factors[0].repeat(2)
    labels = torch.tensor(photograph.labels).clamp(min=0)  # which class it is changes neither owners nor regions
    targets = Targets.pad([boxes], [labels], batch.image_sizes)
    whole = ImageBatch(batch.images, batch.image_sizes, batch.scale_factors, batch.original_sizes, targets)
    return whole.to(next(model.parameters()).device)


def _inputs(batch: ImageBatch, student: DenseDetector, teacher: DenseDetector | None) -> TermInputs:
    """What a term sees of the batch; without a teacher the student stands in, and no region of a teacher is asked."""
    assert batch.targets is not None  # noqa: S101  # _batch gave them
    output = student(batch.images)
    assignment = student.assign(output.priors, batch.targets)
    if teacher is None:
        return TermInputs(output, output, assignment, batch.targets)
    taught = ask(teacher.to(batch.images.device), batch, student, 1.0, ())
    matching = Matching(student.spec, teacher.spec).to(batch.images.device)
    return TermInputs(output, taught, assignment, batch.targets, matching=matching)


def _levels(priors: Priors, factors: Tensor) -> list[Level]:
    across, down = factors.tolist()
    levels, start = [], 0
    for stride, rows in zip(priors.level_strides, priors.level_sizes, strict=True):
        x, y = priors.centers[start].tolist()
        levels.append(Level(stride, (stride / across, stride / down), (x / across, y / down)))
        start += rows
    return levels


def cells(values: Tensor, priors: Priors, size: tuple[int, int]) -> list[npt.NDArray[np.float64]]:
    """Values of rows as maps.

    Args:
        values: ``(A,)``.
        priors: The grid of the rows.
        size: Height and width in px of the image without padding.

    Returns:
        L arrays ``(h, w, k)``: cells whose top left corner lies on the image, and their rows.
    """
    maps = []
    parts = values.double().cpu().split(priors.level_sizes)
    for part, shape, stride in zip(parts, priors.level_shapes, priors.level_strides, strict=True):
        high, wide = (-(-side // stride) for side in size)
        maps.append(part.unflatten(0, (*shape, -1))[:high, :wide].numpy())
    return maps


def owners(assignment: Assignment, size: tuple[int, int]) -> list[Ints]:
    """Which object each cell answers for.

    Of several rows of a cell the object with the most of them counts, the first one on a tie.

    Args:
        assignment: Of a batch of one.
        size: As of `cells`.

    Returns:
        L arrays ``(h, w)``: index of the object, -1 for background, -2 where no row has an object and some are ignored.
    """
    maps = []
    for level in cells(assignment.gt_index[0], assignment.priors, size):
        objects = np.arange(max(1, int(level.max(initial=0)) + 1))
        votes = (level[..., None] == objects).sum(axis=2)  # (h, w, G)
        alone = np.where((level == IGNORED).any(axis=2), IGNORED, BACKGROUND)
        maps.append(np.where(votes.max(axis=2) > 0, votes.argmax(axis=2), alone).astype(np.int64))
    return maps


def region_map(inputs: TermInputs, config: RegionConfig, size: tuple[int, int]) -> RegionMap:
    """The rows of a region as maps, found as the terms find them.

    Args:
        inputs: Of a batch of one.
        config: Region and its settings.
        size: As of `cells`.
    """
    selection, priors = select(inputs, config), inputs.student.priors
    flat = torch.zeros(len(priors), dtype=torch.float64, device=selection.importance.device)
    within = flat.scatter_add(0, selection.rows.index, selection.rows.weight.double())
    weight = flat.scatter_add(0, selection.rows.index, selection.importance.double())
    return RegionMap(
        config.region,
        [level.sum(axis=2).astype(np.int64) for level in cells(within, priors, size)],
        [level.max(axis=2) for level in cells(weight, priors, size)],
    )


def largest_answered(assignment: Assignment, boxes: npt.NDArray[np.float32]) -> int | None:
    """Index of the object of the largest area that a row answers for; None where no row answers for any."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    answered = set(assignment.gt_index[0].tolist())
    known = [index for index in range(len(boxes)) if index in answered]
    return max(known, key=lambda index: float(area[index]), default=None)


def _edges(inputs: TermInputs, number: int, batch: ImageBatch, names: tuple[str, str], taught: bool) -> list[Edges]:
    """Student and teacher at the row of an object where the student's box fits best."""
    truth = inputs.targets.boxes[0, number]
    row = probe.best_positive(inputs.student, 0, inputs.assignment.gt_index[0] == number, truth)
    if row is None:
        return []
    factors = batch.scale_factors[0]
    found = [read_edges(names[0], inputs.student, row, truth, factors)]
    if taught:
        index = torch.tensor([row], device=truth.device)
        partner = inputs.pairs(Rows(index, torch.ones_like(index, dtype=torch.float32), len(inputs.student.priors)))
        if bool(partner.weight[0]):
            theirs = int(partner.partners.priors[0])
            found.append(read_edges(names[1], inputs.teacher, theirs, truth, factors))
    return found


def read_edges(name: str, output: DenseOutput, row: int, truth: Tensor, factors: Tensor) -> Edges:
    """What a detector says at one row of the first image.

    Args:
        name: Of the detector.
        output: Its predictions.
        row: Which of A.
        truth: ``(4,)`` xyxy px of the batch image.
        factors: ``(2,)`` px of the batch image over px of the photograph, along x and y.
    """
    logits, priors = output.box[0, row], output.priors
    box = output.coder.decode_rows(logits[None], priors, torch.tensor([row], device=logits.device))[0]
    across, down = factors.tolist()
    x, y = priors.centers[row].tolist()
    stride = float(priors.strides[row])
    return Edges(
        name=name,
        center=(x / across, y / down),
        bin=(stride / across, stride / down),
        bins=None if output.coder.reg_max is None else logits.softmax(dim=-1).double().cpu().numpy(),
        box=(box / factors.repeat(2)).double().cpu().numpy(),
        iou=float(pairwise_iou(truth[None, None], box[None])[0, 0, 0]),
    )
