"""A teacher that only detects, on the command line: what is refused before anything is read or imported."""

from __future__ import annotations

from collections.abc import Sequence

from ld_hub.errors import ConfigError
from ld_hub.launch.arguments import DistillArguments, UnlabeledArguments
from ld_hub.launch.recipe_files import BOXES_ALONE
from ld_hub.registry import AUTO
from ld_hub.teachers.kinds import find_kind


def require_boxes(teacher: str, flags: DistillArguments, unlabeled: UnlabeledArguments) -> None:
    """Refuse what such a teacher cannot do; its kind looks at its name.

    Args:
        teacher: As given.
        flags: About the distillation.
        unlabeled: About images without labels.

    Raises:
        ConfigError: If there is a recipe, several teachers, no images without labels, or weights for a teacher that
            has its own; names the flag.
        LdHubError: If there is no such teacher.
    """
    kind = find_kind(teacher)
    if kind is None:
        raise ConfigError(f"'{teacher}' is no teacher that only detects: the recipe '{BOXES_ALONE}' is for those.")
    kind.require(teacher)
    who = f"The teacher '{teacher}' only detects: it has boxes, classes and scores"
    if flags.recipe not in (None, AUTO, BOXES_ALONE):
        raise ConfigError(
            f"{who}, and recipes compare rows or maps of two detectors of this library. Leave --recipe {flags.recipe} "
            "out: its boxes on images without labels then are targets, weighted by their scores."
        )
    if flags.train_teacher:
        raise ConfigError(f"{who}; --train_teacher trains a detector of this library: give its name as --teacher.")
    if flags.feature_teacher is not None:
        raise ConfigError(f"{who}, and teaches alone: leave --feature_teacher out, or --teacher.")
    if flags.reference is not None:
        raise ConfigError(f"{who}; --reference is about a recipe's terms: leave it out.")
    if unlabeled.unlabeled is None:
        raise ConfigError(f"{who}, which teach on images without labels: give some, --unlabeled DIR.")
    if flags.teacher_checkpoint is not None and not kind.takes_weights:
        raise ConfigError(f"{who} of its own: leave --teacher_checkpoint out.")


def refuse_boxes(teachers: Sequence[str]) -> None:
    """Refuse a teacher that only detects beside others.

    Args:
        teachers: As given.

    Raises:
        ConfigError: If one of them only detects.
    """
    found = next((name for name in teachers if find_kind(name) is not None), None)
    if found is not None:
        raise ConfigError(
            f"The teacher '{found}' only detects, and such a teacher teaches alone: leave the others out."
        )
