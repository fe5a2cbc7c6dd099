"""Images without labels in a training step: what a teacher makes of them, and which scores count.

Such images have no targets but the teacher's: its detections, weighted by their scores (`ScoredTargets`). They come in
batches of their own, have their own losses (``unlabeled_...``) and their own normalisers, so that they neither change
the losses of labelled images nor depend on how a step is split.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ld_hub.data import DetectionSet
from ld_hub.data.tile_set import numbered, truth_of
from ld_hub.distillation.correspondence import class_pairs, rename
from ld_hub.distillation.scored_targets import Thresholds, scored_targets
from ld_hub.engine.asking import Memory, Said, ask
from ld_hub.engine.evaluate import batches_of, gathered
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.evaluation.best_f1 import best_f1_scores
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.ground_truth import GroundTruth, read_ground_truth
from ld_hub.evaluation.matching import Overlaps, overlaps
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import (
    Assignment,
    DenseOutput,
    Detections,
    ImageBatch,
    ScoredTargets,
    StepCounts,
    Unlabeled,
)

PREFIX = "unlabeled_"  # of the names of their losses
MOST = 300  # labelled images on which thresholds are looked for
DEFAULT = 0.45  # threshold where there are no labelled images to find one on; it served on photographs


@dataclass(frozen=True, eq=False)
class Lesson:
    """A micro-batch of images without labels, and what the teachers say to it.

    Attributes:
        batch: The images; no targets.
        targets: The first detector's detections; no boxes where only image encoders teach.
        assignment: Of the student's rows to them, weighted by scores.
        taught: What each teacher says, by its name; nothing of one that only detects.
        counts: Normalisers of such images in the whole optimizer step; None takes this batch over all ranks.
        factor: Of their losses.
    """

    batch: ImageBatch
    targets: ScoredTargets
    assignment: Assignment
    taught: Mapping[str, Said]
    counts: StepCounts | None = None
    factor: float = 1.0


def losses_name(name: str) -> str:
    """``"loss_cls"`` and ``"distill_ld"`` become ``"unlabeled_cls"`` and ``"unlabeled_ld"``."""
    return PREFIX + name.removeprefix("loss_").removeprefix("distill_")


class Looker(ABC):
    """Turns what a teacher finds into targets for a student.

    Args:
        name: Of the teacher; with several teachers of the first, whose detections they are.
        student: Whose classes the targets get.
        thresholds: From which score on a detection counts.
        classes: The teacher's classes, by the student's names.

    Attributes:
        labels: ``(C',)`` int64, the student's class of each of the teacher's; -1 for those that it does not have.

    Raises:
        ConfigError: If the two have no class in common.
    """

    def __init__(self, name: str, student: DenseDetector, thresholds: Thresholds, classes: Sequence[str]) -> None:
        pairs = class_pairs(student.label_names, classes)
        if not pairs:
            both = [", ".join(names[:6]) + " ..." * (len(names) > 6) for names in (classes, student.label_names)]
            raise ConfigError(
                f"Images without labels: teacher '{name}' ({both[0]}) and student '{student.name}' ({both[1]}) have no "
                "class name in common. Say which is which: class_map (--class_map MINE=THEIRS)."
            )
        self.name, self.student, self.thresholds = name, student, thresholds
        self.labels = torch.full((len(classes),), -1)
        for mine, theirs in pairs:
            self.labels[theirs] = mine

    def describe(self, images: int) -> str:
        """What counts, for the user.

        Args:
            images: Number of images without labels.
        """
        pairs = dict.fromkeys(zip(self.thresholds.sure, self.thresholds.unsure, strict=True))
        if len(pairs) > 1:
            names = zip(self.student.label_names, self.thresholds.sure, self.thresholds.unsure, strict=True)
            shown = ", ".join(f"{name} {sure:g} (unsure {unsure:g})" for name, sure, unsure in names)
        else:
            ((sure, unsure),) = pairs
            shown = f"{sure:g}; from {unsure:g} on they are unsure, and neither targets nor background"
        return f"{images} images without labels. Boxes of '{self.name}' are targets from a score of {shown}."

    @abstractmethod
    def targets(self, batch: ImageBatch, taught: Mapping[str, Said]) -> ScoredTargets:
        """The teacher's detections on a batch.

        Args:
            batch: Images without labels, as the student gets them, with whatever `LessonTask.prepare` has put on them.
            taught: What each teacher says to it; empty for one that only detects.
        """

    @abstractmethod
    def found_on(self, part: DetectionSet, batch_size: int, workers: int) -> Iterator[tuple[int, Detections]]:
        """Ids and detections, in px of the files, of this rank's share of some images with labels."""


class DenseLooker(Looker):
    """Asks a detector of this library, on each batch anew.

    Args:
        teacher: Whose detections they are.
        student: See `Looker`, also for `thresholds` and errors.
        thresholds: See there.
        teacher_scale: Size of the teacher's images over the student's.
        class_map: The teacher's name of classes that the student calls otherwise.
        memory: What the teacher has said before to the images on which thresholds are looked for.
    """

    def __init__(
        self,
        teacher: DenseDetector,
        student: DenseDetector,
        thresholds: Thresholds,
        teacher_scale: float = 1.0,
        class_map: Mapping[str, str] | None = None,
        memory: Memory | None = None,
    ) -> None:
        known = {mine: theirs for mine, theirs in (class_map or {}).items() if theirs in teacher.label_names}
        super().__init__(teacher.name, student, thresholds, rename(teacher.label_names, known, teacher.name))
        self.teacher, self.scale, self.memory = teacher, teacher_scale, memory

    @torch.no_grad()
    def targets(self, batch: ImageBatch, taught: Mapping[str, Said]) -> ScoredTargets:
        """See `Looker.targets`."""
        sizes = batch.image_sizes
        factors = torch.full_like(sizes, self.scale, dtype=torch.float32)
        output = next(said for said in taught.values() if isinstance(said, DenseOutput))
        found = self.teacher.postprocess(output, sizes * self.scale, factors)
        return scored_targets(found, self.labels.to(sizes.device), self.thresholds, sizes)

    def found_on(self, part: DetectionSet, batch_size: int, workers: int) -> Iterator[tuple[int, Detections]]:
        """See `Looker.found_on`."""
        device = next(self.teacher.parameters()).device
        for loaded in batches_of(self.student, part, batch_size, workers, device, True):
            batch = loaded.to(device)
            output = ask(self.teacher, batch, self.student, self.scale, (), self.memory)
            factors = batch.scale_factors * self.scale
            found = self.teacher.postprocess(output, batch.image_sizes * self.scale, factors)
            yield from zip(batch.image_ids, found, strict=True)


def describe_parts(wanted: Unlabeled) -> str:
    """Which parts of the recipe count, where not all do; else the empty string."""
    parts = {"images with labels": wanted.labeled_terms, "images without": wanted.terms}
    without = [images for images, taught in parts.items() if not taught]
    said = f"The recipe's terms are not applied to {' and '.join(without)}." if without else ""
    return said if wanted.targets else f"{said} The teacher's boxes are no targets.".lstrip()


def default_thresholds(student: DenseDetector) -> Thresholds:
    """The same score for all classes, where nothing is known of the teacher's."""
    return Thresholds.same(DEFAULT, student.config.num_classes)


def choose_thresholds(
    looker: Looker, labelled: DetectionSet | None, wanted: Unlabeled, config: TrainConfig
) -> Thresholds:
    """Which scores count: the one asked for, or those of best F1 on labelled images, at IoU 0.5.

    Every rank has to call it, and gets the same.

    Args:
        looker: Whose detections they are; its own thresholds do not matter.
        labelled: Images with labels, of the student's classes; `MOST` of them are looked at, spread evenly.
        wanted: What was asked for.
        config: Settings: images per forward pass (those of an evaluation), and processes that load them.

    Returns:
        A pair for each of the student's classes, rounded down to 0.01.
    """
    classes = looker.student.config.num_classes
    if wanted.threshold is not None or labelled is None:
        sure = np.full(classes, DEFAULT if wanted.threshold is None else wanted.threshold)
    else:
        found = _compared(looker, labelled, config.eval_batch_size, config.workers)
        sure = np.floor(100 * best_f1_scores(found, per_class=wanted.per_class)[0]) / 100
    sure = sure.clip(min=0.01)
    unsure = np.floor(100 * sure / 2) / 100 if wanted.unsure is None else np.full(classes, wanted.unsure)
    return Thresholds(tuple(sure.tolist()), tuple(unsure.clip(min=0.01, max=sure).tolist()))


def _compared(looker: Looker, labelled: DetectionSet, batch_size: int, workers: int) -> Overlaps:
    """The teacher's detections beside the labels of a part of a data set, over all ranks."""
    chosen = np.unique(np.linspace(0, len(labelled) - 1, min(MOST, len(labelled))).round().astype(np.int64))
    part = labelled.select(chosen)
    if part.records.crops is not None:
        part = numbered(part)
    images, categories = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    boxes, scores = [np.zeros((0, 4))], [np.zeros(0)]
    for image_id, each in looker.found_on(part, batch_size, workers):
        label = looker.labels[each.labels.cpu()].numpy()
        images.append(np.full((label >= 0).sum(), image_id))
        categories.append(np.array(labelled.category_ids)[label[label >= 0]])
        corners = each.boxes.cpu().double().numpy()[label >= 0]
        boxes.append(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1))
        scores.append(each.scores.cpu().double().numpy()[label >= 0])
    columns = [np.concatenate(each) for each in (images, categories, boxes, scores)]
    found = Found(*(np.concatenate(each) for each in zip(*gathered(columns), strict=True)))
    return overlaps(_truth(part), found, labelled.category_ids)


def _truth(part: DetectionSet) -> GroundTruth:
    """The labels of a part of a data set; those of tiles are in no file."""
    if part.records.crops is not None:
        return read_ground_truth(truth_of(part))
    return read_ground_truth(part.annotation_file).only(set(part.records.image_ids.tolist()))
