"""Published weights: the table, and a file laid by hand into the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import re

import pytest
import torch

from ld_hub.errors import CheckpointError, HubError
from ld_hub.models.checkpoints.published import address, cache_place
from ld_hub.models.checkpoints.weights import every_tag
from ld_hub.models.factory import create_model
from ld_hub.models.names import get_pretrained_cfg, list_models, list_pretrained
from ld_hub.registry import MODELS, ModelEntry, PretrainedCfg
from tests.support import golden

APS = {  # of OpenMMLab's model zoo
    "atss_r50.mmdet_1x_coco": 39.4,
    "atss_r101.mmdet_1x_coco": 41.5,
    "fcos_r50_caffe.mmdet_1x_coco": 38.7,
    "fcos_r101_caffe.mmdet_ms2x_coco": 40.8,
    "gfocal_r18_ld_r101.mmdet_1x_coco": 36.5,
    "gfocal_r34_ld_r101.mmdet_1x_coco": 39.9,
    "gfocal_r50.mmdet_1x_coco": 40.2,
    "gfocal_r50.mmdet_ms2x_coco": 42.9,
    "gfocal_r50_ld_r101.mmdet_1x_coco": 41.0,
    "gfocal_r101.mmdet_ms2x_coco": 44.7,
    "gfocal_r101_dcn.mmdet_ms2x_coco": 47.1,
    "gfocal_r101_ld_r101_dcn.mmdet_2x_coco": 45.5,
    "gfocal_x101_32x4d.mmdet_ms2x_coco": 45.9,
    "gfocal_x101_32x4d_dcn.mmdet_ms2x_coco": 48.1,
    "retinanet_r18.mmdet_1x_coco": 31.7,
    "retinanet_r50.mmdet_1x_coco": 36.5,
    "retinanet_r101.mmdet_2x_coco": 38.9,
}
PAPERS = {"atss": "1912.02424", "fcos": "1904.01355", "gfocal": "2006.04388", "retinanet": "1708.02002"}


def test_the_table():
    assert {name: get_pretrained_cfg(name).ap for name in list_pretrained()} == APS
    for name in APS:
        cfg = get_pretrained_cfg(name)
        assert re.fullmatch(r"https://download\.openmmlab\.com/mmdetection/v2\.0/[\w/.-]+\.pth", cfg.url)
        assert re.fullmatch("[0-9a-f]{8}", cfg.sha256) and cfg.url.endswith(f"-{cfg.sha256}.pth")
        assert cfg.license == "Apache-2.0" and cfg.source and cfg.paper.startswith("https://arxiv.org/abs/")
        paper = "2102.12252" if "_ld_" in name else PAPERS[name.split("_")[0]]
        assert cfg.paper.endswith(paper) and cfg.metric == "COCO val2017 AP"
        assert cfg.num_classes == 80 and not cfg.label_names
    assert len({get_pretrained_cfg(name).url for name in APS}) == len(APS)
    assert get_pretrained_cfg("gfocal_r50").ap == 40.2


def test_weights_without_an_address_are_never_chosen():
    """They are listed with all tags and asked for by their tag only."""
    nowhere = {f"{name}.{tag}": cfg for name in MODELS for tag, cfg in MODELS[name].pretrained.items() if not cfg.url}
    assert nowhere["gfocal_r50_vlr_r101.ld_1x_coco"].ap == 42.1
    assert nowhere["gfocal_r18_ld_r101.ld_4e_voc0712"].ap == 53.0
    assert nowhere.keys().isdisjoint(list_pretrained()) and nowhere.keys() <= set(list_models(include_tags=True))
    for full, cfg in nowhere.items():
        name = full.partition(".")[0]
        assert get_pretrained_cfg(name) is None or get_pretrained_cfg(name).url
        assert cfg.note and cfg.source and cfg.paper and not cfg.license
    owners = {name for name, _, _ in every_tag()}
    assert owners <= set(list_models())  # no weights for a name that nobody can ask for


def test_voc_variants_have_their_own_classes_and_loss():
    with torch.device("meta"):
        model = create_model("gfocal_r18_ld_r101.ld_4e_voc0712")
        other = create_model("gfocal_r18_ld_r101.ld_4e_voc0712", num_classes=3, box_loss="giou")
        named = create_model("gfocal_r18_ld_r101.ld_4e_voc0712", label_names=[str(i) for i in range(20)])
    assert (model.config.num_classes, model.config.box_loss, model.name) == (20, "ciou", "gfocal_r18_ld_r101")
    assert (model.label_names[0], model.label_names[-1], model.category_ids[-1]) == ("aeroplane", "tvmonitor", 19)
    info, _ = golden.load("keys_LD_gfl_r18_voc")
    assert sum(p.numel() for p in model.parameters()) == info["num_params"]
    assert (other.config.num_classes, other.config.box_loss, other.label_names[0]) == (3, "giou", "class_0")
    assert named.label_names[19] == "19"


def test_weights_without_an_address_say_how_to_use_a_file(tmp_path):
    full = "gfocal_r18_ld_r101.ld_4e_voc0712"
    with pytest.raises(HubError, match=rf"at no address that lasts.*FILE.*ld-hub convert FILE.pth DIR --model {full}"):
        create_model(full, pretrained=True)
    with pytest.raises(HubError, match=r"no weights for 'gfocal_r50_vlr_r101'.*'gfocal_r50_vlr_r101.ld_1x_coco'"):
        create_model("gfocal_r50_vlr_r101", pretrained=True)
    torch.save({"state_dict": state(0.25)}, tmp_path / "voc.pth")
    model = create_model(full, checkpoint_path=tmp_path / "voc.pth")
    assert bool((model.head.cls.weight == 0.25).all()) and model.label_names[1] == "bicycle"


def test_a_mirror_of_openmmlab(monkeypatch):
    cfg = get_pretrained_cfg("gfocal_r50")
    assert address(cfg) == cfg.url
    monkeypatch.setenv("LD_HUB_OPENMMLAB", "https://mirror.example.org/mm/")
    assert address(cfg) == f"https://mirror.example.org/mm/gfl/gfl_r50_fpn_1x_coco/{cfg.url.rpartition('/')[2]}"
    other = PretrainedCfg(url="https://example.org/a.pth")
    assert address(other) == other.url


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
    made = laid.with_suffix("")
    assert sorted(p.name for p in made.iterdir()) == [
        "config.json",
        "converted_from.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert laid.is_file()  # what somebody put there stays
    laid.unlink()  # the model directory is enough now
    monkeypatch.setenv("LD_HUB_CACHE", str(laid.parent))
    torch.manual_seed(5)
    again = create_model("gfocal_r18", pretrained=True)
    assert torch.equal(torch.rand(1), drawn)  # converting drew no random numbers of the caller's
    assert torch.equal(again.head.cls.weight, model.head.cls.weight)


def test_another_file_of_that_name_is_refused_before_it_is_read(laid, monkeypatch):
    laid.write_bytes(laid.read_bytes()[:-1])
    monkeypatch.setattr("torch.load", lambda *a, **k: pytest.fail("the file was read"))
    with pytest.raises(CheckpointError, match=r"sha256 is .*expected to start with"):
        create_model("gfocal_r18.voc", pretrained=True, cache_dir=laid.parent)
    assert [path for path in laid.parent.iterdir() if path.name != ".locks"] == [laid]


def test_without_the_file_the_way_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("LD_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    with pytest.raises(HubError) as caught:
        create_model("gfocal_r18_ld_r101", pretrained=True)
    cfg = get_pretrained_cfg("gfocal_r18_ld_r101")
    place = tmp_path / "cache" / "ld_r18_gflv1_r101_fpn_coco_1x_20220702_062206-330e6332.pth"
    assert cache_place(cfg) == place
    for words in (cfg.url, str(place), "LD_HUB_OFFLINE=1 forbids the network"):
        assert words in str(caught.value)
    assert [path.name for path in place.parent.iterdir()] == [".locks"]
    assert create_model("gfocal_r18_ld_r101.mmdet_1x_coco", num_classes=2).training  # fresh: no file is needed


def test_a_hub_repository_goes_first_and_the_original_file_is_the_way_back(tmp_path, monkeypatch):
    published = create_model("gfocal_tiny", num_classes=2)
    with torch.no_grad():
        published.head.cls.bias.fill_(0.25)
    published.save_pretrained(tmp_path / "hub")
    asked: list[str] = []

    def hub(repo: str, **_: object) -> object:
        asked.append(repo)
        if len(asked) > 1:
            raise HubError("no network")
        return tmp_path / "hub"

    cfg = PretrainedCfg(url="https://example.invalid/model-00000000.pth", sha256="00000000", hf_hub_id="org/tiny")
    entry = MODELS["gfocal_tiny"]
    monkeypatch.setattr("ld_hub.models.factory.download", hub)
    MODELS.register("gfocal_tiny", dataclasses.replace(entry, pretrained={"mine": cfg}), replace=True)
    try:
        first = create_model("gfocal_tiny", pretrained=True)
        assert torch.equal(first.head.cls.bias, torch.full((2,), 0.25))
        published.save_pretrained(tmp_path / "cache" / "model-00000000")  # as converted earlier
        again = create_model("gfocal_tiny", pretrained=True, cache_dir=tmp_path / "cache")
        assert torch.equal(again.head.cls.bias, first.head.cls.bias)
        assert asked == ["org/tiny"] * 2
        MODELS.register(
            "gfocal_tiny",
            dataclasses.replace(entry, pretrained={"mine": dataclasses.replace(cfg, url="")}),
            replace=True,
        )
        with pytest.raises(HubError, match="no network"):
            create_model("gfocal_tiny", pretrained=True)
    finally:
        MODELS.register("gfocal_tiny", entry, replace=True)
