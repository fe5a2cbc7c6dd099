"""What a recipe asks of student and teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ld_hub.distillation.distiller import Distiller
from ld_hub.distillation.recipes import Recipe
from ld_hub.errors import ConfigError
from ld_hub.structures import DetectorSpec


def needs(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe asks of student and teacher, found by setting it up for pairs that differ in one thing.

    Returns:
        In words; empty where any two detectors will do.
    """
    return tuple(what for what, changes in _PAIRS.items() if not _fits(recipe, *changes))


_SPEC = DetectorSpec(
    name="", family="gfocal", num_classes=2, label_names=("a", "b"), reg_max=16, strides=(8, 16, 32, 64, 128),
    anchors_per_cell=1, feature_channels=256, tower_channels=256, mean=(0.0,) * 3, std=(1.0,) * 3,
)  # fmt: skip
_PLAIN: dict[str, Any] = {"reg_max": None}
_POINTS: dict[str, Any] = {"family": "fcos", "points": True}
# What is missing in a pair: fields of the student, fields of the teacher
_PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bins in both": (_PLAIN, _PLAIN),
    "heads of one width": ({"tower_channels": 64}, {}),
    "pyramids of one width": ({"feature_channels": 64}, {}),
    "common classes": ({"label_names": ("c", "d")}, {}),
    "a student with anchors": (_POINTS, _POINTS),
}


def _fits(recipe: Recipe, student: dict[str, Any], teacher: dict[str, Any]) -> bool:
    try:
        Distiller(recipe).setup(replace(_SPEC, name="student", **student), replace(_SPEC, name="teacher", **teacher))
    except ConfigError:
        return False
    return True
