"""Trainers: what the commands `ld_hub.train` and `ld_hub.distill` run, and the way to train from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from accelerate import Accelerator

from ld_hub.data import DetectionSet
from ld_hub.data.stream_set import TrainingSet, require_files
from ld_hub.data.tile_set import cut_into_tiles, numbered
from ld_hub.data.unlabeled import without_annotations
from ld_hub.distillation import Recipe, make_teaching
from ld_hub.engine.assembly import gather, make_task, settle, usual_recipe
from ld_hub.engine.batch_trial import batch_of, find_batch
from ld_hub.engine.box_task import BoxTask
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.detection_task import DetectionTask
from ld_hub.engine.devices import make_accelerator
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.identity import Identity, differences, require_same
from ld_hub.engine.labels import fit_labels, warn_of_random_frozen_stages
from ld_hub.engine.loop import Loop
from ld_hub.engine.model_settings import apply_settings, describe_classes
from ld_hub.engine.records import RunSettings
from ld_hub.engine.remembering import Bits, CacheWanted, remember
from ld_hub.engine.reporter import describe_network, describe_teacher, table
from ld_hub.engine.requirements import require_sets
from ld_hub.engine.run_result import RunResult
from ld_hub.engine.schedule import Plan
from ld_hub.engine.showing import plain
from ld_hub.engine.train_config import TrainConfig, changed_fields
from ld_hub.errors import ConfigError, DataError
from ld_hub.hub import atomic_write
from ld_hub.models.detector import DenseDetector
from ld_hub.models.feature_teacher import FeatureTeacher
from ld_hub.registry import AUTO
from ld_hub.structures import Balance, Teaching, Unlabeled
from ld_hub.teachers.functions import Given


class Trainer:
    """Trains the task it is given; see `DetectionTrainer` and `DistillationTrainer`.

    Args:
        task: The model and its losses. The model takes over the data set's label names and category ids.
        train_dataset: Images with labels to train on; None where all are without.
        eval_dataset: Images to evaluate on, of the same classes; None never evaluates.
        config: Settings; those that the model's family has published otherwise are filled in where they are not given.
        trackers: `accelerate.tracking.GeneralTracker` objects, besides ``config.tracker``.
        attachments: Text files to be put into the run directory, by name.
        unlabeled_dataset: Images without labels to train on, or None.

    Raises:
        ConfigError: If the model has another number of classes than the data.
        DataError: If there is nothing to train on, the two data sets have different classes, or images without labels
            are evaluated on.
    """

    def __init__(
        self,
        task: DetectionTask,
        *,
        train_dataset: TrainingSet | None,
        eval_dataset: DetectionSet | None = None,
        config: TrainConfig | None = None,
        trackers: Sequence[Any] = (),
        attachments: Mapping[str, str] | None = None,
        unlabeled_dataset: DetectionSet | None = None,
    ) -> None:
        self.task, self.model = task, task.model
        self.config = apply_settings(self.model, config or TrainConfig())
        self.trackers, self.attachments = tuple(trackers), dict(attachments or {})
        self.train_dataset = self._with_objects(train_dataset)
        self.eval_dataset, self.unlabeled_dataset = eval_dataset, unlabeled_dataset
        require_sets(self.config, train_dataset, eval_dataset, unlabeled_dataset)
        if unlabeled_dataset is not None and self.config.tiling is not None:
            self.unlabeled_dataset = numbered(cut_into_tiles(unlabeled_dataset, self.config.tiling))

    def _with_objects(self, dataset: TrainingSet | None) -> TrainingSet | None:
        """The images to train on, refused if there are none."""
        if self.config.tiling is not None:
            files = require_files(dataset, "tile")
            dataset = None if files is None else cut_into_tiles(files, self.config.tiling)
        if dataset is None:
            return None
        kept = dataset.without_empty() if self.config.filter_empty else dataset
        if not len(kept):
            dropped = " with objects (filter_empty left the others out)" if len(dataset) else ""
            raise DataError(f"'{dataset.source}' has no images{dropped}: there is nothing to train on.")
        return kept

    @property
    def _images(self) -> TrainingSet:
        """The images whose passes are counted as epochs: those with labels, where there are any."""
        found = self.unlabeled_dataset if self.train_dataset is None else self.train_dataset
        if found is None:  # pragma: no cover  # refused when the trainer is made
            raise DataError("There is nothing to train on.")
        return found

    def train(self) -> RunResult:
        """Train to the end, writing to ``config.output_dir``.

        Returns:
            What came out; the model itself holds the published weights then and is in eval mode.

        Raises:
            ConfigError: If the directory holds a run already that is not the one to be resumed, or that one had other
                settings, another network, teacher, recipe or data.
            NonFiniteLossError: If a loss becomes NaN or infinite; names the term. The weights are those before.
        """
        run = RunDirectory(self.config.output_dir)
        run.claim(self.config.resume)
        accelerator = make_accelerator(
            self.config, run.path, trackers=self.trackers, find_unused=self._has_optional_parameters()
        )
        self._choose_batch(run, accelerator)
        plan = Plan.make(self.config, len(self._images), accelerator.num_processes)
        self._prepare(accelerator)
        identity = self.identity()
        loop = Loop(
            self.task,
            self.train_dataset,
            self.eval_dataset,
            plan,
            run,
            accelerator,
            identity,
            unlabeled=self.unlabeled_dataset,
        )
        loop.restore()  # also waits until every rank has looked at the directory, before the first file is there
        description = self.describe(plan, accelerator.num_processes, accelerator.mixed_precision)
        if accelerator.is_main_process:
            warn_of_random_frozen_stages(self.model)
            self._write_settings(run, plan, identity)
        accelerator.init_trackers("ld_hub", config=plain(self.config.to_dict()))
        loop.reporter.say(description)
        loop.run()
        accelerator.free_memory()
        return RunResult(
            steps=loop.step,
            seconds=loop.clock.training,
            metrics=loop.metrics,
            best_ap=loop.best.AP,
            best_step=loop.best.step,
            model_dir=run.model_dir,
            best_dir=run.best_dir if loop.best.step is not None else None,
        )

    def _choose_batch(self, run: RunDirectory, accelerator: Accelerator) -> None:
        """Find the largest batch if that is asked for; a run that is continued keeps its own."""
        if not self.config.auto_batch:
            return
        checkpoint = run.find(self.config.resume) if self.config.resume else None
        if checkpoint is not None:
            self.config = batch_of(checkpoint, self.config, accelerator.num_processes)
            return
        labelled = require_files(self.train_dataset, "auto_batch")
        if labelled is None:
            raise ConfigError("auto_batch is about images with labels, and there are none: give --unlabeled_batch.")
        images, said = find_batch(self.task, labelled, self.config, accelerator, self.unlabeled_dataset)
        self.config = replace(self.config, batch_size=images)
        accelerator.print(said)

    def _prepare(self, accelerator: Accelerator) -> None:
        """What has to be known before the first step, on every rank."""

    def describe(self, plan: Plan, processes: int = 1, precision: str = "no") -> str:
        """The table at the start of a run."""
        config, size = self.config, self.model.data_config.image_size
        evaluated = "not evaluated" if self.eval_dataset is None else f"{len(self.eval_dataset)} images to evaluate"
        kind = "images" if config.tile is None else f"tiles of {config.tile} px"
        trained = "no labels" if self.train_dataset is None else f"{len(self.train_dataset)} {kind}"
        return table(
            [
                *self._networks(),
                (
                    "data",
                    f"{trained} of {len(self.model.label_names)} classes, {evaluated}, "
                    f"{size[0]} px (longest side {size[1]} px)",
                ),
                ("augment", config.describe_augmentation(plan.steps)),
                ("batch", f"{config.batch_size} images x {config.accumulation} micro-steps x {processes} processes"),
                ("schedule", plan.describe()),
                *describe_classes(self.config),
                ("precision", {"no": "float32"}.get(precision, precision)),
                ("average", plan.describe_average()),
                ("run", config.output_dir),
            ]
        )

    def _networks(self) -> list[tuple[str, str]]:
        return [("model", describe_network(self.model))]

    def identity(self) -> Identity:
        """What is trained, and on what."""
        return Identity.of(self.model, self._images)

    def require_same(self, run: RunDirectory) -> None:
        """Check that a run which is complete is the one that this trainer would make.

        Raises:
            ConfigError: If it is another one; names what differs.
            CheckpointError: If its config.json cannot be read.
        """
        then = RunSettings.from_dict(run.settings(), f"'{run.config_file}'")
        changed = changed_fields(then.config, self.config)
        require_same({**changed, **differences(then.identity.to_dict(), self.identity().to_dict())}, str(run.path))

    def _write_settings(self, run: RunDirectory, plan: Plan, identity: Identity) -> None:
        settings = RunSettings(
            config=self.config,
            identity=identity,
            steps=plan.steps,
            images_per_step=plan.global_batch,
            peak_lr=plan.peak_lr,
            train_annotations=str(self._images.annotation_file),
            eval_annotations=None if self.eval_dataset is None else str(self.eval_dataset.annotation_file),
        )
        run.path.mkdir(parents=True, exist_ok=True)
        run.clean()
        run.write_json(run.config_file, settings.to_dict())
        for name, text in self.attachments.items():
            atomic_write(run.path / name, text)

    def _has_optional_parameters(self) -> bool:
        """Whether some parameters may get no gradient in a step (those of terms that are not always active)."""
        return False


class DetectionTrainer(Trainer):
    """Plain training of a detector.

    Args:
        model: Detector of the data's classes.
        train_dataset: See `Trainer`, also for all other arguments.
        eval_dataset: See `Trainer`.
        config: See `Trainer`.
        trackers: See `Trainer`.
        attachments: See `Trainer`.
    """

    def __init__(
        self,
        model: DenseDetector,
        *,
        train_dataset: TrainingSet,
        eval_dataset: DetectionSet | None = None,
        config: TrainConfig | None = None,
        trackers: Sequence[Any] = (),
        attachments: Mapping[str, str] | None = None,
    ) -> None:
        fit_labels(model, train_dataset)
        super().__init__(
            DetectionTask(model),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            config=config,
            trackers=trackers,
            attachments=attachments,
        )


class DistillationTrainer(Trainer):
    """Training of a student by the ground truth and a frozen teacher.

    Args:
        student: Detector of the data's classes.
        teacher: Trained detector, or several by name. Classes correspond by name; terms on classes need a common one.
            Or what only detects, and teaches by its boxes on images without labels: `ld_hub.teachers.load_teacher`'s,
            or a function of PIL images (`ld_hub.teachers.functions.FunctionTeacher`). None where a feature teacher
            teaches alone.
        recipe: Registered name (`list_recipes`) or recipe; the same for all teachers. ``"auto"`` where not given, and
            ``"cosine"`` for a feature teacher alone; a teacher that only detects takes none.
        feature_teacher: An image encoder that teaches features: a name in timm, or a `FeatureTeacher`. Beside a
            detector it teaches by the recipe ``"cosine"``, with a weight in `teacher_weights` under its name.
        teaching: All that the arguments from here to `teacher_weights` say, in one; they are left out then.
        reference: ``"ld"`` or ``"bckd"`` for the published computation of that code base in every loss; None for
            the sound default, which does not depend on how a batch is split.
        individual_ld: Leave loss_bbox and loss_dfl to the teacher (LD paper, supplement, Table 1).
        balance: ``"gradient"`` scales each term so that its gradient is a set share of the detection loss's
            (`TermConfig.share`), whatever its weight; ``"none"`` takes the weights as they are.
        teacher_scale: Size of a teacher's images over the student's; see `Distiller`.
        class_map: The teacher's name of classes that the student calls otherwise; with several teachers an entry
            counts for those that have the class.
        teacher_weights: With several teachers: factor of each one's terms; 1 for those that are not named.
        unlabeled: How `unlabeled_dataset` takes part; the defaults of `Unlabeled` where not given.
        cache_teacher: Ask the teachers once about each image, and read what they said from this directory in every
            step; ``"auto"`` for one that the library chooses (`CacheWanted`).
        cache_bits: 8 or 32, of what is kept.
        unlabeled_dataset: Images without labels (`ld_hub.data.load_unlabeled`, or any data set, whose annotations are
            not looked at); `train_dataset` may be None then. Of several teachers the first one's detections count.
        train_dataset: See `Trainer`, also for all other arguments.
        eval_dataset: See `Trainer`.
        config: See `Trainer`.
        trackers: See `Trainer`.
        attachments: See `Trainer`.
    """

    task: DistillationTask | BoxTask

    def __init__(
        self,
        student: DenseDetector,
        teacher: Given | None = None,
        recipe: str | Recipe | None = None,
        *,
        feature_teacher: FeatureTeacher | str | None = None,
        teaching: Teaching | None = None,
        reference: str | None = None,
        individual_ld: bool = False,
        balance: Balance = "none",
        teacher_scale: float = 1.0,
        class_map: Mapping[str, str] | None = None,
        teacher_weights: Mapping[str, float] | None = None,
        unlabeled: Unlabeled | None = None,
        cache_teacher: str | None = None,
        cache_bits: Bits = 8,
        unlabeled_dataset: DetectionSet | None = None,
        train_dataset: TrainingSet | None = None,
        eval_dataset: DetectionSet | None = None,
        config: TrainConfig | None = None,
        trackers: Sequence[Any] = (),
        attachments: Mapping[str, str] | None = None,
    ) -> None:
        who = gather(student, teacher, feature_teacher)
        given = make_teaching(
            usual_recipe(who) if recipe is None or recipe == AUTO else recipe,
            reference=reference,
            individual_ld=individual_ld,
            balance=balance,
            teacher_scale=teacher_scale,
            class_map=class_map,
            teacher_weights=teacher_weights,
            unlabeled=unlabeled,
        )
        teaching = settle(teaching, given, who, unlabeled=unlabeled_dataset is not None)
        known = eval_dataset if train_dataset is None else train_dataset
        if known is not None:
            fit_labels(student, known)
        self.cache = None if cache_teacher is None else CacheWanted(cache_teacher, cache_bits)
        task = make_task(student, who, teaching)
        config = config or TrainConfig()
        if train_dataset is None and teaching.unlabeled is not None:
            config = replace(config, batch_size=teaching.unlabeled.batch)
        if teaching.reference is not None and config.ema == "auto" and config.ema_decay is None:
            config = replace(config, ema="off")  # as published
        super().__init__(
            task,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            config=config,
            trackers=trackers,
            attachments=attachments,
            unlabeled_dataset=None if unlabeled_dataset is None else task.known(without_annotations(unlabeled_dataset)),
        )
        student.teaching = task.teaching  # saved with it

    def describe(self, plan: Plan, processes: int = 1, precision: str = "no") -> str:
        """The table at the start of a run, with the recipe's."""
        return "\n\n".join([super().describe(plan, processes, precision), *self.task.describe()])

    def _prepare(self, accelerator: Accelerator) -> None:
        """Ask the teachers what is asked once, and find out which scores count on images without labels."""
        if self.cache is not None:
            datasets = require_files(self.train_dataset, "cache_teacher"), self.unlabeled_dataset
            self.train_dataset, self.unlabeled_dataset = remember(
                self.task, self.cache, datasets, self.config, accelerator
            )
        if self.unlabeled_dataset is None:
            return
        labelled = require_files(self.train_dataset, "unlabeled_dataset (--unlabeled)")
        self.unlabeled_dataset = self.task.prepare(self.unlabeled_dataset, labelled, self.config, accelerator.device)
        self.model.teaching = self.task.teaching  # with what was found

    def _networks(self) -> list[tuple[str, str]]:
        teachers = [("teacher", describe_teacher(teacher)) for teacher in self.task.taught_by]
        return [("student", describe_network(self.model)), *teachers]

    def identity(self) -> Identity:
        """See `Trainer.identity`; with the teachers and what they teach."""
        task, bits = self.task, None if self.cache is None else self.cache.bits
        return Identity.of(self.model, self._images, task.taught_by, task.teaching, self.unlabeled_dataset, bits)

    def _has_optional_parameters(self) -> bool:
        distiller = self.task.distiller if isinstance(self.task, DistillationTask) else None
        return distiller is not None and any(parameter.requires_grad for parameter in distiller.parameters())
