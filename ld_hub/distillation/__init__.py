"""What a teacher adds to a student's training: terms, the regions they look at, and recipes of them."""

from ld_hub.distillation.bins import BoxBinsKLConfig
from ld_hub.distillation.classes import ClassBCEConfig, ClassKLConfig
from ld_hub.distillation.correlation import CorrelationConfig
from ld_hub.distillation.decoded_boxes import BoxIoUConfig
from ld_hub.distillation.distiller import Committee, Distiller
from ld_hub.distillation.features import (
    ChannelKLConfig,
    FeatureMSEConfig,
    MaskedGenerationConfig,
    PearsonFeatureConfig,
)
from ld_hub.distillation.focal_global import FocalGlobalConfig
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.recipes import RECIPES, Recipe, get_recipe, list_recipes, register_recipe
from ld_hub.distillation.regions import REGIONS
from ld_hub.distillation.teach import make_teaching, recipe_of
from ld_hub.distillation.terms import TERMS, Term, TermConfig, register_term

__all__ = [
    "RECIPES",
    "REGIONS",
    "TERMS",
    "BoxBinsKLConfig",
    "BoxIoUConfig",
    "ChannelKLConfig",
    "ClassBCEConfig",
    "ClassKLConfig",
    "Committee",
    "CorrelationConfig",
    "Distiller",
    "FeatureMSEConfig",
    "FocalGlobalConfig",
    "MaskedGenerationConfig",
    "PearsonFeatureConfig",
    "Recipe",
    "Term",
    "TermConfig",
    "TermInputs",
    "get_recipe",
    "list_recipes",
    "make_teaching",
    "recipe_of",
    "register_recipe",
    "register_term",
]
