"""The commands `ld_hub.train` and `ld_hub.distill`: flags in, a run directory out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ld_hub import catalog
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError, LdHubError
from ld_hub.launch.arguments import (
    ComparisonArguments,
    DistillArguments,
    HubArguments,
    ModelArguments,
    TeacherArguments,
    TrialArguments,
    UnlabeledArguments,
)
from ld_hub.launch.box_teachers import refuse_boxes, require_boxes
from ld_hub.launch.closing import left_together, next_commands
from ld_hub.launch.data_arguments import DataArguments
from ld_hub.launch.early import require_files, require_layout, require_start, require_terms
from ld_hub.launch.flag_parser import Command, Parsed, RecipeFlags, parse
from ld_hub.launch.habits import in_our_words
from ld_hub.launch.imports import import_attachments, import_changes
from ld_hub.launch.recipe_files import BOXES_ALONE, find_recipe, recipe_flags
from ld_hub.models.names import find, require_backbone, require_model, split_tag
from ld_hub.plugins import load_plugins
from ld_hub.preprocessing.augmentation import AugmentationFlags
from ld_hub.registry import AUTO, FEATURE_RECIPE, ModelEntry
from ld_hub.teachers.kinds import find_kind, load_teacher

if TYPE_CHECKING:
    from ld_hub.analysis.comparison import Comparison
    from ld_hub.distillation import Recipe
    from ld_hub.engine.run_result import RunResult
    from ld_hub.engine.trainer import Trainer
    from ld_hub.models.detector import DenseDetector
    from ld_hub.structures import Teaching, Unlabeled

TRAIN = Command(
    program="ld_hub.train",
    summary=(
        "Train a detector on COCO, PASCAL VOC or YOLO data. --flag alone means true for flags of true or false. Flags "
        "of transformers' Trainer and timm's train.py that mean the same are taken, too."
    ),
    name_help="Model to train: `ld-hub list` shows all.",
    groups=(DataArguments, ModelArguments, AugmentationFlags, TrainConfig, HubArguments, TrialArguments),
    examples="""examples:
  accelerate launch -m ld_hub.train gfocal_r50 --data coco/ --epochs 12
  ... --schedule 2x --short_sides 480 800          multi-scale, as the teachers
  ... --augment strong --mixup 0                   more of few images
  ... --data VOCdevkit/ --schedule voc             VOC 07+12, as published
  ... --resume                                     continue an interrupted run
  ... --dry_run                                    try it, nothing is written
  ... --finetune_from runs/r50/model --data mine/  fine-tune on other classes
  ... --pretrained_backbone false                  nothing is downloaded""",
)
DISTILL = Command(
    program="ld_hub.distill",
    summary=(
        "Train a student on COCO, PASCAL VOC or YOLO data with the help of a trained teacher. --flag alone means true "
        "for flags that are true or false. --terms.TERM.FIELD changes the recipe; the terms shown are those of the "
        "recipe given."
    ),
    name_help=(
        "Distilled model (gfocal_r18_ld_r101: student gfocal_r18, recipe ld, teacher gfocal_r101), or any model, "
        "with --teacher. `ld-hub list` shows all."
    ),
    groups=(
        DataArguments,
        ModelArguments,
        DistillArguments,
        UnlabeledArguments,
        ComparisonArguments,
        TeacherArguments,
        AugmentationFlags,
        TrainConfig,
        HubArguments,
        TrialArguments,
    ),
    examples="""examples:
  accelerate launch -m ld_hub.distill gfocal_r18_ld_r101 --data coco/ \\
      --teacher runs/gfocal_r101/model
  ... --data mine/ --train_teacher            other classes: teacher first
  ... --data mine/ --teacher runs/r101/model  a teacher of these classes
  ... --recipe vlr --terms.ld.weight 2        another recipe, changed
  ... --recipe mine.yaml --balance gradient   a recipe of your own, balanced
  ... --import my_method.py --recipe mine     a term of your own, in Python
  ... --teacher runs/a/model,runs/b/model     two teachers
  ... --data mine/ --unlabeled photos/        few labels, and many photographs
  ... --feature_teacher convnext_tiny         an image encoder teaches, too
  ... --unlabeled photos/ --teacher boxes.json  taught by boxes of whatever
  ... --unlabeled photos/ --teacher hf:ORG/NAME  by a detector of transformers
  ... --data mine/ --cache_teacher auto       the teacher is asked once
  ... --data mine/ --compare_alone --seeds 3  what the teacher is worth
  ... --config arguments.yaml --resume        flags from a file that a run wrote""",
    more={"recipe": f"Registered: {', '.join(catalog.recipes())}; `ld-hub recipes` says what they are."},
)


def train(argv: Sequence[str]) -> int:
    """Run `ld_hub.train` and return its exit code.

    Args:
        argv: Arguments after the program's name.

    Raises:
        LdHubError: For everything a user can cause.
    """
    parsed = parse(TRAIN, in_our_words(load_plugins(argv), _say))
    config = require_start(parsed)
    require_layout(parsed)

    from ld_hub.engine.trainer import DetectionTrainer
    from ld_hub.launch.start import build_model, load_data, seed_weights

    training, evaluation = load_data(parsed.of(DataArguments), outlines=config.augmentation.copy_paste > 0)
    seed_weights(config)
    resuming = RunDirectory(config.output_dir).resumes(config.resume)
    model = build_model(parsed.name, parsed.of(ModelArguments), training, _say, resuming=resuming)
    trainer = DetectionTrainer(
        model,
        train_dataset=training,
        eval_dataset=evaluation,
        config=config,
        attachments=_attachments(parsed, config, argv),
    )
    if parsed.of(TrialArguments).dry_run:
        return _rehearse(trainer)
    with left_together():
        result = trainer.train()
    return _finish(result, parsed)


def distill(argv: Sequence[str]) -> int:
    """Run `ld_hub.distill` and return its exit code; see `train`."""
    typed = parse_distill(in_our_words(load_plugins(argv), _say))
    config = typed.require()
    parsed, recipe = typed.parsed, typed.make_recipe()

    from ld_hub.launch.beside import Students
    from ld_hub.launch.start import load_images, load_parts, require_known, seed_weights, skeleton, structure_of
    from ld_hub.launch.teachers import Pupil, TeacherWanted, find_feature_teacher, find_teacher, train_teacher

    flags, structure, data = parsed.of(DistillArguments), parsed.of(ModelArguments), parsed.of(DataArguments)
    trial = parsed.of(TrialArguments).dry_run
    names = [] if typed.only_detects else _teacher_names(typed.teacher, flags)
    wanted = [TeacherWanted(parsed.name, name, flags, parsed.of(TeacherArguments), data) for name in names]
    without = parsed.of(UnlabeledArguments)
    outlines = config.augmentation.copy_paste > 0
    training, evaluation = load_parts(data, labels=without.train_labels, outlines=outlines)
    images = load_images(without, skip_broken=config.skip_broken)
    known = require_known(training, evaluation)
    boxes = load_teacher(typed.teacher, flags.teacher_checkpoint) if typed.only_detects else None
    if flags.train_teacher:
        if training is None:
            raise ConfigError("--train_teacher needs images with labels: leave --train_labels false out.")
        seed = partial(seed_weights, config)
        found = [train_teacher(wanted[0], structure, training, evaluation, config, _say, seed, trial=trial)]
    else:
        shape = structure_of(structure)
        pupil = Pupil(skeleton(parsed.name, label_names=known.label_names, **shape), recipe, known)
        found = [find_teacher(one, pupil) for one in wanted]
    teachers = _by_name(found)
    students = Students(
        parsed,
        training,
        evaluation,
        images,
        boxes or (found[0] if len(found) == 1 else teachers or None),
        find_feature_teacher(flags),
        _teaching(recipe, flags, list(teachers), without.wanted(config.batch_size)),
        first=config,
        attachments=_attachments(parsed, config, argv),
        commands=(DISTILL, TRAIN),
        say=_say,
    )
    if trial:
        return _rehearse(students.distilled(config))
    with left_together():
        result, comparison = students.train()
    return _finish(result, parsed, comparison)


def _teaching(
    recipe: Recipe, flags: DistillArguments, teachers: Sequence[str], unlabeled: Unlabeled | None
) -> Teaching:
    """What the flags say about the distillation; `reference` is in the recipe already."""
    from ld_hub.distillation import make_teaching

    return make_teaching(
        recipe,
        individual_ld=flags.individual_ld,
        balance=flags.balance,
        teacher_scale=flags.teacher_scale,
        class_map=flags.classes(),
        teacher_weights=flags.weights(teachers),
        unlabeled=unlabeled,
    )


@dataclass(frozen=True)
class TypedDistillation:
    """A command line of `ld_hub.distill`, before anything of it is made.

    Attributes:
        parsed: Its flags.
        recipe: Name or file of the recipe.
        teacher: Name or directory of the teacher; several are separated by commas. The empty string where an image
            encoder teaches alone.
        family: Of the student.
    """

    parsed: Parsed
    recipe: str
    teacher: str
    family: str

    @property
    def only_detects(self) -> bool:
        """Whether the teacher has boxes, classes and scores alone."""
        return self.recipe == BOXES_ALONE

    def make_recipe(self) -> Recipe:
        """The recipe, with the changes asked for.

        Raises:
            ConfigError: If a field has a value that cannot work.
        """
        reference = self.parsed.of(DistillArguments).reference
        return find_recipe(self.recipe, self.family, reference).with_terms(**self.parsed.terms)

    def require(self) -> TrainConfig:
        """Refuse what leads nowhere, before anything is read or imported; as `require_start`.

        Returns:
            The settings of the training.

        Raises:
            ConfigError: If flags exclude each other, or data or classes are not said.
            MissingFileError: If there is no such directory or file.
            UnknownNameError: If there is no such teacher.
        """
        flags = self.parsed.of(DistillArguments)
        without = self.parsed.of(UnlabeledArguments)
        config = require_start(self.parsed)
        require_terms(self.parsed.terms)
        without.require()
        self.parsed.of(ComparisonArguments).require(self.parsed.of(DataArguments), without)
        flags.classes()
        flags.require_teachers(self.teacher)
        if self.only_detects:
            require_boxes(self.teacher, flags, without)
        else:
            names = _teacher_names(self.teacher, flags)
            refuse_boxes(names)
            for name in names:
                require_model(name)
            if flags.teacher_weights is not None:
                flags.weights(names)
            if flags.cache_teacher is not None:
                self.parsed.of(TrainConfig).augmentation.require_still()
        if flags.feature_teacher is not None:
            require_backbone(flags.feature_teacher, "feature teacher")
        require_files(
            teacher_checkpoint=flags.teacher_checkpoint, feature_teacher_checkpoint=flags.feature_teacher_checkpoint
        )
        if without.train_labels:
            require_layout(self.parsed)
        return config


def parse_distill(argv: Sequence[str]) -> TypedDistillation:
    """Parse in two passes: which recipe, then its terms.

    Raises:
        ConfigError: If a flag is wrong, or nothing says who teaches.
        UnknownNameError: If there is no such model or recipe.
    """
    if any(flag in argv for flag in ("-h", "--help")):
        parse(DISTILL, argv, _flags_for_help(argv))  # prints the help and exits
    first = parse(DISTILL, argv, any_terms=True)
    entry, flags = find(split_tag(first.name)[0]), first.of(DistillArguments)
    teacher, recipe = _teacher_and_recipe(entry, flags)
    if not teacher and flags.feature_teacher is None:
        raise ConfigError(
            f"'{first.name}' is no distilled name: say who teaches, --teacher NAME or --teacher DIR, or an image "
            "encoder, --feature_teacher TIMM_NAME."
        )
    parsed = parse(DISTILL, argv, recipe_flags(recipe, entry.family, flags.reference))
    return TypedDistillation(parsed, recipe, teacher, entry.family)


def _teacher_and_recipe(entry: ModelEntry, flags: DistillArguments) -> tuple[str, str]:
    """What flags and name say about who finds boxes (the empty string: nobody), and what is taught."""
    distilled = entry.distilled
    teacher = flags.teacher or (distilled.teacher if distilled else "")
    if teacher and find_kind(teacher) is not None:
        return teacher, BOXES_ALONE
    recipe = flags.recipe or (distilled.recipe if distilled else AUTO)
    alone = not teacher and flags.feature_teacher is not None
    return teacher, FEATURE_RECIPE if alone and recipe == AUTO else recipe


def _teacher_names(given: str, flags: DistillArguments) -> list[str]:
    names = [given] if given and Path(given).is_dir() else [name.strip() for name in given.split(",") if name.strip()]
    if len(names) > 1 and (flags.train_teacher or flags.teacher_checkpoint is not None):
        flag = "--train_teacher" if flags.train_teacher else "--teacher_checkpoint"
        raise ConfigError(f"{flag} is for a single teacher; --teacher names {len(names)}: {', '.join(names)}.")
    return names


def _by_name(teachers: Sequence[DenseDetector]) -> dict[str, DenseDetector]:
    """The teachers by their models' names, numbered from 1 on where one occurs twice."""
    names = [teacher.name for teacher in teachers]
    counts = [names[: i + 1].count(name) for i, name in enumerate(names)]
    keys = [f"{name}_{count}" if names.count(name) > 1 else name for name, count in zip(names, counts, strict=True)]
    return dict(zip(keys, teachers, strict=True))


def _flags_for_help(argv: Sequence[str]) -> RecipeFlags:
    """The terms that the help shows; what the rest of the command line says does not matter."""
    try:
        first = parse(DISTILL, argv, any_terms=True)
        entry = find(split_tag(first.name)[0])
        return recipe_flags(_teacher_and_recipe(entry, first.of(DistillArguments))[1], entry.family)
    except LdHubError:
        return recipe_flags(AUTO, "gfocal")


def _attachments(parsed: Parsed, config: TrainConfig, argv: Sequence[str]) -> dict[str, str]:
    """What the run directory gets beside the trainer's own files."""
    from ld_hub.launch.command_line import COMMAND_NAME, with_this_start

    run = Path(config.output_dir)
    if config.resume and RunDirectory(run).has_run():
        for change in import_changes(run):
            _say(change)
    command = with_this_start(run, argv)
    return {
        "arguments.yaml": parsed.yaml,
        **import_attachments(),
        **({} if command is None else {COMMAND_NAME: command}),
    }


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(text, flush=True)


def _rehearse(trainer: Trainer) -> int:
    """Try a run instead of making it."""
    from ld_hub.engine.devices import end_processes
    from ld_hub.launch.rehearsal import rehearse

    _say(rehearse(trainer))
    end_processes()
    return 0


def _finish(result: RunResult, parsed: Parsed, comparison: Comparison | None = None) -> int:
    """Say what came out, end the processes' group, and publish the model if it was asked for."""
    if result.metrics is not None:
        _say(f"\n{result.metrics}")
    if result.best_dir is not None and result.best_ap is not None:
        _say(f"best: AP {100 * result.best_ap:.1f} after step {result.best_step}, in {result.best_dir}")
    _say(f"model: {result.model_dir} ({result.steps} steps, {result.seconds:.0f} s of training)")
    if comparison is not None:
        from ld_hub.hub.evidence import COMPARISON_NAME

        _say(f"\n{comparison.table()}\nnumbers: {result.model_dir.parent / COMPARISON_NAME}")

    from ld_hub.engine.devices import end_processes

    end_processes()
    flags = parsed.of(HubArguments)
    if flags.hub_model_id is not None and os.environ.get("RANK", "0") == "0":
        from ld_hub.publishing.runs import publish_run

        options = {"pictures": flags.hub_pictures, "private": flags.hub_private, "license": flags.hub_license}
        publish_run(result.model_dir.parent, flags.hub_model_id, say=_say, **options)
    tile = parsed.values["tile"]
    tiling = [] if tile is None else ["--tile", str(tile), "--overlap", str(parsed.values["overlap"])]
    _say(next_commands(result.best_dir or result.model_dir, parsed.of(DataArguments), tiling))
    return 0
