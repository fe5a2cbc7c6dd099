"""Distillation from a teacher that only detects: its boxes on images without labels, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from ld_hub.data import DetectionSet
from ld_hub.data.checks import name_some
from ld_hub.data.tile_set import count_images
from ld_hub.engine.box_table import BoxLooker
from ld_hub.engine.lesson_task import LessonTask
from ld_hub.engine.lessons import DEFAULT, choose_thresholds, default_thresholds
from ld_hub.engine.looking import look_at_set
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError, DataError
from ld_hub.hub import ShardStore
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import Teaching
from ld_hub.structures.teaching import HASHED
from ld_hub.teachers.box_teacher import BoxTeacher
from ld_hub.teachers.photos import photos_of


class BoxTask(LessonTask):
    """Training of a student by the ground truth, and by the boxes of a teacher where there is none.

    Args:
        student: The detector to be trained.
        teacher: What says where the boxes are.
        teaching: What is taught: no terms, and how images without labels take part.

    Attributes:
        store: Where its detections are read from and written to; None asks it in each run.

    Raises:
        ConfigError: If the teaching asks for what such a teacher does not have, or there are no images without labels.
    """

    def __init__(self, student: DenseDetector, teacher: BoxTeacher, teaching: Teaching) -> None:
        _require_boxes_alone(teacher, teaching)
        super().__init__(student, teaching.unlabeled)
        self.teacher, self._teaching = teacher, teaching
        self.store: ShardStore | None = None
        if teacher.label_names:
            self._looker()  # refuses classes that do not correspond, before the teacher is asked about many images

    @property
    def taught_by(self) -> tuple[BoxTeacher, ...]:
        """See `LessonTask.taught_by`."""
        return (self.teacher,)

    @property
    def teaching(self) -> Teaching:
        """See `LessonTask.teaching`."""
        teacher = self.teacher
        hashed = teacher.digest if re.fullmatch("[0-9a-f]{64}", teacher.digest) else ""
        origin = teacher.origin or (f"{HASHED}{hashed}" if hashed else "")
        return replace(
            self._teaching,
            teachers=(teacher.name,),
            origins={teacher.name: origin} if origin else {},
            kinds={teacher.name: teacher.kind},
            scored=self.scored,
        )

    def known(self, images: DetectionSet) -> DetectionSet:
        """See `LessonTask.known`.

        Raises:
            DataError: If the teacher knows none of them.
        """
        photos = photos_of(images)
        there = self.teacher.knows(photos)
        if not any(there):
            named = [str(key) for key in getattr(self.teacher, "keys", ())]
            raise DataError(
                f"Teacher '{self.teacher.name}' knows none of the {len(images)} images without labels in "
                f"'{images.source}' ({name_some([photo.path for photo in photos], 2)}); it has boxes of {len(named)} "
                f"images ({name_some(named, 2)}). They have to be called alike: file names, or ids of the data set "
                "that --unlabeled names."
            )
        if all(there):
            return images
        missing = [photo.path for photo, known in zip(photos, there, strict=True) if not known]
        self.remarks.append(
            f"'{self.teacher.name}' says nothing about {len(missing)} of the {len(images)} images without labels, "
            f"which are left out: {name_some(missing, 3)}."
        )
        return images.select([index for index, known in enumerate(there) if known])

    def _looker(self) -> BoxLooker:
        return BoxLooker(self.teacher, self.model, default_thresholds(self.model), self._teaching.class_map, self.store)

    def prepare(
        self, images: DetectionSet, labelled: DetectionSet | None, config: TrainConfig, device: torch.device
    ) -> DetectionSet:
        """See `LessonTask.prepare`."""
        wanted, teacher = self.wanted, self.teacher
        teacher.to(device)
        looked = look_at_set(teacher, images, config.eval_batch_size, self.store)
        looker = self._looker()
        looker.require_labels(looked.found)
        if labelled is not None and wanted.threshold is None:
            there = teacher.knows(photos_of(labelled))
            known = [index for index, known in enumerate(there) if known]
            if not known:
                self.remarks.append(
                    f"'{teacher.name}' has no boxes of images with labels to find a threshold on: it is {DEFAULT:g}."
                )
            labelled = labelled.select(known) if known else None
        looker.thresholds = choose_thresholds(looker, labelled, wanted, config)
        teacher.to(torch.device("cpu"))  # it has said all; the memory is the student's
        self.remarks += filter(None, [looked.remark(teacher.name), looker.remark()])
        self._take(looker, count_images(images))
        return looker.lay_out(images, looked.found, device)


def _require_boxes_alone(teacher: BoxTeacher, teaching: Teaching) -> None:
    """Refuse what needs more of a teacher than boxes, and a run in which its boxes would not count."""
    who = f"Teacher '{teacher.name}' ({teacher.kind}) only detects: it has boxes, classes and scores"
    if teaching.terms:
        raise ConfigError(
            f"{who}, and the recipe '{teaching.recipe}' ({', '.join(teaching.terms)}) compares rows or maps of two "
            "detectors of this library. Leave recipe (--recipe) out: its boxes on images without labels then are "
            "targets, weighted by their scores. All recipes need a detector of this library as teacher."
        )
    needless = {
        "individual_ld": teaching.individual_ld,
        "balance": teaching.balance != "none",
        "teacher_scale": teaching.teacher_scale != 1,
        "teacher_weights": bool(teaching.teacher_weights),
        "reference": teaching.reference is not None,
    }
    given = [name for name, said in needless.items() if said]
    if given:
        raise ConfigError(f"{who}; {given[0]} (--{given[0]}) is about a recipe's terms: leave it out.")
    if teaching.unlabeled is None:
        raise ConfigError(
            f"{who}, which teach on images without labels. Give some: --unlabeled DIR (unlabeled_dataset=)."
        )
    if not teaching.unlabeled.targets:
        raise ConfigError(f"{who}: with unlabeled_targets (--unlabeled_targets) false it would teach nothing.")
