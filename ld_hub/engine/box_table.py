"""Detections as targets of batches: their boxes go through the transforms as objects of their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ld_hub.data import DetectionSet
from ld_hub.distillation.correspondence import rename
from ld_hub.distillation.scored_targets import Thresholds
from ld_hub.engine.asking import Said
from ld_hub.engine.lessons import Looker
from ld_hub.engine.looking import look_at_set
from ld_hub.errors import ConfigError, DataError
from ld_hub.hub import ShardStore
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.dist import rank, world_size
from ld_hub.structures import Detections, ImageBatch, ScoredTargets
from ld_hub.teachers.box_teacher import BoxTeacher


class BoxTable:
    """Detections that count, of all images, each under a number from 1 on; 0 is none.

    Their boxes are given to training as the objects of their images, with these numbers for labels. So whatever puts
    labelled boxes to other places, cuts them off, leaves them out or brings those of several images together does the
    same to these, and a batch has them where its images show what they enclose.

    Args:
        found: On each image, in px of the file; labels are the teacher's.
        labels: ``(C',)`` int64, the student's class of each of the teacher's, or -1.
        thresholds: From which score on a detection counts, at least as unsure.
        device: Where the batches are.

    Attributes:
        labels: ``(T + 1,)`` int64, the student's classes, on the device like `scores` and `sure`.
        scores: ``(T + 1,)``.
        sure: ``(T + 1,)`` bool.
    """

    def __init__(
        self, found: Sequence[Detections], labels: Tensor, thresholds: Thresholds, device: torch.device
    ) -> None:
        sure, unsure = (torch.tensor(values) for values in (thresholds.sure, thresholds.unsure))
        label = labels[torch.cat([each.labels for each in found])]  # (K,)
        score = torch.cat([each.scores for each in found])
        kept = (label >= 0) & (score >= unsure[label.clamp(min=0)])
        owner = np.repeat(np.arange(len(found)), [len(each) for each in found])
        self._owner = owner[kept.numpy()]
        self._boxes = torch.cat([each.boxes for each in found])[kept].numpy()
        label, score = label[kept], score[kept]
        columns = label, score, score >= sure[label]
        self.labels, self.scores, self.sure = (
            torch.cat([values.new_zeros(1), values]).to(device) for values in columns
        )

    def on(self, images: DetectionSet) -> DetectionSet:
        """The images with the detections as their objects, labelled by number.

        Args:
            images: Those of `found`, in its order.
        """
        return images.with_objects(self._owner, self._boxes, np.arange(1, len(self.labels)))

    def targets(self, batch: ImageBatch) -> ScoredTargets:
        """The detections of a batch, where its geometry has put them.

        Args:
            batch: N images of `on`.

        Raises:
            ConfigError: If it has no objects, so that it is not of these images.
        """
        objects = batch.targets
        if objects is None:
            raise ConfigError("This batch has no objects; the images that the task's prepare returns have.")
        number = objects.labels  # (N, G)
        return ScoredTargets(
            boxes=objects.boxes,
            labels=self.labels[number],
            valid=objects.valid,
            crowd=objects.crowd,
            image_sizes=objects.image_sizes,
            scores=self.scores[number],
            sure=self.sure[number],
        )


class BoxLooker(Looker):
    """Looks up what a teacher that only detects has found, once for all.

    Args:
        teacher: It has been asked already.
        student: See `Looker`, also for `thresholds` and errors.
        thresholds: See there.
        class_map: The teacher's name of classes that the student calls otherwise.
        store: See `look_at_set`.

    Attributes:
        table: Of the images without labels; None until `lay_out`.
    """

    def __init__(
        self,
        teacher: BoxTeacher,
        student: DenseDetector,
        thresholds: Thresholds,
        class_map: Mapping[str, str] | None = None,
        store: ShardStore | None = None,
    ) -> None:
        theirs = teacher.classes(student.label_names, student.category_ids)
        super().__init__(teacher.name, student, thresholds, rename(theirs, class_map or {}, teacher.name))
        self.teacher, self.store = teacher, store
        self.table: BoxTable | None = None

    def remark(self) -> str:
        """Which of the student's classes the teacher does not have; the empty string where it has all."""
        known = set(self.labels.tolist())
        lost = [name for k, name in enumerate(self.student.label_names) if k not in known]
        return (
            f"'{self.name}' does not have {len(lost)} of the student's classes ({', '.join(lost[:5])}"
            f"{', ...' if len(lost) > 5 else ''}): such objects are taken for background on images without labels."
            if lost
            else ""
        )

    def require_labels(self, found: Sequence[Detections]) -> None:
        """Refuse labels beyond the teacher's classes.

        Raises:
            DataError: If there are; says how they get names.
        """
        most = max((int(each.labels.max()) for each in found if len(each)), default=0)
        if most >= len(self.labels):
            raise DataError(
                f"Teacher '{self.name}' gave the label {most}; it has {len(self.labels)} classes, numbered from 0. "
                "Where nothing names its classes they are the student's: name them (a data.yaml with 'names' beside "
                "YOLO's files, an attribute label_names of a function)."
            )

    def lay_out(self, images: DetectionSet, found: Sequence[Detections], device: torch.device) -> DetectionSet:
        """Make the table, with the thresholds that count now.

        Args:
            images: Without labels.
            found: On each of them, as of `look_at_set`.
            device: Where the batches are.

        Returns:
            The images to train on, see `BoxTable.on`.
        """
        self.table = BoxTable(found, self.labels, self.thresholds, device)
        return self.table.on(images)

    def targets(self, batch: ImageBatch, taught: Mapping[str, Said]) -> ScoredTargets:
        """See `Looker.targets`."""
        if self.table is None:
            raise ConfigError("This teacher has not been asked yet: lay_out makes the table of what it found.")
        return self.table.targets(batch)

    def found_on(self, part: DetectionSet, batch_size: int, workers: int) -> Iterator[tuple[int, Detections]]:
        """See `Looker.found_on`."""
        found = look_at_set(self.teacher, part, batch_size, self.store).found
        self.require_labels(found)
        pairs = list(zip(part.records.image_ids.tolist(), found, strict=True))
        return iter(pairs[rank() :: world_size()])
