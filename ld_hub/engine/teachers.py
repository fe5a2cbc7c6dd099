"""Where the teacher of a distillation comes from: a directory, published weights, or a training run of its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ld_hub.data import DetectionSet
from ld_hub.engine.arguments import DataArguments, DistillArguments, ModelArguments, TeacherArguments
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.config import TrainConfig
from ld_hub.engine.start import Say, build_model
from ld_hub.engine.trainer import DetectionTrainer
from ld_hub.errors import CheckpointError, ConfigError, HubError
from ld_hub.hub import CONFIG_NAME
from ld_hub.models.convert import load_checkpoint
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model, get_pretrained_cfg, is_model
from ld_hub.models.names import available


@dataclass(frozen=True)
class TeacherWanted:
    """What the command line says about the teacher.

    Attributes:
        student: NAME on the command line, for messages.
        name: Teacher's name or model directory.
        distill: Flags of the distillation.
        training: Flags of the teacher's own training.
        data: Flags of the data, for messages.
    """

    student: str
    name: str
    distill: DistillArguments
    training: TeacherArguments
    data: DataArguments

    @property
    def is_directory(self) -> bool:
        """Whether the teacher is a saved model."""
        return (Path(self.name) / CONFIG_NAME).is_file()

    def command(self, *flags: str) -> str:
        """This distillation as a command line, with other flags about the teacher."""
        data = {key: value for key, value in vars(self.data).items() if value != getattr(DataArguments(), key)}
        words = [self.student, *(word for key, value in data.items() for word in (f"--{key}", value)), *flags]
        return f"accelerate launch -m ld_hub.distill {shlex.join(words)}"

    def misfit(self, found: str, dataset: DetectionSet) -> ConfigError:
        """The error for a teacher of other classes, with the two commands that do."""
        name = self.name if is_model(self.name) else "TEACHER"
        data = self.command().split(" ", 5)[-1]
        return ConfigError(
            f"Teacher '{self.name}' detects {found}; '{dataset.annotation_file}' has {_classes(dataset.label_names)}. "
            "A teacher has to know the classes of the data, in the same order. Either name one that was trained on "
            f"this data (accelerate launch -m ld_hub.train {name} {data} makes runs/{name}/model):\n"
            f"  {self.command('--teacher', f'runs/{name}/model')}\n"
            f"or have it trained first:\n  {self.command('--train_teacher')}"
        )


def find_teacher(wanted: TeacherWanted, dataset: DetectionSet) -> DenseDetector:
    """Load a trained teacher of the data's classes.

    Raises:
        ConfigError: If its classes are not the data's; the message holds the two commands that do.
        HubError: If there are no published weights.
    """
    classes = dataset.label_names
    if not wanted.is_directory and wanted.distill.teacher_checkpoint is not None:
        teacher = create_model(wanted.name, label_names=classes, category_ids=dataset.category_ids)
        try:  # strictly: a teacher with a fresh class predictor could teach nothing
            load_checkpoint(teacher, wanted.distill.teacher_checkpoint)
            return teacher.eval()
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}\nWith a teacher of other classes: {wanted.command('--train_teacher')}"
            ) from None
    if not wanted.is_directory and is_model(wanted.name):
        published = get_pretrained_cfg(wanted.name)
        count = 80 if published is None else published.num_classes
        if count != len(classes):  # before anything is downloaded
            raise wanted.misfit(f"{count} classes", dataset)
    try:
        teacher = create_model(wanted.name, pretrained=True)
    except HubError as error:
        raise HubError(
            f"{error} For distillation: --teacher DIR, --teacher_checkpoint FILE, or --train_teacher."
        ) from None
    if tuple(teacher.label_names) != tuple(classes):
        raise wanted.misfit(_classes(teacher.label_names), dataset)
    return teacher


def train_teacher(
    wanted: TeacherWanted,
    student: ModelArguments,
    train: DetectionSet,
    evaluation: DetectionSet | None,
    config: TrainConfig,
    say: Say,
    seed: Callable[[], None],
) -> DenseDetector:
    """Train the teacher in ``output_dir/teacher``, or take what an earlier, resumed run has trained there.

    Args:
        wanted: Which teacher.
        student: Structure flags of the student; reg_max and anchor_scale have to be the same in both.
        train: Images to train on.
        evaluation: Images to evaluate on, or None.
        config: The student's settings.
        say: Told what the user should know.
        seed: Called before random weights are made.

    Raises:
        ConfigError: If the teacher is given as a directory, or what was trained there is another teacher, of another
            structure, or with other settings or data.
    """
    if wanted.is_directory:
        raise ConfigError(
            f"--train_teacher trains a teacher given by name; '{wanted.name}' is a trained model: leave the flag out, "
            f"or start from it: --teacher NAME --teacher_checkpoint {wanted.name}."
        )
    settings = teacher_config(wanted.training, config)
    run = RunDirectory(settings.output_dir)
    finished = bool(config.resume) and run.result_file.is_file()
    if not finished:
        say(f"first the teacher {wanted.name}, in {settings.output_dir}")
    seed()
    resuming = finished or run.resumes(settings.resume)
    speak: Say = (lambda _: None) if finished else say  # it is built once more, only to be compared
    model = build_model(wanted.name, _teacher_model(wanted, student), train, speak, resuming=resuming)
    trainer = DetectionTrainer(model, train_dataset=train, eval_dataset=evaluation, config=settings)
    if finished:
        trainer.require_same(run)
    else:
        trainer.train()
    say(f"teacher: {run.model_dir}")
    return create_model(run.model_dir)


def teacher_config(training: TeacherArguments, config: TrainConfig) -> TrainConfig:
    """The student's settings with what the ``teacher_...`` flags change."""
    length = {}
    if training.teacher_steps is not None or training.teacher_epochs is not None:
        length = {"schedule": None, "steps": training.teacher_steps, "epochs": training.teacher_epochs}
    return replace(
        config,
        output_dir=str(Path(config.output_dir) / "teacher"),
        resume=bool(config.resume),
        lr=config.lr if training.teacher_lr is None else training.teacher_lr,
        **length,  # type: ignore[arg-type]
    )


def _teacher_model(wanted: TeacherWanted, student: ModelArguments) -> ModelArguments:
    """The teacher's structure and what it starts from: a checkpoint, published weights, or its backbone's weights."""
    training, start = wanted.training, wanted.distill.teacher_checkpoint
    published = get_pretrained_cfg(wanted.name)
    plain = training.teacher_backbone is None and training.teacher_backbone_checkpoint is None
    if start is None and plain and published is not None and available(published):
        start = wanted.name
    return ModelArguments(
        backbone=training.teacher_backbone,
        reg_max=student.reg_max,
        anchor_scale=student.anchor_scale,
        pretrained_backbone=training.teacher_pretrained_backbone,
        backbone_checkpoint=training.teacher_backbone_checkpoint,
        checkpoint=start,
    )


def _classes(names: tuple[str, ...]) -> str:
    return f"{len(names)} classes ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})"
