"""Detections of a whole set of images as targets of its batches: a table on the device, and the geometry of a batch."""

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
from ld_hub.engine.looking import look_at
from ld_hub.errors import ConfigError, DataError
from ld_hub.hub import ShardStore
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.dist import rank, world_size
from ld_hub.structures import Detections, ImageBatch, ScoredTargets
from ld_hub.teachers.box_teacher import BoxTeacher
from ld_hub.teachers.photos import photos_of


class BoxTable:
    """Boxes that count, of all images, one after the other on the device; a batch takes its rows by image id.

    The number of boxes of each image is known to the host, so that a batch is padded to its largest without waiting
    for the device.

    Args:
        image_ids: Of the images.
        found: On each, in px of the file; labels are the teacher's.
        labels: ``(C',)`` int64, the student's class of each of the teacher's, or -1.
        thresholds: From which score on a detection counts, at least as unsure.
        device: Where the batches are.
    """

    def __init__(
        self,
        image_ids: Sequence[int],
        found: Sequence[Detections],
        labels: Tensor,
        thresholds: Thresholds,
        device: torch.device,
    ) -> None:
        self.row_of = {image_id: row for row, image_id in enumerate(image_ids)}
        self.sure, unsure = (torch.tensor(values) for values in (thresholds.sure, thresholds.unsure))
        label = labels[torch.cat([each.labels for each in found])]  # (T,)
        score = torch.cat([each.scores for each in found])
        kept = (label >= 0) & (score >= unsure[label.clamp(min=0)])
        owner = np.repeat(np.arange(len(found)), [len(each) for each in found])
        self.counts = np.bincount(owner[kept.numpy()], minlength=len(found))
        self.starts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        boxes = torch.cat([each.boxes for each in found])
        empty = not bool(kept.any())  # a row to gather where there are none
        self.boxes, self.scores, self.labels = (
            (values.new_zeros(1, *values.shape[1:]) if empty else values[kept]).to(device)
            for values in (boxes, score, label)
        )
        self.sure = self.sure.to(device)

    def targets(self, batch: ImageBatch) -> ScoredTargets:
        """The boxes of a batch, where its geometry has put them.

        Args:
            batch: N images, with what was done to each: its scale factors, and whether it was mirrored.
        """
        device = batch.image_sizes.device
        rows = np.array([self.row_of[image_id] for image_id in batch.image_ids], dtype=np.int64)
        places = np.arange(max(1, int(self.counts[rows].max(initial=0))))  # (G,)
        valid = places < self.counts[rows, None]  # (N, G)
        index = np.where(valid, self.starts[rows, None] + places, 0)
        chosen, there = (_to(torch.from_numpy(values), device) for values in (index, valid))
        height, width = batch.image_sizes.to(self.boxes.dtype)[:, None].unbind(dim=2)  # (N, 1) each
        boxes = self.boxes[chosen] * batch.scale_factors.repeat(1, 2)[:, None]
        left, top, right, bottom = boxes.clamp(min=0).unbind(dim=2)  # (N, G) each
        left, right = torch.minimum(left, width), torch.minimum(right, width)
        if batch.mirrored is not None:
            flipped = batch.mirrored[:, None]
            left, right = torch.where(flipped, width - right, left), torch.where(flipped, width - left, right)
        corners = torch.stack([left, torch.minimum(top, height), right, torch.minimum(bottom, height)], dim=2)
        labels, scores = self.labels[chosen] * there, self.scores[chosen] * there
        return ScoredTargets(
            boxes=corners * there[..., None],
            labels=labels,
            valid=there,
            crowd=torch.zeros_like(there),
            image_sizes=batch.image_sizes,
            scores=scores,
            sure=there & (scores >= self.sure[labels]),
        )


class BoxLooker(Looker):
    """Looks up what a teacher that only detects has found, once for all.

    Args:
        teacher: It has been asked already.
        student: See `Looker`, also for `thresholds` and errors.
        thresholds: See there.
        class_map: The teacher's name of classes that the student calls otherwise.
        store: See `look_at`.

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

    def lay_out(self, images: DetectionSet, found: Sequence[Detections], device: torch.device) -> None:
        """Make the table, with the thresholds that count now.

        Args:
            images: Without labels.
            found: On each of them, as of `look_at`.
            device: Where the batches are.
        """
        ids = images.records.image_ids.tolist()
        self.table = BoxTable(ids, found, self.labels, self.thresholds, device)

    def targets(self, batch: ImageBatch, taught: Mapping[str, Said]) -> ScoredTargets:
        """See `Looker.targets`."""
        if self.table is None:
            raise ConfigError("This teacher has not been asked yet: lay_out makes the table of what it found.")
        return self.table.targets(batch)

    def found_on(self, part: DetectionSet, batch_size: int, workers: int) -> Iterator[tuple[int, Detections]]:
        """See `Looker.found_on`."""
        found = look_at(self.teacher, photos_of(part), batch_size, self.store).found
        self.require_labels(found)
        pairs = list(zip(part.records.image_ids.tolist(), found, strict=True))
        return iter(pairs[rank() :: world_size()])


def _to(values: Tensor, device: torch.device) -> Tensor:
    """Copy without waiting for the device."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
