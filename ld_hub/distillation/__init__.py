"""What a teacher adds to a student's training: terms, the regions they look at, and recipes of them."""

from ld_hub.distillation.distiller import Committee, Distiller
from ld_hub.distillation.inputs import MapInputs, TermInputs
from ld_hub.distillation.methods.bckd import BoxIoUConfig, ClassBCEConfig
from ld_hub.distillation.methods.cwd import ChannelKLConfig
from ld_hub.distillation.methods.dist_kd import CorrelationConfig
from ld_hub.distillation.methods.fgd import FocalGlobalConfig
from ld_hub.distillation.methods.imitation import FeatureMSEConfig
from ld_hub.distillation.methods.kd import ClassKLConfig
from ld_hub.distillation.methods.ld import BoxBinsKLConfig
from ld_hub.distillation.methods.mgd import MaskedGenerationConfig
from ld_hub.distillation.methods.pkd import PearsonFeatureConfig
from ld_hub.distillation.recipes import Recipe, get_recipe, list_recipes, register_recipe
from ld_hub.distillation.regions import REGIONS, register_region
from ld_hub.distillation.teach import make_teaching, recipe_of
from ld_hub.distillation.terms import TERMS, Term, TermConfig, register_term
from ld_hub.registry import RECIPES

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
    "MapInputs",
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
    "register_region",
    "register_term",
]
