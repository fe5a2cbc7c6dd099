"""The recipe we stand for: what gained most where we measured, and is not hurt by its weights (examples/unlabeled)."""

from __future__ import annotations

from ld_hub.distillation.methods import crosskd
from ld_hub.distillation.recipes import Recipe, register_recipe

register_recipe(
    Recipe(
        "auto",
        crosskd.TERMS,
        "our default: classes and boxes through the teacher's head",
        paper=crosskd.PAPER.address,
        families=crosskd.FAMILIES,
    )
)
