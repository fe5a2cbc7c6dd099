"""Kinds of teachers that only detect: which one a text names, and how it is made. Cheap to ask."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ld_hub.teachers
from ld_hub.errors import ConfigError
from ld_hub.registry import Registry

if TYPE_CHECKING:
    from ld_hub.teachers.box_teacher import BoxTeacher


@dataclass(frozen=True)
class Kind:
    """One kind of teachers.

    Attributes:
        fits: Whether a text names a teacher of this kind; looks at no more than the start of a file.
        require: Refuses one that cannot be made, from its text alone, without importing anything slow.
        make: Makes the teacher; the second argument is a file of its weights, or None.
        words: How one is named, for messages and the help.
        takes_weights: Whether a file of weights can be given.
    """

    fits: Callable[[str], bool]
    require: Callable[[str], None]
    make: Callable[[str, Path | None], BoxTeacher]
    words: str
    takes_weights: bool = False


KINDS: Registry[Kind] = Registry("kind of teacher")


def register_kind(name: str, kind: Kind) -> None:
    """Make a kind known to ``--teacher`` and `load_teacher`.

    Args:
        name: Of the kind.
        kind: What recognises and makes it.
    """
    KINDS.register(name, kind)


def find_kind(teacher: str) -> Kind | None:
    """The kind of teacher that a text names; None for a detector of this library, and for what is neither.

    Every module of this room is imported for it, so that a kind is known by its file and nothing else has to name it;
    at their tops they import nothing slow.

    Args:
        teacher: As given to ``--teacher``.
    """
    for module in pkgutil.iter_modules(ld_hub.teachers.__path__, "ld_hub.teachers."):
        importlib.import_module(module.name)
    return next((KINDS[name] for name in KINDS if KINDS[name].fits(teacher)), None)


def known_kinds() -> str:
    """How teachers of each kind are named, for messages."""
    find_kind("")
    return "; ".join(KINDS[name].words for name in KINDS)


def load_teacher(teacher: str | Path, checkpoint: str | Path | None = None) -> BoxTeacher:
    """Make a teacher that only detects.

    Args:
        teacher: ``"hf:org/name@revision"`` or the directory of a transformers detector; ``"torchvision:NAME@WEIGHTS"``;
            a COCO results file; or a directory of YOLO predictions.
        checkpoint: Weights of your own for one of torchvision's: a ``.safetensors`` or ``.pth`` file.

    Raises:
        ConfigError: If the text names no such teacher, or a package is missing; names it.
        LdHubError: If what it names cannot be used; names the file.
    """
    kind = find_kind(str(teacher))
    if kind is None:
        raise ConfigError(f"'{teacher}' names no teacher that only detects. Known: {known_kinds()}.")
    kind.require(str(teacher))
    if checkpoint is not None and not kind.takes_weights:
        raise ConfigError(f"'{teacher}' has its own weights or none: leave teacher_checkpoint out.")
    return kind.make(str(teacher), None if checkpoint is None else Path(checkpoint).expanduser())
