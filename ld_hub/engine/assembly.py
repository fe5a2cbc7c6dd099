"""A teaching put to work: its terms, and the task of a student and its teachers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ld_hub.distillation import Committee, Distiller, Recipe, get_recipe, make_teaching, recipe_of
from ld_hub.distillation.recipes import SCORED_TARGETS
from ld_hub.engine.asking import Teacher
from ld_hub.engine.box_task import BoxTask
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.models.feature_teacher import FeatureTeacher, create_feature_teacher
from ld_hub.registry import AUTO, FEATURE_RECIPE
from ld_hub.structures import Teaching, Unlabeled
from ld_hub.teachers.box_teacher import BoxTeacher
from ld_hub.teachers.functions import Given, settled


def gather(
    student: DenseDetector, teacher: Given | None, encoder: FeatureTeacher | str | None
) -> Teacher | Mapping[str, Teacher] | BoxTeacher:
    """All teachers of a student, the image encoder last.

    Args:
        student: The detector to be trained.
        teacher: Who finds boxes, as `DistillationTrainer` takes it; None where nobody does.
        encoder: An image encoder, or its name in timm, whose weights are fetched once; None where there is none.

    Raises:
        ConfigError: If there is neither, or an encoder beside a teacher that only detects; whatever
            `create_feature_teacher` raises.
    """
    who = None if teacher is None else settled(teacher)
    if encoder is None:
        if who is None:
            raise ConfigError("Nobody teaches: give a teacher, a feature_teacher, or both.")
        return who
    if isinstance(who, BoxTeacher):
        raise ConfigError(
            f"Teacher '{who.name}' ({who.kind}) only detects, and teaches alone; a feature_teacher (--feature_teacher) "
            "stands beside a detector of this library. Leave one of the two out."
        )
    if isinstance(encoder, str):
        encoder = create_feature_teacher(encoder, in_chans=student.data_config.channels)
    if who is None:
        return encoder
    return {**(who if isinstance(who, Mapping) else {who.name: who}), encoder.name: encoder}


def usual_recipe(teacher: Teacher | Mapping[str, Teacher] | BoxTeacher) -> Recipe:
    """What is taught where nobody says it, or ``"auto"``: what suits the teacher.

    Args:
        teacher: Of `gather`.
    """
    if isinstance(teacher, BoxTeacher):
        return SCORED_TARGETS
    return get_recipe(FEATURE_RECIPE if isinstance(teacher, FeatureTeacher) else AUTO)


def settle(
    teaching: Teaching | None,
    given: Teaching,
    teacher: Teacher | Mapping[str, Teacher] | BoxTeacher,
    *,
    unlabeled: bool,
) -> Teaching:
    """The one teaching of a trainer that was given one, or the arguments of one.

    Args:
        teaching: As a whole, or None.
        given: Of the arguments.
        teacher: Of `gather`.
        unlabeled: Whether there are images without labels.

    Raises:
        ConfigError: If both say something, or images without labels are spoken of and not there.
    """
    if teaching is None:
        teaching = given
    elif given != make_teaching(usual_recipe(teacher)):
        raise ConfigError("teaching says everything about what is taught: leave recipe and its options out.")
    if unlabeled:
        wanted = teaching.unlabeled or Unlabeled()
        return replace(teaching, unlabeled=_without_boxes(wanted) if isinstance(teacher, FeatureTeacher) else wanted)
    if teaching.unlabeled is not None:
        raise ConfigError("unlabeled says how images without labels take part: give them, unlabeled_dataset=.")
    return teaching


def _without_boxes(wanted: Unlabeled) -> Unlabeled:
    """The same where no teacher finds boxes: images without labels have no targets then, and terms act on them.

    Raises:
        ConfigError: If something is asked for that needs boxes.
    """
    for name, usual in {"threshold": None, "unsure": None, "per_class": False, "regions": "targets"}.items():
        if getattr(wanted, name) != usual:
            raise ConfigError(
                f"unlabeled_{name} is {getattr(wanted, name)!r}, which is about a teacher's detections; a feature "
                "teacher alone has none. Leave it out, or give a detector as a teacher beside it."
            )
    return replace(wanted, targets=False)


def make_task(
    student: DenseDetector, teacher: Teacher | Mapping[str, Teacher] | BoxTeacher, teaching: Teaching
) -> DistillationTask | BoxTask:
    """The task of a student, whose losses become those of the teaching's code base, if it follows one.

    Args:
        student: The detector to be trained.
        teacher: Of `gather`.
        teaching: What is taught.

    Raises:
        ConfigError: As `DistillationTask`, `BoxTask` and `make_distiller`.
    """
    if isinstance(teacher, BoxTeacher):
        return BoxTask(student, teacher, teaching)
    if teaching.reference is not None:  # also of a recipe that was made by `Recipe.published`
        student.criterion = student.criterion.published(
            student.coder, teaching.reference, distilling=True, box_loss=student.criterion.box_loss
        )
    return DistillationTask(
        student,
        teacher,
        make_distiller(teacher, teaching),
        individual_ld=teaching.individual_ld,
        balance=teaching.balance,
        unlabeled=teaching.unlabeled,
    )


def make_distiller(teacher: Teacher | Mapping[str, Teacher], teaching: Teaching) -> Distiller | Committee:
    """The terms of a teaching, for one teacher or for several.

    Args:
        teacher: Of `gather`.
        teaching: What is taught.

    Raises:
        ConfigError: If there are weights for a single teacher, or `class_map` names a class that no teacher has.
    """
    recipe, scale = recipe_of(teaching), teaching.teacher_scale
    if not isinstance(teacher, Mapping):
        if teaching.teacher_weights:
            raise ConfigError("teacher_weights are for several teachers: teacher={'a': ..., 'b': ...}.")
        return Distiller(recipe, teacher_scale=scale, class_map=teaching.class_map)
    known = {name for one in teacher.values() if isinstance(one, DenseDetector) for name in one.label_names}
    distillers = {}
    for name, one in teacher.items():
        if isinstance(one, FeatureTeacher):
            distillers[name] = Distiller(_feature_recipe(teaching), teacher_scale=scale)
            continue
        # an entry that no teacher has stays, for the first one's distiller to refuse
        own = {m: t for m, t in teaching.class_map.items() if t in one.label_names or t not in known}
        distillers[name] = Distiller(recipe, teacher_scale=scale, class_map=own)
    return Committee(distillers, teaching.teacher_weights)


def _feature_recipe(teaching: Teaching) -> Recipe:
    """What an image encoder teaches beside a detector."""
    encoder = teaching.feature_teacher
    if encoder is None or not encoder.terms:
        return get_recipe(FEATURE_RECIPE)
    return Recipe.from_dict({"name": FEATURE_RECIPE, "terms": encoder.terms})
