from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ld_hub.distillation import get_recipe, list_recipes
from ld_hub.errors import ConfigError, LdHubError, MissingFileError, UnknownNameError
from ld_hub.launch.commands import DISTILL
from ld_hub.launch.recipe_files import find_recipe
from tests.support.commands import distillation

MINE = """\
summary: boxes only, at first
terms:
  edges:
    kind: box_bins_kl
    weight: 1e-1
    region: vlr
    last_step: 900
    decay: cosine
  scores: {kind: class_bce, beta: 2}
"""


def written(tmp_path: Path, text: str, name: str = "mine.yaml") -> str:
    file = tmp_path / name
    file.write_text(text)
    return str(file)


def test_a_file_is_a_recipe(tmp_path: Path) -> None:
    recipe = find_recipe(written(tmp_path, MINE))
    assert recipe.name == "mine" and list(recipe.terms) == ["edges", "scores"]
    edges, scores = recipe.terms.values()
    assert (edges.kind, edges.weight, edges.region, edges.decay, edges.factor(900)) == (
        "box_bins_kl", 0.1, "vlr", "cosine", 0,
    )  # fmt: skip
    assert (scores.kind, scores.beta) == ("class_bce", 2)


@pytest.mark.parametrize("name", list_recipes())
@pytest.mark.parametrize("dump", [yaml.safe_dump, str], ids=["YAML", "flow"])
def test_every_registered_recipe_survives_a_file(tmp_path: Path, name: str, dump) -> None:
    recipe = get_recipe(name).for_family("retinanet").published("ld")
    values = recipe.to_dict()
    text = yaml.safe_dump(values) if dump is yaml.safe_dump else yaml.safe_dump(values, default_flow_style=True)
    assert find_recipe(written(tmp_path, text, "r.yml")) == recipe


def test_flags_go_on_top_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, MINE)
    start = ["gfocal_r18", "--teacher", "gfocal_r50", "--recipe", file]
    parsed, recipe, _ = distillation([*start, "--terms.edges.weight", "3", "--terms.edges.share=0.2"])
    assert recipe == find_recipe(file).with_terms(edges={"weight": 3.0, "share": 0.2})
    _, again, _ = distillation(["--config", written(tmp_path, parsed.yaml, "run.yaml")])
    assert again == recipe
    with pytest.raises(SystemExit):
        distillation([*start, "--help"])
    assert "--terms.scores.beta" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"--terms.ld.weight. Did you mean --terms.edges.weight"):
        distillation([*start, "--terms.ld.weight", "3"])


def test_help_lists_the_registered_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        distillation(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert f"Registered: {', '.join(list_recipes())}; `ld-hub recipes`" in text
    assert DISTILL.more["recipe"] in text


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("terms: [", ConfigError, "cannot be read as YAML"),
        ("- ld", ConfigError, "has no terms. Expected e.g."),
        ("name: x", ConfigError, "has no terms"),
        ("terms: {ld: {kind: box_bins_kl}}\nterm: 1", ConfigError, "has the field 'term'; a recipe has name, summary"),
        ("terms: {ld: {weight: 1}}", ConfigError, "Term 'ld' of the recipe has no 'kind'; known kinds: .*box_bins_kl"),
        ("terms: {ld: {kind: 3}}", ConfigError, "Term 'ld' of the recipe has no 'kind'"),
        ("terms: {ld: {kind: box_bin_kl}}", UnknownNameError, "box_bins_kl"),
        ("terms: {ld: {kind: box_bins_kl, wait: 1}}", UnknownNameError, "'wait'.*weight"),
        (
            "terms: {ld: {kind: box_bins_kl, weight: heavy}}",
            ConfigError,
            "Term 'ld': weight is 'heavy'; expected float",
        ),
        ("terms: {ld: {kind: box_bins_kl, weight: true}}", ConfigError, "weight is True; expected float"),
        ("terms: {ld: {kind: box_bins_kl, last_step: 1.5}}", ConfigError, "last_step is 1.5; expected int or None"),
        (
            "terms: {ld: {kind: box_bins_kl, decay: slow}}",
            ConfigError,
            "decay is 'slow'; expected 'none', 'cosine'",
        ),
        ("terms: {ld: {kind: box_bins_kl, weight: -1}}", ConfigError, "Term 'ld': weight is -1"),
        ("terms: {ld: {kind: box_bins_kl, region: nowhere}}", UnknownNameError, "nowhere"),
    ],
)
def test_errors_name_file_term_and_field(tmp_path: Path, text: str, kind: type[LdHubError], message: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(kind, match=message) as caught:
        find_recipe(file)
    assert f"Recipe '{file}'" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no recipe '.*mine.yaml'. Registered ones go by name"):
        find_recipe(str(tmp_path / "mine.yaml"))
    with pytest.raises(UnknownNameError, match="vlr"):
        find_recipe("vrl")
