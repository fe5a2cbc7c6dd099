"""Training with images that have no labels: what a teacher finds on them is their ground truth."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ld_hub.data import DetectionSet
from ld_hub.engine.asking import Said, Teacher
from ld_hub.engine.detection_task import DetectionTask, full_precision, step_counts
from ld_hub.engine.lessons import Lesson, Looker, describe_parts, losses_name
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import (
    Assignment,
    DenseOutput,
    ImageBatch,
    Scored,
    ScoredTargets,
    StepCounts,
    Teaching,
    Unlabeled,
)
from ld_hub.teachers.box_teacher import BoxTeacher


class LessonTask(DetectionTask):
    """Training of a student by the ground truth, and by scored targets where there is none.

    Args:
        student: The detector to be trained.
        unlabeled: How images without labels take part, if there are any.

    Attributes:
        looker: Makes targets for images without labels; `prepare` sets it. None where no teacher finds boxes.
        scored: What came of them, for the card; likewise.
        remarks: What the user should know about student and teacher.
    """

    def __init__(self, student: DenseDetector, unlabeled: Unlabeled | None = None) -> None:
        super().__init__(student)
        self.unlabeled = unlabeled
        self.looker: Looker | None = None
        self.scored: Scored | None = None
        self.remarks: list[str] = []

    @property
    def wanted(self) -> Unlabeled:
        """How images without labels take part, if there are any."""
        return self.unlabeled or Unlabeled()

    @property
    @abstractmethod
    def taught_by(self) -> tuple[Teacher | BoxTeacher, ...]:
        """The teachers."""

    @property
    @abstractmethod
    def teaching(self) -> Teaching:
        """What is taught and by whom, to be kept with the student; the recipe is that of its family."""

    def most_found(self, unknown: int) -> int:
        """The most boxes that a teacher's detections on an image without labels can be.

        Args:
            unknown: Taken for a teacher that does not say.
        """
        return unknown

    def known(self, images: DetectionSet) -> DetectionSet:
        """Those of some images without labels which the teachers can say something about.

        Args:
            images: Without labels.
        """
        return images

    @abstractmethod
    def prepare(
        self, images: DetectionSet, labelled: DetectionSet | None, config: TrainConfig, device: torch.device
    ) -> DetectionSet:
        """Find out which scores count on images without labels; on every rank, before the first step.

        Args:
            images: Without labels, all `known`.
            labelled: Images on which thresholds can be found, or None.
            config: Settings: images per forward pass (those of an evaluation), and processes that load them.
            device: Where the run is.

        Returns:
            The same images to train on; boxes that a teacher has found beforehand are their objects then, so that they
            go where the transforms put them (`Looker.targets`).
        """

    def _take(self, looker: Looker, images: int) -> None:
        """Set what makes the targets, with thresholds that are final."""
        self.looker = looker
        self.scored = Scored(images, looker.thresholds.sure, looker.thresholds.unsure)

    def describe(self) -> list[str]:
        """Paragraphs about what is taught, for the start of a run."""
        parts = []
        if self.looker is not None and self.scored is not None:
            parts = [self.looker.describe(self.scored.images)]
            parts += [describe_parts(self.wanted)] if self.teaching.terms else []
        return [part for part in [*parts, *self.remarks] if part]

    def teach(self, batch: ImageBatch) -> dict[str, Said]:
        """What each teacher says, by its name, to a batch that was normalised for the student."""
        return {}

    @torch.no_grad()
    def look(self, batch: ImageBatch, taught: Mapping[str, Said] | None = None) -> Lesson:
        """What the teachers say to images without labels, and the student's rows that answer for it.

        Args:
            batch: Images of `prepare`, normalised for the student; targets in it are for the looker alone.
            taught: Of `teach` for them, where several students share a teacher; None asks the teachers here.

        Raises:
            ConfigError: If nothing says which scores count (`looker`).
        """
        if self.looker is None and self.wanted.targets:
            raise ConfigError("This task has no looker, which says from which score on a teacher's detections count.")
        bare, looker = replace(batch, targets=None), self.looker
        taught = self.teach(bare) if taught is None else taught
        targets = ScoredTargets.none(batch.image_sizes) if looker is None else looker.targets(batch, taught)
        return self.lesson(bare, targets, taught)

    def lesson(self, batch: ImageBatch, targets: ScoredTargets, taught: Mapping[str, Said]) -> Lesson:
        """The student's rows that answer for some boxes on images without labels.

        Args:
            batch: Images, normalised for the student.
            targets: The boxes.
            taught: Of `teach` for them.
        """
        return Lesson(batch, targets, self._assign(batch, targets).scored(targets), taught)

    def forward(
        self,
        batch: ImageBatch | None,
        assignment: Assignment | None = None,
        counts: StepCounts | None = None,
        step: int = 0,
        shares: bool = False,
        taught: Mapping[str, Said] | None = None,
        lesson: Lesson | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses and terms of a batch; see `DetectionTask.forward`.

        Args:
            batch: See `DetectionTask.forward`, also for all other arguments; None where all images are without labels.
            assignment: See there.
            counts: See there.
            step: See there.
            shares: See there; with `balance` also ``scale/TERM`` entries.
            taught: Of `teach` for this batch, where several students share a teacher; None asks the teachers here.
            lesson: Of `look`: images without labels; their losses are called ``unlabeled_...``.
        """
        losses: dict[str, Tensor] = {}
        if batch is not None:
            assignment = self.assign(batch) if assignment is None else assignment
            counts = step_counts([assignment]) if counts is None else counts
            losses = self._labelled(batch, assignment, counts, step, shares, taught)
        if lesson is not None:
            losses |= self._unlabelled(lesson, step)
        return losses

    def _labelled(
        self,
        batch: ImageBatch,
        assignment: Assignment,
        counts: StepCounts,
        step: int,
        shares: bool,
        taught: Mapping[str, Said] | None,
    ) -> dict[str, Tensor]:
        """Losses of images with labels; see `forward`."""
        return super().forward(batch, assignment, counts, step)

    def _unlabelled(self, lesson: Lesson, step: int) -> dict[str, Tensor]:
        """Losses of images without labels, as far as they are wanted."""
        wanted = self.wanted
        counts = step_counts([lesson.assignment]) if lesson.counts is None else lesson.counts
        student, losses, terms = self._lesson_parts(lesson, counts, step)
        with full_precision(lesson.batch.images.device):
            chosen = (losses if wanted.targets else {}) | (terms if wanted.terms else {})
            unused = 0 * student.cls_logits.sum() + 0 * student.box.sum()  # every weight has a gradient on every rank
            return {losses_name(name): lesson.factor * value + unused for name, value in chosen.items()}

    def _lesson_parts(
        self, lesson: Lesson, counts: StepCounts, step: int
    ) -> tuple[DenseOutput, dict[str, Tensor], dict[str, Tensor]]:
        """The student's predictions on images without labels, losses against scored targets, and terms."""
        student: DenseOutput = self.model(lesson.batch.images)
        with full_precision(lesson.batch.images.device):
            return student, self.detection_losses(student, lesson.targets, lesson.assignment, counts), {}
