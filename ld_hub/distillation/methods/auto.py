"""The recipe we stand for: what gained most where we measured, and is not hurt by its weights (examples/unlabeled)."""

from __future__ import annotations

from ld_hub.distillation.methods import crosskd
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.terms import TermConfig

TERMS: dict[str, TermConfig] = {"cross_cls": crosskd.CrossClassConfig(), "cross_box": crosskd.CrossBoxConfig()}
register_recipe(
    Recipe(
        "auto",
        TERMS,
        "our default: classes and boxes through the teacher's head",
        paper=crosskd.PAPER.address,
        families=crosskd.FAMILIES,
    )
)
