"""Synthetic checkpoints, made from the published key lists and never from our own model."""

from __future__ import annotations

import zlib
from collections import OrderedDict

import pytest
import torch

from ld_hub.errors import CheckpointError, ConfigError, MissingFileError
from ld_hub.hub import save_safetensors
from ld_hub.models.checkpoints.convert import load_checkpoint, load_openmmlab_state, read_openmmlab
from ld_hub.models.factory import create_model
from tests.support import golden

INFO, _ = golden.load("keys_LD_gfl_r18")
PROJECT = "bbox_head.integral.project"


def value(name: str) -> float:
    """A number that belongs to a name."""
    return 0.5 + zlib.crc32(name.encode()) / 2**33


def published(dtype: torch.dtype = torch.float32, prefix: str = "") -> OrderedDict[str, torch.Tensor]:
    """The key list as tensors that are constant (one stored number each, so files are small)."""
    state = OrderedDict()
    for name, item in INFO["keys"].items():
        if item["dtype"] == "int64":
            state[prefix + name] = torch.tensor(int(value(name) * 1000))
        else:
            state[prefix + name] = torch.tensor(value(name), dtype=dtype).expand(item["shape"])
    state[prefix + PROJECT] = torch.arange(17.0)
    return state


@pytest.fixture(scope="module")
def model():
    return create_model("gfocal_r18")


def clear(model):
    for tensor in model.state_dict().values():
        tensor.fill_(-1)


# our name -> published name, written by hand
PAIRS = {
    "backbone.body.conv1.weight": "backbone.conv1.weight",
    "backbone.body.layer3.1.bn2.running_var": "backbone.layer3.1.bn2.running_var",
    "backbone.body.layer2.0.downsample.1.num_batches_tracked": "backbone.layer2.0.downsample.1.num_batches_tracked",
    "neck.lateral_convs.2.bias": "neck.lateral_convs.2.conv.bias",
    "neck.fpn_convs.4.weight": "neck.fpn_convs.4.conv.weight",
    "head.cls_tower.0.conv.weight": "bbox_head.cls_convs.0.conv.weight",
    "head.cls_tower.3.norm.bias": "bbox_head.cls_convs.3.gn.bias",
    "head.box_tower.2.norm.weight": "bbox_head.reg_convs.2.gn.weight",
    "head.cls.bias": "bbox_head.gfl_cls.bias",
    "head.box.weight": "bbox_head.gfl_reg.weight",
    "head.scales.3.scale": "bbox_head.scales.3.scale",
}


def check(model):
    own = model.state_dict()
    for ours, theirs in PAIRS.items():
        expected = torch.tensor(value(theirs))
        if not own[ours].is_floating_point():
            expected = torch.tensor(int(value(theirs) * 1000))
        assert torch.equal(own[ours], expected.expand(own[ours].shape)), ours
    assert all(bool((tensor > 0).all()) for tensor in own.values())


OPTIMIZER = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]}
LAYOUTS = {
    "nested": lambda: {"meta": {"epoch": 12, "time": "x"}, "state_dict": published(), "optimizer": OPTIMIZER},
    "flat": published,
    "model": lambda: {"model": published(), "epoch": 1},
    "data parallel": lambda: {"state_dict": published(prefix="module.")},
    "compiled student": lambda: {"state_dict": published(prefix="module._orig_mod.")},
    "student and teacher": lambda: {
        "state_dict": {**published(prefix="student."), "teacher.backbone.conv1.weight": torch.ones(64, 3, 7, 7)}
    },
    "teacher_model": lambda: {
        "state_dict": {**published(), "teacher_model.neck.x": torch.ones(1), "ema_neck_x": torch.ones(1)}
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads(layout, model, tmp_path):
    clear(model)
    torch.save(LAYOUTS[layout](), tmp_path / "file.pth")
    report = load_checkpoint(model, tmp_path / "file.pth")
    check(model)
    assert len(report.matched) == INFO["num_keys"] - 1 == len(model.state_dict())
    dropped = dict(report.dropped)
    assert dropped.pop(PROJECT) == "constants, checked"
    expected = {
        "student and teacher": {"teacher.backbone.conv1.weight": "the teacher's"},
        "teacher_model": {"teacher_model.neck.x": "the teacher's", "ema_neck_x": "copies for weight averaging"},
    }
    assert dropped == expected.get(layout, {})
    assert "matched" in report.table() and "missing          0" in report.table()


def test_the_file_format_of_2020(model, tmp_path):
    """The files at OpenMMLab's old URLs are of torch before 1.6, without zip."""
    clear(model)
    torch.save({"state_dict": published()}, tmp_path / "f.pth", _use_new_zipfile_serialization=False)
    load_checkpoint(model, tmp_path / "f.pth")
    check(model)


def test_class_names_of_the_meta_data(tmp_path):
    state = {"a": torch.ones(1)}
    for meta in ({"CLASSES": ("cat", "dog")}, {"dataset_meta": {"classes": ["cat", "dog"]}}):
        torch.save({"state_dict": state, "meta": meta}, tmp_path / "f.pth")
        assert read_openmmlab(tmp_path / "f.pth").label_names == ("cat", "dog")
    torch.save({"state_dict": state, "meta": {"CLASSES": None}}, tmp_path / "f.pth")
    assert read_openmmlab(tmp_path / "f.pth").label_names is None


def test_bits_are_kept():
    model = create_model("gfocal_r18")
    state = published()
    exact = torch.randn(256, 256, 3, 3, generator=torch.Generator().manual_seed(0))
    state["bbox_head.cls_convs.1.conv.weight"] = exact
    load_openmmlab_state(model, state)
    assert torch.equal(model.head.cls_tower[1].conv.weight, exact)


def broken(change):
    state = published()
    change(state)
    return state


BROKEN = {
    "missing": (lambda s: s.pop("neck.fpn_convs.4.conv.bias"), r"missing +1\n    neck\.fpn_convs\.4\.bias"),
    "unexpected": (
        lambda s: s.update({"bbox_head.atss_reg.weight": torch.ones(1)}),
        r"unexpected +1\n    bbox_head\.atss_reg",
    ),
    "no place": (
        lambda s: s.update({"backbone.fc.bias": torch.ones(1)}),
        r"unexpected +1\n    backbone\.body\.fc\.bias",
    ),
    "shape": (
        lambda s: s.update({"backbone.conv1.weight": torch.ones(64, 1, 7, 7)}),
        r"wrong shape +1\n    backbone\.body\.conv1\.weight: \[64, 1, 7, 7\] in the file, \[64, 3, 7, 7\] in the model",
    ),
    "classes": (
        lambda s: s.update(
            {"bbox_head.gfl_cls.weight": torch.ones(20, 256, 3, 3), "bbox_head.gfl_cls.bias": torch.ones(20)}
        ),
        "weights for 20 classes, the model has 80.*num_classes=20",
    ),
    "bins": (lambda s: s.update({PROJECT: torch.arange(9.0)}), r"shape \[9\].*reg_max"),
    "other bins": (lambda s: s.update({PROJECT: torch.arange(17.0) / 2}), r"integral\.project.*expected \[0\.0, 1\.0"),
    "whole numbers": (
        lambda s: s.update({"bbox_head.gfl_cls.bias": torch.zeros(80, dtype=torch.int64)}),
        r"'head\.cls\.bias' has the type torch\.int64, expected torch\.float32",
    ),
    "complex numbers": (
        lambda s: s.update({"bbox_head.gfl_cls.bias": torch.zeros(80, dtype=torch.complex64)}),
        r"has the type torch\.complex64",
    ),
    "sparse": (
        lambda s: s.update({"bbox_head.gfl_cls.bias": torch.ones(80).to_sparse()}),
        r"'bbox_head\.gfl_cls\.bias' is a sparse tensor",
    ),
    "without content": (
        lambda s: s.update({"bbox_head.gfl_cls.bias": torch.ones(80, device="meta")}),
        r"'bbox_head\.gfl_cls\.bias' is a meta tensor",
    ),
    "not finite": (
        lambda s: s.update({"bbox_head.gfl_cls.bias": torch.full((80,), float("inf"))}),
        "hold NaN or infinity",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_any_mismatch_is_refused_and_leaves_the_model_alone(kind, model, tmp_path):
    clear(model)
    change, words = BROKEN[kind]
    torch.save({"state_dict": broken(change)}, tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint(model, tmp_path / "f.pth")
    assert "f.pth" in str(caught.value)
    assert all(bool((tensor == -1).all()) for tensor in model.state_dict().values())


class Code:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_with_code_is_refused_and_not_run(model, tmp_path):
    trap = tmp_path / "trap"
    torch.save({"state_dict": published(), "meta": Code(str(trap))}, tmp_path / "f.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, tmp_path / "f.pth")
    assert not trap.exists()
    message = str(caught.value)
    assert "open" in message and "would run code" in message and "save its weights alone" in message
    assert "and convert that" in message


@pytest.mark.parametrize("cut", [0.5, 0.98])
def test_truncated(model, tmp_path, cut):
    torch.save({"state_dict": {"a": torch.zeros(5000)}}, tmp_path / "f.pth")
    data = (tmp_path / "f.pth").read_bytes()
    (tmp_path / "f.pth").write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(model, tmp_path / "f.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"", "empty"),
        (b"nothing of the kind", "truncated, damaged, or not a PyTorch"),
    ],
)
def test_other_files(model, tmp_path, content, words):
    (tmp_path / "f.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(model, tmp_path / "f.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds list"),
        ({}, "holds dict"),
        (torch.ones(2), "holds Tensor"),
        ({"epoch": 3, "weights": {"a": torch.ones(1)}}, "Its keys: epoch, weights"),
    ],
)
def test_files_without_weights(tmp_path, content, words):
    torch.save(content, tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=words):
        read_openmmlab(tmp_path / "f.pth")


def test_missing_file(model, tmp_path):
    for name in ("f.pth", "f.safetensors"):
        with pytest.raises(MissingFileError):
            load_checkpoint(model, tmp_path / name)


def test_our_own_files_load_too(tmp_path):
    small = {"num_classes": 2, "fpn_channels": 16, "head_width": 16, "head_depth": 1}
    ours = create_model("gfocal_tiny", **small)
    save_safetensors(ours.state_dict(), tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        other = create_model("gfocal_tiny", **small)
        report = load_checkpoint(other, path)
        assert len(report.matched) == len(ours.state_dict())
        assert torch.equal(other.head.box.weight, ours.head.box.weight)


def test_our_own_state_dict_as_pth(tmp_path):
    small = {"num_classes": 2, "fpn_channels": 16, "head_width": 16, "head_depth": 1}
    ours, other = create_model("gfocal_tiny", **small), create_model("gfocal_tiny", **small)
    for content in (ours.state_dict(), {"model": {f"module.{k}": v for k, v in ours.state_dict().items()}}):
        clear(other)
        torch.save(content, tmp_path / "own.pth")
        assert load_checkpoint(other, tmp_path / "own.pth").ok
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in ours.state_dict().items())
    state = ours.state_dict()
    del state["neck.fpn_convs.0.bias"]
    torch.save(state, tmp_path / "own.pth")
    with pytest.raises(CheckpointError, match=r"(?s)missing +1\n +neck\.fpn_convs\.0\.bias\nunexpected +0"):
        load_checkpoint(other, tmp_path / "own.pth")
    with pytest.raises(CheckpointError, match="weights for 2 classes, the model has 3"):
        torch.save(ours.state_dict(), tmp_path / "own.pth")
        load_checkpoint(create_model("gfocal_tiny", **{**small, "num_classes": 3}), tmp_path / "own.pth")


def test_a_family_without_a_key_map_says_so():
    class Other(torch.nn.Module):
        family, config = "other", None

    with pytest.raises(ConfigError, match="family 'other'"):
        load_openmmlab_state(Other(), {"a": torch.ones(1)})
