"""The catalogue says what the registries and the built models say, and costs no import of torch."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from ld_hub import catalog
from ld_hub.distillation import REGIONS, TERMS, get_recipe, list_recipes
from ld_hub.distillation.needs import needs
from ld_hub.errors import ConfigError
from ld_hub.fields import config_fields, hint_text, parse_hint
from ld_hub.models.factory import create_model
from ld_hub.models.names import list_models, timm_architectures
from ld_hub.models.short_names import SHORT_NAMES
from ld_hub.publishing.snapshot import built_facts, package_models, package_recipes, recipe_entry, snapshot
from ld_hub.registry import MODELS, ModelEntry, ModelRegistry

FAMILIES = ("atss", "fcos", "gfocal", "retinanet")
DUE = "the catalogue is out of date: run `python -m ld_hub.publishing.snapshot`"


def test_models_of_the_catalogue_are_those_that_the_families_register():
    models = package_models()
    assert len(models) >= 90
    told = catalog.content()["models"]
    assert told == {name: entry.to_dict() | _listed(entry.to_dict()) for name, entry in models.items()}, DUE
    for name, entry in models.items():  # and it reads back as the same entry
        assert dataclasses.replace(ModelEntry.from_dict(name, told[name]), builder=entry.builder) == entry


def _listed(data: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(data, dict):
        return {key: _listed(value) for key, value in data.items()}
    return [_listed(value) for value in data] if isinstance(data, (list, tuple)) else data


def test_recipes_and_terms_of_the_catalogue_are_the_registered_ones():
    recipes = package_recipes()
    families = sorted({entry["family"] for entry in catalog.content()["models"].values()})
    assert catalog.families() == families == sorted({entry.family for entry in package_models().values()})
    assert {*FAMILIES} <= {*families}
    told = catalog.content()
    assert told["recipes"] == {name: _listed(recipe_entry(r, families).to_dict()) for name, r in recipes.items()}, DUE
    assert told["terms"] == snapshot({}, {})["terms"], DUE
    assert told["regions"] == list(REGIONS), DUE
    assert told["backbones"] == list(SHORT_NAMES), DUE


@pytest.mark.parametrize("reference", [None, "ld", "bckd"])
@pytest.mark.parametrize("family", FAMILIES)
def test_terms_for_a_family_and_a_reading(family, reference):
    for name in list_recipes():
        recipe = get_recipe(name).for_family(family)
        recipe = recipe if reference is None else recipe.published(reference)
        entry = catalog.recipes()[name]
        assert entry.terms_for(family, reference) == recipe.to_dict()["terms"]
        assert (entry.summary, entry.paper, entry.needs) == (recipe.summary, recipe.paper, needs(get_recipe(name)))
        for term in recipe.terms.values():
            assert catalog.term_fields(term.kind, vars(term)) == config_fields(type(term), vars(term))


# Every structure takes half a minute to build; the small ones and one of each family stand for all, `-m slow` for all.
SOME = ("gfocal_tiny", "gfocal_r18", "atss_r50", "fcos_r50_caffe", "retinanet_r18_bins", "gfocal_r18_vlr_r101")


@pytest.mark.parametrize("name", [*SOME, "fcos_r101_caffe.mmdet_ms2x_coco", "gfocal_r18.ld_1x_voc0712"])
def test_facts_are_those_of_the_built_model(name):
    plain, _, tag = name.partition(".")
    tags = catalog.content()["models"][plain].get("pretrained", {})
    tag = tag if tag in tags or not tag else next(iter(tags))
    full = f"{plain}.{tag}" if tag else plain
    assert catalog.model_facts(plain, tag) == dataclasses.replace(built_facts(full), name=plain), DUE


@pytest.mark.slow
def test_facts_of_every_name_and_tag_are_those_of_the_built_models():
    for name in [*list_models(), *list_models(include_tags=True)]:
        plain, _, tag = name.partition(".")
        assert catalog.model_facts(plain, tag) == dataclasses.replace(built_facts(name), name=plain), DUE


def test_every_name_has_facts():
    facts = [catalog.model_facts(name) for name in catalog.content()["models"]]
    assert None not in facts
    assert catalog.model_facts("no_such_model") is None
    tiny = catalog.model_facts("gfocal_tiny")
    model = create_model("gfocal_tiny")
    assert tiny is not None
    assert tiny.parameters == sum(p.numel() for p in model.parameters())
    assert tiny.parameters == sum(part.parameters for part in tiny.parts)
    assert tiny.multiply_adds == sum(part.multiply_adds for part in tiny.parts)


@pytest.mark.parametrize("kind", sorted(TERMS))
def test_hints_survive_their_text(kind):
    for each in config_fields(TERMS[kind].config_class):
        assert parse_hint(hint_text(each.hint)) == each.hint
        assert each.text, f"{kind}.{each.name} has no text"


def test_a_type_that_is_no_simple_one_is_refused():
    with pytest.raises(TypeError, match="no simple type"):
        hint_text(dict[str, int])


def test_timm_names_read_from_its_source_are_timms():
    import timm

    assert timm_architectures() == set(timm.list_models())


def registry() -> ModelRegistry:
    return ModelRegistry("model")


def test_a_familys_own_module_may_repeat_what_the_catalogue_says():
    entries, live = registry(), MODELS["gfocal_r18"]
    live = dataclasses.replace(live, builder=live.build)
    assert isinstance(entries["gfocal_r18"].builder, str)
    entries.register("gfocal_r18", live)
    assert entries["gfocal_r18"] is live
    with pytest.raises(ConfigError, match="already registered"):
        entries.register("gfocal_r18", live)


def test_another_family_cannot_take_a_catalogued_name_unless_it_says_so():
    class Mine:
        pass

    entries, mine = registry(), ModelEntry("gfocal_r18", "mine", Mine)
    with pytest.raises(ConfigError, match="'gfocal_r18' is already registered"):
        entries.register("gfocal_r18", mine)
    entries.register("gfocal_r18", mine, replace=True)
    assert entries["gfocal_r18"] is mine


def test_a_replaced_name_stays_replaced_when_its_family_is_imported():
    script = """
from dataclasses import replace
from ld_hub.registry import MODELS, PretrainedCfg
mine = replace(MODELS["gfocal_r18"], pretrained={"mine": PretrainedCfg(file="here")})
MODELS.register("gfocal_r18", mine, replace=True)
import ld_hub
ld_hub.create_model("gfocal_tiny")
import ld_hub.models.gfocal
assert list(MODELS["gfocal_r18"].pretrained) == ["mine"], MODELS["gfocal_r18"]
"""
    subprocess.run([sys.executable, "-c", script], check=True)
