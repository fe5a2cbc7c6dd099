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
    assert names == ["gfocal_r18", "gfocal_r18_ld_r18", "gfocal_r18_ld_r101", "gfocal_r18_vlr_r101"]
    assert main(["list", "x101"]) == 0
    assert lines(capsys) == ["gfocal_x101_32x4d", "gfocal_x101_32x4d_ld_x101_32x4d"]
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
    table = lines(capsys)
    assert "| `gfocal` | any timm model (r50) |  |  |  |" in table
    assert "| `gfocal_r50` | r50 |  |  | `mmdet_1x_coco` (40.2) |" in table
    assert "| `gfocal_r34_vlr_r101` | r34 | `gfocal_r101` | vlr |  |" in table
    assert len(table) == 2 + len(MODELS)


def test_nothing_fits(capsys):
    assert main(["list", "gfl_r50"]) == 2
    assert capsys.readouterr().err == "ld-hub: error: No model fits 'gfl_r50'. Did you mean 'gfocal_r50'?\n"
    assert main(["list", "zzz"]) == 2
    assert f"There are {len(MODELS)} models" in capsys.readouterr().err
