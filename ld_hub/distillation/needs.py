"""What a recipe asks of student and teacher."""

from __future__ import annotations

from dataclasses import replace

from ld_hub.distillation.distiller import Distiller
from ld_hub.distillation.recipes import Recipe
from ld_hub.errors import ConfigError
from ld_hub.structures import DetectorSpec


def needs(recipe: Recipe) -> tuple[str, ...]:
    """What a recipe asks of student and teacher, found by setting it up for pairs that differ in one thing.

    Returns:
        In words; empty where any two detectors will do.
    """
    found = [what for what, pair in _OTHER.items() if not _fits(recipe, *pair)]
    return tuple(what for what in found if what != "bins in the teacher" or "bins in both" not in found)


_SPEC = DetectorSpec(
    name="", family="gfocal", num_classes=2, label_names=("a", "b"), reg_max=16, strides=(8, 16, 32, 64, 128),
    anchors_per_cell=1, feature_channels=256, tower_channels=256, mean=(0.0,) * 3, std=(1.0,) * 3,
)  # fmt: skip
_OTHER = {  # what is missing in a pair: another student, another teacher
    "bins in both": (replace(_SPEC, reg_max=None), _SPEC),
    "bins in the teacher": (_SPEC, replace(_SPEC, reg_max=None)),
    "pyramids of one width": (replace(_SPEC, feature_channels=64), _SPEC),
    "common classes": (replace(_SPEC, label_names=("c", "d")), _SPEC),
    "a student with anchors": (replace(_SPEC, family="fcos", points=True),) * 2,
}


def _fits(recipe: Recipe, student: DetectorSpec, teacher: DetectorSpec) -> bool:
    try:
        Distiller(recipe).setup(replace(student, name="student"), replace(teacher, name="teacher"))
    except ConfigError:
        return False
    return True
