"""Files of deformable ResNets and of MobileNetV2, made from the published key lists."""

from __future__ import annotations

import hashlib
import re
import zlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ld_hub.cli.main import main
from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.models.checkpoints.convert import load_checkpoint, load_openmmlab_state, translate_openmmlab
from ld_hub.models.checkpoints.key_maps import HEADS, UNVERIFIED, VERIFIED, KeyMap, key_map
from ld_hub.models.checkpoints.published import model_directory
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.models.short_names import SHORT_NAMES
from ld_hub.registry import MODELS, PretrainedCfg
from tests.support import golden
from tests.support.names import name_of

R101 = "keys_LD_gfl_r101_dcn"
ONE = "backbone.layer2.0.conv2.conv_offset.weight"


def published(stem: str, channels: int = 18) -> dict[str, Tensor]:
    """A key list as tensors that are constant, each with the number that belongs to its name."""
    state = {}
    for name, item in golden.load(stem)[0]["keys"].items():
        shape = list(item["shape"])
        if "conv_offset" in name:
            assert shape[0] == 18
            shape[0] = channels
        value = zlib.crc32(name.encode()) % 1000
        state[name] = torch.tensor(value if item["dtype"] == "int64" else 1e-3 * value).expand(shape)
    state["bbox_head.integral.project"] = torch.arange(17.0)
    return state


def empty(name: str) -> DenseDetector:
    with torch.device("meta"):
        return create_model(name)


def values_of(model: DenseDetector, state: dict[str, Tensor]) -> None:
    own = model.state_dict()
    for name in (ONE, "backbone.layer4.2.conv2.conv_offset.bias", "backbone.layer3.22.conv2.weight"):
        assert torch.equal(own[name.replace("backbone.", "backbone.body.")], state[name]), name


@pytest.mark.parametrize(("channels", "backbone"), [(18, "r101_dcn"), (27, "r101_dcnv2")])
def test_the_version_is_read_from_the_file(channels: int, backbone: str, tmp_path: Path, capsys) -> None:
    """From the command line to a directory that loads again; the model of the name has version 1."""
    state = published(R101, channels)
    torch.save({"state_dict": state}, tmp_path / "f.pth")
    assert main(["convert", str(tmp_path / "f.pth"), str(tmp_path / "out"), "--model", "gfocal_r101_dcn"]) == 0
    assert re.search(r"missing +0", capsys.readouterr().out)
    model = create_model(tmp_path / "out")
    assert model.name == "gfocal_r101_dcn" and model.config.backbone == model.backbone.name == backbone
    assert model.backbone.offset_channels == channels and model.config.frozen_stages == 1
    values_of(model, state)


def test_a_published_file_of_version_2(tmp_path: Path) -> None:
    """From the cache of published files, under a tag of the name that has version 1."""
    state = published(R101, 27)
    torch.save({"state_dict": state}, tmp_path / "f.pth")
    digest = hashlib.sha256((tmp_path / "f.pth").read_bytes()).hexdigest()
    cfg = PretrainedCfg(url="http://nowhere.invalid/f.pth", sha256=digest[:8])
    model = create_model(model_directory(MODELS["gfocal_r101_dcn"], cfg, tmp_path))
    assert model.config.backbone == "r101_dcnv2"
    values_of(model, state)


@pytest.mark.parametrize("name", ["r101_dcn", "r101_dcnv2"])
def test_either_version_loads_either_file(name: str) -> None:
    """Into a model that was made without memory, as published files are converted."""
    with torch.device("meta"):
        model = create_model("gfocal", backbone=name).to_empty(device="cpu")
    for channels in (18, 27):
        assert translate_openmmlab(model, published(R101, channels))[1].ok
    assert model.config.backbone == model.backbone.name == name  # looking changes nothing
    for channels, backbone in ((18, "r101_dcn"), (27, "r101_dcnv2")):
        state = published(R101, channels)
        load_openmmlab_state(model, state)
        values_of(model, state)
        assert model.config.backbone == model.backbone.name == backbone


def test_a_file_of_our_own_names_tells_its_version_too(tmp_path: Path) -> None:
    with torch.device("meta"):
        second = create_model("gfocal", backbone="x101_32x4d_dcnv2")
    state = {name: torch.ones(t.shape, dtype=t.dtype) for name, t in second.state_dict().items()}
    model = empty("gfocal_x101_32x4d_dcn").to_empty(device="cpu")
    torch.save(state, tmp_path / "own.pth")
    load_checkpoint(model, tmp_path / "own.pth")
    assert model.config.backbone == "x101_32x4d_dcnv2"
    assert all(bool((t == 1).all()) for t in model.state_dict().values())


def changed(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: t for name, t in {**published(R101, 27), **tensors}.items() if t is not None}


BROKEN = {
    "one is missing": ({ONE: None}, r"missing +1\n +backbone\.body\.layer2\.0\.conv2\.conv_offset\.weight"),
    "one is of another version": (
        {ONE: torch.zeros(18, 128, 3, 3)},
        "predict 18 and 27 channels; expected 18 .* or 27",
    ),
    "other taps": (
        {ONE: torch.zeros(27, 128, 1, 1)},
        r"conv_offset\.weight: \[27, 128, 1, 1\] in the file, \[27, 128, 3, 3\] in the model",
    ),
    "one too many": (
        {"backbone.layer1.0.conv2.conv_offset.bias": torch.zeros(27)},
        r"unexpected +1\n +backbone\.body\.layer1\.0\.conv2\.conv_offset\.bias",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_wrong_offsets_are_told_and_leave_the_version(kind: str) -> None:
    model = empty("gfocal_r101_dcn")
    change, words = BROKEN[kind]
    with pytest.raises(CheckpointError, match=words):
        load_openmmlab_state(model, changed(**change), source="file.pth")
    assert model.config.backbone == model.backbone.name == "r101_dcn" and model.backbone.offset_channels == 18


def test_several_groups_of_offsets_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"'f\.pth': its offset convolutions predict 72 channels; expected 18"):
        load_openmmlab_state(empty("gfocal_r101_dcn"), published(R101, 72), source="f.pth")


def test_plain_and_deformable_files_are_told_apart() -> None:
    with pytest.raises(CheckpointError, match=r"'r101', has none\. Create the model with backbone='r101_dcn'"):
        load_openmmlab_state(empty("gfocal_r101"), published(R101))
    with pytest.raises(CheckpointError, match=r"'r101_dcn', has\. Create the model with the plain backbone, 'r101'\."):
        load_openmmlab_state(empty("gfocal_r101_dcn"), published("keys_LD_gfl_r101"))
    with pytest.raises(CheckpointError, match="does not fit the model"):  # same version, other stages and widths
        load_openmmlab_state(empty("gfocal_r101_dcn"), published("keys_BCKD_gfl_x101_32x4d_dcn"))


# our name -> published name, written by hand from both architectures
MOBILENET = {
    "backbone.body.conv_stem.weight": "backbone.conv1.conv.weight",
    "backbone.body.bn1.running_var": "backbone.conv1.bn.running_var",
    "backbone.body.blocks.0.0.conv_dw.weight": "backbone.layer1.0.depthwise_conv.conv.weight",
    "backbone.body.blocks.0.0.bn2.bias": "backbone.layer1.0.linear_conv.bn.bias",
    "backbone.body.blocks.3.1.conv_pw.weight": "backbone.layer4.1.expand_conv.conv.weight",
    "backbone.body.blocks.3.1.bn2.num_batches_tracked": "backbone.layer4.1.depthwise_conv.bn.num_batches_tracked",
    "backbone.body.blocks.6.0.conv_pwl.weight": "backbone.layer7.0.linear_conv.conv.weight",
    "backbone.body.blocks.6.0.bn3.weight": "backbone.layer7.0.linear_conv.bn.weight",
}


@pytest.mark.parametrize("name", ["gfocal_mobilenetv2", "gfocal_mobilenetv2_leaky"])
def test_mobilenetv2(name: str) -> None:
    state = published("keys_BCKD_bckd_mobilenet")
    renamed, report = translate_openmmlab(empty(name), state)
    assert report.ok
    for ours, theirs in MOBILENET.items():
        assert renamed[ours] is state[theirs]
    unused = {n for n, reason in report.dropped if reason == "of the classifier, behind the last map"}
    assert unused == {n for n in state if n.startswith("backbone.conv2.")} and len(unused) == 6


def test_gfocal_v2() -> None:
    """The authors' head has the two convolutions of the quality in a sequence with a ReLU between them."""
    state = published("keys_LD_gfl_r50") | {
        "bbox_head.reg_conf.0.weight": torch.ones(64, 20, 1, 1),
        "bbox_head.reg_conf.0.bias": torch.ones(64),
        "bbox_head.reg_conf.2.weight": torch.ones(1, 64, 1, 1),
        "bbox_head.reg_conf.2.bias": torch.ones(1),
    }
    renamed, report = translate_openmmlab(empty("gfocalv2_r50"), state)
    assert report.ok and renamed["head.quality.out.bias"] is state["bbox_head.reg_conf.2.bias"]
    assert not translate_openmmlab(empty("gfocal_r50"), state)[1].ok


def test_key_maps_join_and_the_first_rule_counts() -> None:
    both = KeyMap((("a(.)", r"x\1"),)) + KeyMap((("a.*", "y"),), unused=(("b", "why"),))
    assert [both.ours(n) for n in ("a1", "a12", "b")] == ["x1", "y", None]
    assert both.reason("b") == "why" and both.reason("bb") is None and both.constant("a1") is None
    with pytest.raises(ConfigError, match="family 'other'"):
        key_map("other", "r50")


def test_every_structure_is_verified_or_listed_as_not() -> None:
    """`tests/reference/test_models.py` replays the verified ones. Families' own names, r10t and tiny are ours alone."""
    ours = {"r10t", "test_resnet"}
    structures = {
        name
        for name, entry in ((name, MODELS[name]) for name in MODELS)
        if entry.distilled is None
        and "backbone" in entry.config
        and entry.config["backbone"] not in ours
        and entry.family in HEADS
    }
    second = {name for name in SHORT_NAMES if name.endswith("_dcnv2")}
    assert VERIFIED.keys() | UNVERIFIED.keys() == structures | second
    assert {"gfocal", "atss", "fcos", "retinanet"} <= HEADS.keys()
    assert not VERIFIED.keys() & UNVERIFIED.keys()


def test_what_is_said_of_the_unverified_is_so() -> None:
    """Where a published key list is claimed there is one, and only there; what is compared with is verified."""
    listed = {name_of(stem) for stem in golden.find("keys_*")}
    for name, reason in UNVERIFIED.items():
        claims = reason.startswith("its published key list")
        assert claims == (name in listed), name
        others = set(re.findall(r"(?:gfocal|atss|fcos|retinanet)_\w+", reason)) - {name}
        assert others <= VERIFIED.keys(), (name, others)
