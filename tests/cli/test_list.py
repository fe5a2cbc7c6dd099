from __future__ import annotations

import pytest

from ld_hub.cli.main import main
from ld_hub.registry import MODELS, ModelEntry, PretrainedCfg


@pytest.fixture
def weights(monkeypatch):
    entry = MODELS["gfocal_r50"]
    tags = {"mmdet_1x_coco": PretrainedCfg(url="https://example.org/a.pth", ap=40.2), "empty": PretrainedCfg()}
    replaced = ModelEntry(entry.name, entry.family, entry.build, entry.config, None, tags)
    monkeypatch.setitem(MODELS._entries, "gfocal_r50", replaced)


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_wildcard_and_plain_word(capsys):
    assert main(["list", "gfocal_r18*"]) == 0
    names = lines(capsys)
    assert set(names) == {name for name in MODELS if name.startswith("gfocal_r18")}
    assert names.index("gfocal_r18") == 0 and names.index("gfocal_r18_ld_r18") < names.index("gfocal_r18_ld_r101")
    assert main(["list", "x101"]) == 0
    assert set(lines(capsys)) == {name for name in MODELS if "x101" in name}
    assert main(["list"]) == 0
    every = lines(capsys)
    assert every[0] == "atss"
    assert set(names) < set(every)


def test_pretrained(capsys, weights):
    assert main(["list", "--pretrained"]) == 0
    assert "gfocal_r50.mmdet_1x_coco" in (shown := lines(capsys)) and "gfocal_r50.empty" not in shown
    assert main(["list", "tiny", "--pretrained"]) == 2
    assert "No model that fits 'tiny' has published weights" in capsys.readouterr().err


def test_markdown(capsys, weights):
    assert main(["list", "--markdown"]) == 0
    table, _, others = capsys.readouterr().out.partition("\n\n")
    rows = table.splitlines()[2:]
    assert "| `gfocal_r50` |  |  | `mmdet_1x_coco` (40.2) |" in rows  # the tag without weights is left out
    assert "| `gfocal_r34_vlr_r101` | `gfocal_r101` | vlr |  |" in rows
    assert others.startswith("To be trained: ") and "`gfocal`," in others
    named = [row.split("`")[1] for row in rows] + others.split("`")[1::2]
    assert sorted(named) == sorted(MODELS)
    assert main(["list", "gfocal_r50", "--markdown", "--pretrained"]) == 0
    assert "To be trained" not in (shown := capsys.readouterr().out) and "| `gfocal_r50` |" in shown
    assert main(["list", "atss_r18*", "--markdown"]) == 0
    assert capsys.readouterr().out == "To be trained: `atss_r18`, `atss_r18_bins`.\n"


def test_nothing_fits(capsys):
    assert main(["list", "gfl_r50"]) == 2
    assert capsys.readouterr().err == "ld-hub: error: No model fits 'gfl_r50'. Did you mean 'gfocal_r50'?\n"
    assert main(["list", "zzz"]) == 2
    assert f"There are {len(MODELS)} models" in capsys.readouterr().err
