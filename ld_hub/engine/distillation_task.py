"""Distillation: a student, its frozen teachers, and the terms between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from ld_hub.data import DetectionSet
from ld_hub.data.tile_set import count_images
from ld_hub.distillation import Committee, Distiller, MapInputs, Recipe, TermInputs, make_teaching
from ld_hub.engine.asking import Memory, Said, Teacher, ask, head_of, maps_of
from ld_hub.engine.detection_task import full_precision, targets_of
from ld_hub.engine.identity import weights_digest
from ld_hub.engine.lesson_task import LessonTask
from ld_hub.engine.lessons import DenseLooker, Lesson, choose_thresholds, default_thresholds
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.models.feature_teacher import FeatureTeacher
from ld_hub.optim.balance import SHARE, GradientBalance
from ld_hub.optim.losses import gradient_shares
from ld_hub.structures import (
    Assignment,
    Balance,
    DenseOutput,
    FeatureTeaching,
    ImageBatch,
    ScoredTargets,
    StepCounts,
    Targets,
    Teaching,
    Unlabeled,
)

ONLY = "teacher"  # name of a single teacher
BOX_LOSSES = ("loss_bbox", "loss_dfl")  # what Individual LD replaces (LD paper, supplement, Table 1)


class DistillationTask(LessonTask):
    """Training of a student by the ground truth and by one frozen teacher, or several.

    A teacher is a detector, or an image encoder whose maps terms on features learn from. Teachers stand outside the
    module tree: they are in no state dict, no optimizer and no DDP bucket, `train()` does not reach them, and they run
    in eval mode without gradient, under the autocast of the caller.

    Args:
        student: The detector to be trained.
        teacher: A trained detector or an image encoder, or several by name.
        distiller: The terms; for several teachers a `Committee` of the same names. Set up here for the detectors.
        individual_ld: Leave loss_bbox and loss_dfl to the teachers (LD paper, supplement, Table 1).
        balance: ``"gradient"``: each term is scaled to its share of the detection loss's gradient
            (`ld_hub.optim.balance`); the training loop has to call `after_step` then.
        unlabeled: How images without labels take part, if there are any.

    Attributes:
        teachers: The frozen networks by name; a single one is called "teacher".
        balance: What scales the terms, or None.
        memories: What teachers have said before, by name; those that are in it are not asked again.

    Raises:
        ConfigError: If a teacher is the student itself or has no distiller, or `individual_ld` has no box term to rely
            on; whatever `Distiller.setup` raises for a pair that does not fit.
    """

    def __init__(
        self,
        student: DenseDetector,
        teacher: Teacher | Mapping[str, Teacher],
        distiller: Distiller | Committee,
        *,
        individual_ld: bool = False,
        balance: Balance = "none",
        unlabeled: Unlabeled | None = None,
    ) -> None:
        super().__init__(student, unlabeled)
        self.memories: dict[str, Memory] = {}
        teachers = dict(teacher) if isinstance(teacher, Mapping) else {ONLY: teacher}
        if any(one is student for one in teachers.values()):
            raise ConfigError("Teacher and student are the same object: give the teacher as a second model.")
        self.distiller, self.individual_ld = distiller, individual_ld
        self.distillers = distiller.members if isinstance(distiller, Committee) else {ONLY: distiller}
        if self.distillers.keys() != teachers.keys():
            raise ConfigError(
                f"The teachers are {', '.join(teachers)}; there are distillers for {', '.join(self.distillers)}. Each "
                "teacher needs one: several teachers are taught from by a Committee of the same names."
            )
        frozen = (teachers[name].eval().requires_grad_(False) for name in self.distillers)
        self._outside = tuple(frozen)  # a tuple hides them from nn.Module
        self.remarks, self._encoder = self._set_up(), self._find_encoder()
        if individual_ld:
            self._require_box_terms()
        if balance not in get_args(Balance):
            raise ConfigError(f"balance is {balance!r}; expected 'none' or 'gradient'.")
        self.balance = GradientBalance(distiller.shares(SHARE)) if balance == "gradient" else None
        if self.balance is None and any(term.share is not None for term in self.recipe.terms.values()):
            self.remarks.append("The shares in the recipe count with balance='gradient' only.")

    def _set_up(self) -> list[str]:
        student, specs = self.model.spec, {name: one.spec for name, one in self.teachers.items()}
        if isinstance(self.distiller, Committee):
            return self.distiller.setup(student, specs)
        return self.distiller.setup(student, specs[ONLY])

    def _find_encoder(self) -> FeatureTeaching | None:
        """The image encoder among the teachers; its terms are not the recipe's where a detector teaches by that."""
        found = {name: one for name, one in self.teachers.items() if isinstance(one, FeatureTeacher)}
        if len(found) > 1:
            raise ConfigError(f"There are {len(found)} image encoders ({', '.join(found)}); expected at most one.")
        for name, one in found.items():
            terms = self.distillers[name].recipe.to_dict()["terms"] if self.detectors else {}
            return FeatureTeaching(one.name, weights_digest(one), terms)
        return None

    def _require_box_terms(self) -> None:
        recipes = [distiller.recipe for distiller in self.distillers.values()]
        kinds = [term.kind for recipe in recipes for term in recipe.terms.values() if term.crossing is None]
        if not any(kind.startswith("box_") for kind in kinds):
            raise ConfigError(
                f"individual_ld replaces {' and '.join(BOX_LOSSES)} by a distillation term on boxes, but recipe "
                f"'{recipes[0].name}' has none on the student's own head ({', '.join(recipes[0].terms)}): 'ld'/'vlr'."
            )

    @property
    def outside(self) -> tuple[Teacher, ...]:
        """The teachers that run: those without a memory, and those through whose heads terms go."""
        needs = {name: each.needs for name, each in self.distillers.items()}
        return tuple(one for name, one in self.teachers.items() if name not in self.memories or "towers" in needs[name])

    @property
    def teachers(self) -> dict[str, Teacher]:
        """The frozen networks by name."""
        return dict(zip(self.distillers, self._outside, strict=True))

    @property
    def detectors(self) -> dict[str, DenseDetector]:
        """Those of the teachers that find boxes."""
        return {name: one for name, one in self.teachers.items() if isinstance(one, DenseDetector)}

    @property
    def taught_by(self) -> tuple[Teacher, ...]:
        """See `LessonTask.taught_by`."""
        return self._outside

    @property
    def teacher(self) -> Teacher:
        """The frozen network; of several, the first."""
        return self._outside[0]

    @property
    def recipe(self) -> Recipe:
        """What is distilled; of several teachers, the first one's recipe."""
        return next(iter(self.distillers.values())).recipe

    @property
    def teaching(self) -> Teaching:
        """See `LessonTask.teaching`."""
        distillers = list(self.distillers.values())
        teaching = make_teaching(
            self.recipe,
            individual_ld=self.individual_ld,
            balance="none" if self.balance is None else "gradient",
            teacher_scale=distillers[0].teacher_scale,
            class_map={mine: theirs for each in distillers for mine, theirs in each.class_map.items()},
            teacher_weights=self.distiller.weights if isinstance(self.distiller, Committee) else None,
        )
        origins = {teacher.name: teacher.origin for teacher in self._outside if teacher.origin}
        names = tuple(teacher.name for teacher in self._outside)
        teaching = replace(teaching, unlabeled=self.unlabeled, scored=self.scored, feature_teacher=self._encoder)
        return replace(teaching, teachers=names, origins=origins)

    def most_found(self, unknown: int) -> int:
        """See `LessonTask.most_found`; of several teachers the first one's detections count."""
        first = next(iter(self.detectors.values()), None)
        return 0 if first is None else first.postprocess_config.max_detections

    def prepare(
        self, images: DetectionSet, labelled: DetectionSet | None, config: TrainConfig, device: torch.device
    ) -> DetectionSet:
        """See `LessonTask.prepare`; of several teachers the first one's detections count, and they are asked later."""
        if not self.detectors:
            self.remarks.append(
                f"{count_images(images)} images without labels. A feature teacher finds no boxes: only its terms act "
                "on them."
            )
            return images
        name, teacher = next(iter(self.detectors.items()))
        memory = self.memories.get(name)
        if memory is None:
            teacher.to(device)
        scale, class_map = self.distillers[name].teacher_scale, self.distillers[name].class_map
        looker = DenseLooker(teacher, self.model, default_thresholds(self.model), scale, class_map, memory)
        looker.thresholds = choose_thresholds(looker, labelled, self.wanted, config)
        self._take(looker, count_images(images))
        return images

    def describe(self) -> list[str]:
        """See `LessonTask.describe`; with the recipe's table."""
        parts = [self.recipe.table()]
        if self.individual_ld:
            parts.append("Individual LD: loss_bbox and loss_dfl are left to the teacher.")
        if self.balance is not None:
            shares = ", ".join(f"{name} {share:g}" for name, share in self.distiller.shares(SHARE).items())
            parts.append(f"Balance: weights as the gradients say, as shares of the detection loss's: {shares}.")
        return [*parts, *super().describe()]

    @property
    def student(self) -> DenseDetector:
        """The trained detector, also called `model`."""
        return self.model

    @property
    def asks_labelled(self) -> bool:
        """Whether the teachers are asked about images with labels."""
        return self.unlabeled is None or self.unlabeled.labeled_terms

    def teach(self, batch: ImageBatch) -> dict[str, Said]:
        """See `LessonTask.teach`."""
        taught: dict[str, Said] = {}
        for name, teacher in self.teachers.items():
            scale, needs = self.distillers[name].teacher_scale, self.distillers[name].needs
            taught[name] = ask(teacher, batch, self.model, scale, needs, self.memories.get(name))
        return taught

    def _labelled(
        self,
        batch: ImageBatch,
        assignment: Assignment,
        counts: StepCounts,
        step: int,
        shares: bool,
        taught: Mapping[str, Said] | None,
    ) -> dict[str, Tensor]:
        """Losses and terms of images with labels; see `forward`."""
        if not self.asks_labelled:
            return super()._labelled(batch, assignment, counts, step, shares, taught)
        taught = self.teach(batch) if taught is None else taught
        student = self._predict(batch)
        inputs = self._inputs(student, targets_of(batch), assignment, counts, taught)
        with full_precision(batch.images.device):
            losses, terms = self._losses(inputs, step)
            if self.balance is not None:
                terms = self.balance(student, losses, terms, self.distiller.factors, step)
            losses = losses | terms
            if shares:
                losses |= gradient_shares(student, losses) | ({} if self.balance is None else self.balance.notes())
        return losses

    def _predict(self, batch: ImageBatch) -> DenseOutput:
        needs = frozenset().union(*(distiller.needs for distiller in self.distillers.values()))
        output: DenseOutput = self.model(batch.images, **maps_of(needs))
        return output

    def _inputs(
        self,
        student: DenseOutput,
        targets: Targets,
        assignment: Assignment,
        counts: StepCounts,
        taught: Mapping[str, Said],
    ) -> dict[str, MapInputs]:
        """What the terms of each teacher see; to be made in the precision that the networks run in (`head_of`)."""
        regions = "targets" if self.unlabeled is None else self.unlabeled.regions
        confident = isinstance(targets, ScoredTargets) and regions == "confident"
        inputs: dict[str, MapInputs] = {}
        for name, teacher in self.teachers.items():
            said = taught[name]
            if isinstance(teacher, DenseDetector) and isinstance(said, DenseOutput):
                head = head_of(teacher, said.priors)
                inputs[name] = TermInputs(
                    student, said, assignment, targets, counts, teacher_head=head, confident=confident
                )
            else:
                inputs[name] = MapInputs(student, said, assignment, targets, counts)
        return inputs

    def _losses(self, inputs: Mapping[str, MapInputs], step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses against targets, and terms, by name."""
        seen = next(iter(inputs.values()))
        counts = seen.step_counts()
        losses = self.detection_losses(seen.student, seen.targets, seen.assignment, counts)
        if self.individual_ld:
            losses = {name: value for name, value in losses.items() if name not in BOX_LOSSES}
        terms: dict[str, Tensor] = self.distiller(
            inputs if isinstance(self.distiller, Committee) else inputs[ONLY], step
        )
        return losses, terms

    def _lesson_parts(
        self, lesson: Lesson, counts: StepCounts, step: int
    ) -> tuple[DenseOutput, dict[str, Tensor], dict[str, Tensor]]:
        """See `LessonTask._lesson_parts`."""
        student = self._predict(lesson.batch)
        inputs = self._inputs(student, lesson.targets, lesson.assignment, counts, lesson.taught)
        with full_precision(lesson.batch.images.device):
            losses, terms = self._losses(inputs, step)
            if self.balance is not None:
                scales = dict(zip(self.balance.names, self.balance.scale.unbind(), strict=True))
                terms = {name: scales[name] * value for name, value in terms.items()}
        return student, losses, terms

    def begin(self, steps: int) -> None:
        """See `DetectionTask.begin`; terms may count for a share of the run."""
        self.distiller.begin(steps)

    def after_step(self) -> None:
        """See `DetectionTask.after_step`."""
        if self.balance is not None:
            self.balance.update()
