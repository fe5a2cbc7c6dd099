"""What README shows runs as it stands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from ld_hub.cli.main import VERBS, main
from ld_hub.distillation import RECIPES, TERMS, Recipe
from ld_hub.hub import read_config
from ld_hub.registry import Registry
from tests.support.commands import distillation

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^(?:accelerate launch -m ld_hub\.|ld-hub )(.+)$", README, re.MULTILINE)


def test_the_python_blocks_run_one_after_another(demo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ld_hub_demo").symlink_to(demo)
    registries: tuple[Registry, ...] = (RECIPES, TERMS)
    for registry in registries:  # what README registers stays here
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block.replace("steps=20", "steps=2, workers=0"), "README.md", "exec"), names)
    assert (tmp_path / "found.png").is_file()
    assert (tmp_path / "my_model" / "config.json").is_file()
    assert (tmp_path / "runs/tiny/model/model.safetensors").is_file()
    recipe = Recipe.from_dict(read_config(tmp_path / "runs/mine/model")["recipe"])
    assert (recipe.terms["ld"].temperature, recipe.terms["gap"].kind) == (5.0, "score_gap")
    losses = json.loads((tmp_path / "runs/mine/metrics.jsonl").read_text().splitlines()[0])
    assert losses["distill_ld"] > 0 and losses["distill_gap"] >= 0
    assert len(BLOCKS) >= 5


def test_the_recipe_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block)
    _, recipe, _ = distillation(["gfocal_r18", "--teacher", "r101", "--recipe", str(tmp_path / "mine.yaml")])
    assert recipe.name == "mine" and recipe.summary.startswith("edges in")
    assert (recipe.terms["ld_vlr"].region, recipe.terms["feature"].last_step) == ("main+vlr", 60000)


@pytest.mark.parametrize(("table", "verb"), [("models", "list"), ("recipes", "recipes")])
def test_the_tables_are_what_the_commands_print(table: str, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = README.partition(f"<!-- {table}:begin -->\n")[2].partition(f"<!-- {table}:end -->")[0]
    assert main([verb, "--markdown"]) == 0
    assert shown == capsys.readouterr().out


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_and_their_flags_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line.split("  #", maxsplit=1)[0])
    assert words[0] in VERBS
    with pytest.raises(SystemExit) as stop:
        main([words[0], "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in words[1:]:
        if word.startswith("--terms"):
            continue
        assert not word.startswith("--") or word in text, word
        assert not word.startswith("examples/") or (ROOT / word).is_file(), word
