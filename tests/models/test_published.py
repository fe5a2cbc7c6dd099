"""Published weights: the table, and a file laid by hand into the cache."""

from __future__ import annotations

import hashlib
import re

import pytest
import torch

from ld_hub.errors import CheckpointError, HubError
from ld_hub.models.factory import create_model, get_pretrained_cfg, list_pretrained
from ld_hub.models.published import cache_place
from ld_hub.registry import MODELS, ModelEntry, PretrainedCfg
from tests.support import golden

APS = {
    "gfocal_r18_ld_r101.mmdet_1x_coco": 36.5,
    "gfocal_r34_ld_r101.mmdet_1x_coco": 39.9,
    "gfocal_r50.mmdet_1x_coco": 40.2,
    "gfocal_r50.mmdet_ms2x_coco": 42.9,
    "gfocal_r50_ld_r101.mmdet_1x_coco": 41.0,
    "gfocal_r101.mmdet_ms2x_coco": 44.7,
    "gfocal_x101_32x4d.mmdet_ms2x_coco": 45.9,
}


def test_the_table():
    assert {name: get_pretrained_cfg(name).ap for name in list_pretrained()} == APS
    for name in APS:
        cfg = get_pretrained_cfg(name)
        assert re.fullmatch(r"https://download\.openmmlab\.com/mmdetection/v2\.0/[\w/.-]+\.pth", cfg.url)
        assert re.fullmatch("[0-9a-f]{8}", cfg.sha256) and cfg.url.endswith(f"-{cfg.sha256}.pth")
        assert cfg.license == "Apache-2.0" and cfg.source and cfg.paper.startswith("https://arxiv.org/abs/")
        assert cfg.num_classes == 80
    assert len({get_pretrained_cfg(name).url for name in APS}) == len(APS)
    assert get_pretrained_cfg("gfocal_r50").ap == 40.2


def state(fill: float) -> dict[str, torch.Tensor]:
    """A file as OpenMMLab writes it, for 20 classes, of one stored number per tensor."""
    info, _ = golden.load("keys_LD_gfl_r18_voc")
    made = {
        name: torch.tensor(fill if item["dtype"] == "float32" else 3).expand(item["shape"])
        for name, item in info["keys"].items()
    }
    return {**made, "bbox_head.integral.project": torch.arange(17.0)}


@pytest.fixture
def laid(tmp_path, monkeypatch):
    """A registered tag whose file lies in the cache of this test."""
    torch.save({"state_dict": state(0.25)}, tmp_path / "a.pth")
    digits = hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()[:8]
    file = (tmp_path / "a.pth").rename(tmp_path / f"a-{digits}.pth")
    cfg = PretrainedCfg(url=f"https://example.org/v2/{file.name}", sha256=digits, num_classes=20)
    entry = MODELS["gfocal_r18"]
    replaced = ModelEntry(entry.name, entry.family, entry.build, entry.config, None, {"voc": cfg})
    monkeypatch.setitem(MODELS._entries, "gfocal_r18", replaced)
    return file


def test_a_file_in_the_cache_is_converted_once_and_loaded(laid, monkeypatch):
    torch.manual_seed(5)
    model = create_model("gfocal_r18.voc", pretrained=True, cache_dir=laid.parent)
    drawn = torch.rand(1)
    assert (model.name, model.config.num_classes, model.training) == ("gfocal_r18", 20, False)
    assert bool((model.head.cls.weight == 0.25).all())
    assert sorted(p.name for p in laid.with_suffix("").iterdir()) == ["config.json", "model.safetensors"]
    laid.unlink()  # the model directory is enough now
    monkeypatch.setenv("LD_HUB_CACHE", str(laid.parent))
    torch.manual_seed(5)
    again = create_model("gfocal_r18", pretrained=True)
    assert torch.equal(torch.rand(1), drawn)  # converting drew no random numbers of the caller's
    assert torch.equal(again.head.cls.weight, model.head.cls.weight)
    with pytest.raises(CheckpointError, match=r"trained for 20 classes.*create_model\('local-dir:.*num_classes=7\)"):
        create_model("gfocal_r18", pretrained=True, num_classes=7)


def test_another_file_of_that_name_is_refused_before_it_is_read(laid, monkeypatch):
    laid.write_bytes(laid.read_bytes()[:-1])
    monkeypatch.setattr("torch.load", lambda *a, **k: pytest.fail("the file was read"))
    with pytest.raises(CheckpointError, match=r"sha256 is .*expected to start with"):
        create_model("gfocal_r18.voc", pretrained=True, cache_dir=laid.parent)
    assert list(laid.parent.iterdir()) == [laid]


def test_without_the_file_the_way_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(HubError) as caught:
        create_model("gfocal_r18_ld_r101", pretrained=True)
    cfg = get_pretrained_cfg("gfocal_r18_ld_r101")
    place = tmp_path / "cache" / "ld_r18_gflv1_r101_fpn_coco_1x_20220702_062206-330e6332.pth"
    assert cache_place(cfg) == place
    for words in (cfg.url, str(place), "ld-hub convert FILE.pth DIR --model gfocal_r18_ld_r101"):
        assert words in str(caught.value)
    assert not place.parent.exists()
    assert create_model("gfocal_r18_ld_r101.mmdet_1x_coco", num_classes=2).training  # fresh: no file is needed
