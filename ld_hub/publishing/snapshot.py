"""The catalogue of names, written from the registries: ``python -m ld_hub.publishing.snapshot``.

To be run after anything has been registered or renamed in the package; `tests/test_catalog.py` tells when it is due.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import warnings
from dataclasses import asdict
from typing import Any

import torch

import ld_hub.models
from ld_hub import catalog
from ld_hub.benchmark.profile import facts_of
from ld_hub.catalog import ModelFacts, RecipeEntry
from ld_hub.distillation import REGIONS, TERMS, Recipe, get_recipe, list_recipes
from ld_hub.distillation.needs import needs
from ld_hub.fields import config_fields, hint_text
from ld_hub.hub import atomic_write
from ld_hub.models.factory import create_model
from ld_hub.models.short_names import SHORT_NAMES
from ld_hub.registry import MODELS, ModelEntry

REFERENCES = ("ld", "bckd")


def snapshot(models: dict[str, ModelEntry], recipes: dict[str, Recipe]) -> dict[str, Any]:
    """The content of the catalogue.

    Args:
        models: Registered models.
        recipes: Registered recipes.
    """
    families = sorted({entry.family for entry in models.values()})
    return {
        "models": {name: entry.to_dict() for name, entry in models.items()},
        "facts": {name: asdict(facts) for name, facts in all_facts(models).items()},
        "recipes": {name: recipe_entry(recipe, families).to_dict() for name, recipe in recipes.items()},
        "terms": {
            kind: {
                each.name: {"hint": hint_text(each.hint), "text": each.text}
                for each in config_fields(TERMS[kind].config_class)
            }
            for kind in TERMS
        },
        "regions": list(REGIONS),
        "backbones": list(SHORT_NAMES),
    }


def package_models() -> dict[str, ModelEntry]:
    """The models that this package's own families register; the families are imported for it."""
    for module in pkgutil.iter_modules(ld_hub.models.__path__, "ld_hub.models."):
        importlib.import_module(module.name)
    entries = {name: MODELS[name] for name in MODELS}
    return {
        name: entry
        for name, entry in entries.items()
        if entry.built_by.startswith("ld_hub.models.") and not isinstance(entry.builder, str)
    }


def package_recipes() -> dict[str, Recipe]:
    """The recipes of this package."""
    return {name: get_recipe(name) for name in list_recipes()}


def all_facts(models: dict[str, ModelEntry]) -> dict[str, ModelFacts]:
    """What models are, by name, or ``name.tag`` where a tag changes anything; distilled names are as their students."""
    facts: dict[str, ModelFacts] = {}
    for name, entry in models.items():
        if entry.distilled is None:
            facts[name] = built_facts(name)
    for name, entry in models.items():
        plain = facts[name if entry.distilled is None else entry.distilled.student]
        for tag, cfg in entry.pretrained.items():
            if cfg.config or cfg.data_config or cfg.label_names or cfg.num_classes != 80:
                own = built_facts(f"{name}.{tag}")
                if asdict(own) != {**asdict(plain), "name": own.name}:
                    facts[f"{name}.{tag}"] = own
    return facts


def built_facts(full_name: str) -> ModelFacts:
    """What a model is, from the model itself, built without memory for its weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fresh weights")  # none are wanted here
        return facts_of(create_model(full_name))


def recipe_entry(recipe: Recipe, families: list[str]) -> RecipeEntry:
    """A recipe as the catalogue holds it.

    Args:
        recipe: As registered.
        families: Of students.
    """
    plain = recipe.to_dict()["terms"]
    variants = {}
    for family in families:
        own = recipe.for_family(family)
        for reference in (None, *REFERENCES):
            terms = (own if reference is None else own.published(reference)).to_dict()["terms"]
            differs = {
                name: {key: value for key, value in values.items() if value != plain[name][key]}
                for name, values in terms.items()
                if values != plain[name]
            }
            if differs:
                variants[catalog.variant(family, reference)] = differs
    return RecipeEntry(recipe.name, recipe.summary, recipe.paper, needs(recipe), plain, variants)


def main() -> int:
    """Write the catalogue and return the exit code."""
    print("building every model on the meta device, about a minute ...", flush=True)
    text = json.dumps(snapshot(package_models(), package_recipes()), indent=1, ensure_ascii=False)
    atomic_write(catalog.FILE, text + "\n")
    print(f"written: {catalog.FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
