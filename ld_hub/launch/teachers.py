"""Where the teacher of a distillation comes from: a directory, published weights, or a training run of its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ld_hub.data import DetectionSet
from ld_hub.data.stream_set import TrainingSet
from ld_hub.distillation import Distiller, Recipe
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.train_config import TrainConfig
from ld_hub.engine.trainer import DetectionTrainer
from ld_hub.errors import CheckpointError, ConfigError, HubError
from ld_hub.hub import CONFIG_NAME
from ld_hub.launch.arguments import DistillArguments, ModelArguments, TeacherArguments
from ld_hub.launch.data_arguments import DataArguments
from ld_hub.launch.start import Say, build_model, skeleton
from ld_hub.models.checkpoints.convert import load_checkpoint
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.models.feature_teacher import FeatureTeacher, create_feature_teacher
from ld_hub.models.names import available, get_pretrained_cfg, is_model
from ld_hub.structures import DetectorSpec


def _flag_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


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
        given = (word for key, value in data.items() for word in (f"--{key}", _flag_value(value)))
        words = [self.student, *given, *flags]
        return f"accelerate launch -m ld_hub.distill {shlex.join(words)}"

    def misfit(self, reason: str, teacher: DetectorSpec, dataset: TrainingSet) -> ConfigError:
        """The error for a teacher whose classes do not fit the recipe, with the two commands that do."""
        name = self.name if is_model(self.name) else "TEACHER"
        data = self.command().split(" ", 5)[-1]
        return ConfigError(
            f"Teacher '{self.name}' detects {_classes(teacher.label_names)}; '{dataset.source}' has "
            f"{_classes(dataset.label_names)}. {reason} On the command line: --class_map MINE=THEIRS, or another "
            f"--recipe; or a teacher of the data's classes. Either name one that was trained on this data (accelerate "
            f"launch -m ld_hub.train {name} {data} makes runs/{name}/model):\n"
            f"  {self.command('--teacher', f'runs/{name}/model')}\n"
            f"or have it trained first:\n  {self.command('--train_teacher')}"
        )


@dataclass(frozen=True)
class Pupil:
    """Whom a teacher has to fit.

    Attributes:
        student: Its structure and classes.
        recipe: What is distilled.
        dataset: What the student is trained on.
    """

    student: DetectorSpec
    recipe: Recipe
    dataset: TrainingSet


def find_teacher(wanted: TeacherWanted, pupil: Pupil) -> DenseDetector:
    """Load a trained teacher.

    Raises:
        ConfigError: If its classes do not fit the recipe; the message holds the two commands that do.
        HubError: If there are no published weights.
    """
    if not wanted.is_directory and wanted.distill.teacher_checkpoint is not None:
        teacher = _from_checkpoint(wanted, pupil.dataset)
        check_classes(wanted, pupil, teacher.spec)
        return teacher
    if not wanted.is_directory and is_model(wanted.name):
        check_classes(wanted, pupil, published_spec(wanted.name))  # before anything is downloaded
    try:
        teacher = create_model(wanted.name, pretrained=True)
    except HubError as error:
        raise HubError(
            f"{error} For distillation: --teacher DIR, --teacher_checkpoint FILE, or --train_teacher."
        ) from None
    check_classes(wanted, pupil, teacher.spec)
    return teacher


def find_feature_teacher(flags: DistillArguments) -> FeatureTeacher | None:
    """The image encoder that was asked for, with its weights.

    Raises:
        LdHubError: Whatever `create_feature_teacher` raises.
    """
    if flags.feature_teacher is None:
        return None
    return create_feature_teacher(flags.feature_teacher, checkpoint=flags.feature_teacher_checkpoint)


def check_classes(wanted: TeacherWanted, pupil: Pupil, teacher: DetectorSpec) -> None:
    """Refuse a teacher that the recipe does not fit because of its classes alone; the trainer sees to all else.

    Raises:
        ConfigError: With the commands that do.
    """
    flags, student = wanted.distill, pupil.student
    class_map = {mine: theirs for mine, theirs in flags.classes().items() if theirs in teacher.label_names}
    only_classes = replace(student, name=teacher.name, num_classes=teacher.num_classes, label_names=teacher.label_names)
    try:
        Distiller(pupil.recipe).setup(student, student)
    except ConfigError:
        return
    try:
        Distiller(pupil.recipe, class_map=class_map).setup(student, only_classes)
    except ConfigError as error:
        raise wanted.misfit(str(error), teacher, pupil.dataset) from None


def published_spec(name: str) -> DetectorSpec:
    """The facts about a detector with its published weights, or about one of COCO's classes where there are none."""
    published = get_pretrained_cfg(name)
    labels = {} if published is None else {"num_classes": published.num_classes, "label_names": published.label_names}
    return skeleton(name, **{key: value or None for key, value in labels.items()})


def _from_checkpoint(wanted: TeacherWanted, dataset: TrainingSet) -> DenseDetector:
    """A teacher with the weights of a file: of the data's classes, or else of those that the name stands for."""
    file = str(wanted.distill.teacher_checkpoint)
    teacher = create_model(wanted.name, label_names=dataset.label_names, category_ids=dataset.category_ids)
    try:  # strictly: a teacher with a fresh class predictor could teach nothing
        load_checkpoint(teacher, file)
    except CheckpointError as error:
        teacher = create_model(wanted.name)
        try:
            load_checkpoint(teacher, file)
        except CheckpointError:
            raise CheckpointError(
                f"{error}\nWith a teacher of other classes: {wanted.command('--train_teacher')}"
            ) from None
    return teacher.eval()


def train_teacher(
    wanted: TeacherWanted,
    student: ModelArguments,
    train: TrainingSet,
    evaluation: DetectionSet | None,
    config: TrainConfig,
    say: Say,
    seed: Callable[[], None],
    *,
    trial: bool = False,
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
        trial: Make it of random numbers, instead of training it.

    Raises:
        ConfigError: If the teacher is given as a directory, or what was trained there is another teacher, of another
            structure, or with other settings or data.
        HubError: If there are published weights of it that cannot be had; names the flags that help.
    """
    if wanted.is_directory:
        raise ConfigError(
            f"--train_teacher trains a teacher given by name; '{wanted.name}' is a trained model: leave the flag out, "
            f"or start from it: --teacher NAME --teacher_checkpoint {wanted.name}."
        )
    if trial:
        fresh = replace(_teacher_model(wanted, student), pretrained_backbone=False, checkpoint=None)
        say(f"{wanted.name}: a trial makes the teacher of random numbers, the run trains it first.")
        return build_model(wanted.name, replace(fresh, backbone_checkpoint=None), train, lambda _: None).eval()
    settings = teacher_config(wanted.training, config)
    run = RunDirectory(settings.output_dir)
    finished = bool(config.resume) and run.result_file.is_file()
    if not finished:
        say(f"first the teacher {wanted.name}, in {settings.output_dir}")
    seed()
    resuming = finished or run.resumes(settings.resume)
    speak: Say = (lambda _: None) if finished else say  # it is built once more, only to be compared
    try:
        model = build_model(wanted.name, _teacher_model(wanted, student), train, speak, resuming=resuming)
    except HubError as error:
        raise HubError(
            f"{error} For --train_teacher: --teacher_checkpoint FILE, --teacher_backbone_checkpoint FILE, or "
            "--teacher_pretrained_backbone false, which starts the teacher from random numbers."
        ) from None
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
        length = {"steps": training.teacher_steps, "epochs": training.teacher_epochs}
        length |= {"schedule": None, "time_budget": None}
    return replace(
        config,
        output_dir=str(Path(config.output_dir) / "teacher"),
        resume=bool(config.resume),
        lr=config.lr if training.teacher_lr is None else training.teacher_lr,
        **length,  # type: ignore[arg-type]  # flags of several types
    )


def _teacher_model(wanted: TeacherWanted, student: ModelArguments) -> ModelArguments:
    """The teacher's structure and what it starts from: a checkpoint, published weights, or its backbone's weights."""
    training, start = wanted.training, wanted.distill.teacher_checkpoint
    published = get_pretrained_cfg(wanted.name)
    plain = training.teacher_backbone is None and training.teacher_backbone_checkpoint is None
    plain = plain and training.teacher_pretrained_backbone
    if start is None and plain and published is not None and available(published):
        start = wanted.name
    return ModelArguments(
        backbone=training.teacher_backbone,
        in_chans=student.in_chans,
        reg_max=student.reg_max,
        anchor_scale=student.anchor_scale,
        pretrained_backbone=training.teacher_pretrained_backbone,
        backbone_checkpoint=training.teacher_backbone_checkpoint,
        checkpoint=start,
    )


def _classes(names: tuple[str, ...]) -> str:
    return f"{len(names)} classes ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})"
