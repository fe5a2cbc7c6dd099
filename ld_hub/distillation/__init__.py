"""What a teacher adds to a student's training: terms, the regions they look at, and recipes of them."""

from ld_hub.distillation.distiller import Distiller
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.recipes import RECIPES, Recipe, get_recipe, list_recipes, register_recipe
from ld_hub.distillation.regions import REGIONS
from ld_hub.distillation.terms import TERMS, BoxBinsKLConfig, ClassKLConfig, Term, TermConfig, register_term

__all__ = [
    "RECIPES",
    "REGIONS",
    "TERMS",
    "BoxBinsKLConfig",
    "ClassKLConfig",
    "Distiller",
    "Recipe",
    "Term",
    "TermConfig",
    "TermInputs",
    "get_recipe",
    "list_recipes",
    "register_recipe",
    "register_term",
]
