"""Weights of other classes: everything is kept but the class predictor, and it is said."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.models.checkpoints.convert import load_checkpoint, load_openmmlab_state
from ld_hub.models.checkpoints.pretrained import load_pretrained, load_weights
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.registry import MODELS, ModelEntry, PretrainedCfg
from tests.support import golden

SMALL: dict[str, Any] = {"backbone": "test_resnet", "fpn_channels": 16, "head_width": 16, "head_depth": 1}
FAMILIES = ("gfocal", "gfocalv2", "atss", "fcos", "retinanet")
RESET = ["head.cls.bias", "head.cls.weight"]
PRIOR = -math.log(99)  # focal loss, arXiv 1708.02002, sec. 4.1


def save(family: str, place: Path, classes: int = 4) -> tuple[DenseDetector, Path]:
    """A model without a tensor that a fresh one would have, and its directory."""
    torch.manual_seed(0)
    model = create_model(family, num_classes=classes, **SMALL)
    random = torch.Generator().manual_seed(1)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.05 + 0.05 * torch.rand(tensor.shape, generator=random))
    return model, model.save_pretrained(place / "m")


def assert_fresh_for(model: DenseDetector, donor: DenseDetector, classes: int) -> None:
    """All is the donor's but the class predictor, which is as at the start of a training."""
    anchors = 9 if model.family == "retinanet" else 1
    own, theirs = model.state_dict(), donor.state_dict()
    assert own.keys() == theirs.keys()
    assert sorted(name for name in own if own[name].shape != theirs[name].shape) == RESET
    assert all(torch.equal(own[name], theirs[name]) for name in own if name not in RESET)
    assert own["head.cls.weight"].shape[0] == anchors * classes
    assert torch.allclose(own["head.cls.bias"], torch.full((anchors * classes,), PRIOR))
    assert 0.008 < own["head.cls.weight"].std() < 0.012
    assert model.config.num_classes == model.spec.num_classes == model.num_classes == classes


@pytest.mark.parametrize("family", FAMILIES)
def test_a_directory_with_other_classes(family: str, tmp_path: Path) -> None:
    donor, place = save(family, tmp_path)
    kept = len(donor.state_dict()) - 2
    said = rf"kept {kept} tensors, reset head\.cls\.weight, head\.cls\.bias \(4 -> 7 classes"
    ways = (
        lambda: create_model(place, num_classes=7),
        lambda: create_model(f"local-dir:{place}", pretrained=True, num_classes=7),
        lambda: create_model(family, num_classes=7, checkpoint_path=place, **SMALL),
        lambda: DenseDetector.from_pretrained(place, num_classes=7),
    )
    for way in ways:
        with pytest.warns(UserWarning, match=said) as caught:
            model = way()
        assert len(caught) == 1
        assert_fresh_for(model, donor, 7)
        assert model.label_names == tuple(f"class_{i}" for i in range(7)) and not model.training
    saved = create_model(model.save_pretrained(tmp_path / "again"))
    assert saved.spec == model.spec
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        output = model(images)
        assert output.cls_logits.isfinite().all() and torch.equal(saved(images).cls_logits, output.cls_logits)
        assert output.box.isfinite().all() and torch.equal(donor.eval()(images).box, output.box)


def test_names_of_other_classes(tmp_path: Path) -> None:
    donor, place = save("gfocal", tmp_path)
    with pytest.warns(UserWarning, match="4 -> 2 classes"):  # that one name is the same changes nothing
        model = create_model(place, label_names=["class_0", "dog"], category_ids=[5, 9])
    assert_fresh_for(model, donor, 2)
    assert (model.label_names, model.category_ids) == (("class_0", "dog"), (5, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as many names: other names for the same classes
        same = create_model(place, label_names=["a", "b", "c", "d"])
        assert torch.equal(create_model(place, num_classes=4).head.cls.weight, donor.head.cls.weight)
    assert torch.equal(same.head.cls.weight, donor.head.cls.weight)
    with pytest.raises(ConfigError, match="label_names has 2 entries, but num_classes is 3"):
        load_pretrained(place, num_classes=3, label_names=["cat", "dog"])


def test_a_tag_and_a_hub_name_with_other_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donor, place = save("gfocal", tmp_path)
    entry = MODELS["gfocal_tiny"]
    tags = {"mine": PretrainedCfg(file=str(place), num_classes=4)}
    monkeypatch.setitem(
        MODELS._entries, "gfocal_tiny", ModelEntry(entry.name, "gfocal", entry.build, entry.config, None, tags)
    )
    monkeypatch.setattr("ld_hub.models.factory.download", lambda *_, **__: place)
    for name in ("gfocal_tiny", "gfocal_tiny.mine", "hf-hub:org/name"):
        with pytest.warns(UserWarning, match="4 -> 8 classes"):
            model = create_model(name, pretrained=True, num_classes=8)
        assert_fresh_for(model, donor, 8)


def test_an_openmmlab_file_with_other_classes(tmp_path: Path) -> None:
    info, _ = golden.load("keys_LD_gfl_r18_voc")
    state = {
        name: torch.tensor(0.25 if item["dtype"] == "float32" else 3).expand(item["shape"])
        for name, item in info["keys"].items()
    }
    state["bbox_head.integral.project"] = torch.arange(17.0)
    torch.save({"state_dict": state}, tmp_path / "voc.pth")
    kept = info["num_keys"] - 3  # without class weight, class bias and the bins
    with pytest.warns(UserWarning, match=rf"voc\.pth': kept {kept} tensors, reset .* \(20 -> 8 classes"):
        model = create_model("gfocal_r18", num_classes=8, checkpoint_path=tmp_path / "voc.pth")
    assert bool((model.head.box.weight == 0.25).all()) and torch.allclose(model.head.cls.bias, torch.tensor(PRIOR))
    # who did not say how many classes there shall be is told what the file has
    with pytest.raises(CheckpointError, match=r"weights for 20 classes, the model has 80.*num_classes=20"):
        create_model("gfocal_r18", checkpoint_path=tmp_path / "voc.pth")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match="weights for 20 classes, the model has 8"):
        load_checkpoint(model, tmp_path / "voc.pth")
    bad = {**state, "bbox_head.gfl_reg.bias": torch.zeros(9)}
    with pytest.raises(CheckpointError, match=r"(?s)does not fit.*head\.box\.bias: \[9\] in the file"):
        load_openmmlab_state(model, bad, new_classes=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_but_the_class_predictor_may_differ(family: str, tmp_path: Path) -> None:
    _, place = save(family, tmp_path)
    model = create_model(family, num_classes=7, **SMALL)
    with pytest.raises(CheckpointError, match="weights for 4 classes, the model has 7"):
        load_weights(model, place / "model.safetensors")
    wide = create_model(family, num_classes=7, **{**SMALL, "head_width": 32})
    with pytest.raises(CheckpointError, match=r"does not fit the model"):
        load_weights(wide, place / "model.safetensors", new_classes=True)
    with pytest.raises(CheckpointError, match=r"does not fit the model"):
        create_model(place, num_classes=7, head_depth=2)
    report = load_weights(create_model(family, num_classes=4, **SMALL), place / "model.safetensors", new_classes=True)
    assert report.reset == () and report.summary.endswith(f"kept {len(report.matched)} tensors.")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_head_on_a_model_in_hand(family: str, tmp_path: Path) -> None:
    donor, _ = save(family, tmp_path)
    model = copy.deepcopy(donor).double().train()
    assert model.get_classifier() is model.head.cls
    model.reset_head(3, ["red", "green", "blue"])
    assert model.get_classifier().weight.dtype == torch.float64 and model.training
    assert_fresh_for(model.float(), donor, 3)
    assert (model.label_names, model.category_ids) == (("red", "green", "blue"), (0, 1, 2))
    assert model.spec.label_names == ("red", "green", "blue")
    output = model(torch.rand(2, 3, 64, 64))
    assert output.num_classes == 3
    output.cls_logits.sum().backward()
    assert model.get_classifier().weight.grad is not None
    assert create_model(model.save_pretrained(tmp_path / "new")).spec == model.spec
    model.reset_classifier(80)  # timm's name
    assert model.label_names[0] == "person" and model.category_ids[-1] == 90


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_classes": 2, "label_names": ["a"]}, "label_names has 1 entries, but num_classes is 2"),
        ({"num_classes": 3, "label_names": "cat"}, "label_names is the text 'cat'"),
        ({"num_classes": 2, "category_ids": [1, 2.5]}, "category_ids is 2.5"),
    ],
)
def test_a_wrong_new_head_leaves_the_model_as_it_was(arguments: dict[str, Any], words: str) -> None:
    model = create_model("gfocal", num_classes=4, **SMALL)
    layer, config, labels = model.head.cls, model.config, model.label_names
    with pytest.raises(ConfigError) as caught:
        model.reset_head(**arguments)
    assert words in str(caught.value)
    assert model.head.cls is layer and (model.config, model.label_names) == (config, labels)
