"""What every family inherits: input checks, channels, labels, the cache of grids."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector, DetectorConfig
from ld_hub.models.factory import create_model
from ld_hub.preprocessing import DataConfig, TrainTransform, collate, create_transform, resolve_data_config

TINY = {"num_classes": 2, "fpn_channels": 16, "head_width": 16, "head_depth": 1}


def test_a_grey_model_is_trained_and_used() -> None:
    torch.manual_seed(0)
    model = create_model("gfocal_tiny", in_chans=1, **TINY)
    assert model.data_config.mean == (127.5,)  # this backbone's own mean is 0.5 for each colour
    model.data_config = replace(model.data_config, image_size=(64, 96))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 90, 3), dtype=np.uint8))
    batch = collate([TrainTransform(model.data_config)(picture, torch.tensor([[8.0, 8, 50, 60]]))])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    first = next(p for p in model.backbone.parameters() if p.ndim == 4)
    assert first.shape[1] == 1
    before = first.detach().clone()
    losses = model.loss(model(batch.images), batch.targets)
    sum(losses.values()).backward()
    optimizer.step()
    assert all(loss.isfinite() for loss in losses.values())
    assert not torch.equal(before, first)
    grey = picture.convert("L")
    with torch.no_grad():
        torch.nn.init.zeros_(model.head.cls.bias)
    colour, plain = model.predict(picture), model.predict(grey)
    assert len(colour) > 0
    torch.testing.assert_close(colour.boxes, plain.boxes)


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_no_image_has(channels: int) -> None:
    model = create_model("gfocal_tiny", in_chans=channels, **TINY).eval()
    assert model.data_config.channels == channels
    with pytest.raises(ConfigError, match=rf"takes {channels} channels and images have 1 or 3.*model\(tensor\)"):
        model.predict(Image.new("RGB", (64, 64)))
    assert model(torch.randn(1, channels, 64, 64)).cls_logits.isfinite().all()


def test_data_config_and_channels_must_agree() -> None:
    with pytest.raises(ConfigError, match="mean and std of 3 channels, but in_chans is 1"):
        model = create_model("gfocal_tiny", **TINY)
        type(model)(replace(model.config, in_chans=1), data_config=DataConfig())


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 64, 64), [r"(3, 64, 64)", "(N, 3, H, W)", "image[None]"]),
        (torch.zeros(1, 1, 64, 64), [r"(1, 1, 64, 64)", "(N, 3, H, W)"]),
        (torch.zeros(1, 64, 64, 3), [r"(1, 64, 64, 3)"]),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), ["torch.uint8", "create_transform", "model.predict"]),
        ("a.jpg", ["str", "model.predict"]),
    ],
)
def test_wrong_input_is_named(images: object, words: list[str]) -> None:
    model = create_model("gfocal_tiny", **TINY)
    with pytest.raises(ConfigError) as caught:
        model(images)
    assert all(word in str(caught.value) for word in words), caught.value


def test_the_advised_transform_works(tmp_path) -> None:
    model = create_model("gfocal_tiny", **TINY).eval()
    Image.new("RGB", (70, 50), "red").save(tmp_path / "a.png")
    config = {**resolve_data_config(model), "image_size": (50, 70)}
    image = create_transform(**config)(tmp_path / "a.png")
    assert image.shape == (3, 50, 70)
    assert len(model(image[None]).priors) == model.make_priors(50, 70, "cpu").centers.shape[0]


def test_whole_numbers_of_other_libraries() -> None:
    config = DetectorConfig(num_classes=np.int64(4), head_depth=np.int32(2))
    assert (config.num_classes, type(config.num_classes), type(config.head_depth)) == (4, int, int)
    for wrong in (True, 4.0, "4", np.bool_(True)):
        with pytest.raises(ConfigError, match=r"num_classes is .*expected a whole number"):
            DetectorConfig(num_classes=wrong)
    model = create_model("gfocal_tiny", **{**TINY, "num_classes": np.int64(2)}, category_ids=np.array([3, 9]))
    assert model.category_ids == (3, 9) and all(type(i) is int for i in model.category_ids)
    with pytest.raises(ConfigError, match="category_ids is 'b'"):
        create_model("gfocal_tiny", **TINY, category_ids=["b", "c"])


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("norm_eval", "no", "norm_eval is 'no'; expected True or False"),
        ("norm_eval", 1, "norm_eval is 1; expected True or False"),
        ("anchor_scale", "4", "anchor_scale is '4'; expected a number"),
        ("anchor_scale", True, "anchor_scale is True; expected a number"),
        ("anchor_scale", float("nan"), "anchor_scale is nan"),
    ],
)
def test_values_of_another_kind(field: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_model("gfocal_tiny", **{**TINY, field: value})


def test_saved_with_numpy_numbers(tmp_path) -> None:
    model = create_model("gfocal_tiny", **{**TINY, "num_classes": np.int64(2)}, category_ids=[np.int64(3), 9])
    assert create_model(model.save_pretrained(tmp_path / "m")).category_ids == (3, 9)


def test_grids_are_not_copied_and_follow_their_settings() -> None:
    model = create_model("gfocal_tiny", **TINY).eval()
    first = model.make_priors(64, 64, "cpu")
    assert model.make_priors(64, 64, "cpu") is first
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other._priors == {} and len(model._priors) == 1
        assert torch.equal(other(torch.zeros(1, 3, 64, 64)).cls_logits, model(torch.zeros(1, 3, 64, 64)).cls_logits)
    model.data_config = replace(model.data_config, size_divisor=64)
    assert model.make_priors(64, 64, "cpu").size_divisor == 64
    model.config = replace(model.config, anchor_scale=2 * model.config.anchor_scale)
    wide = model.make_priors(64, 64, "cpu").anchors
    assert wide is not None and first.anchors is not None
    assert wide[0, 2] - wide[0, 0] == 2 * (first.anchors[0, 2] - first.anchors[0, 0])


def test_a_family_without_a_grid_cannot_be_built() -> None:
    class Half(DenseDetector):
        family = "half"

    with pytest.raises(TypeError, match="build_priors"):
        Half(DetectorConfig(backbone="test_resnet"))


@pytest.mark.parametrize("name", ["gfocal", "gfocalv2", "atss", "fcos", "retinanet"])
def test_the_forward_pass_in_two_halves(name: str) -> None:
    model = create_model(name, backbone="test_resnet", **TINY).eval()
    images = torch.rand(2, 3, 70, 97)
    with torch.no_grad():
        whole = model(images, features=True, towers=True)
        pyramid = model.forward_features(images)
        half = model.forward_head(pyramid, towers=True)
    info = model.feature_info
    assert isinstance(pyramid, tuple) and len(pyramid) == len(info) == 5
    for level, channels, stride, module in zip(
        pyramid, info.channels(), info.reduction(), info.module_name(), strict=True
    ):
        assert level.shape == (2, channels, -(-70 // stride), -(-97 // stride))
        seen = []
        handle = model.get_submodule(module).register_forward_hook(lambda *call, seen=seen: seen.append(call[-1]))
        with torch.no_grad():
            model(images)
        handle.remove()
        assert torch.equal(seen[0], level)
    for field in ("cls_logits", "box"):
        assert torch.equal(getattr(half, field), getattr(whole, field))
    assert (half.quality is None) == (whole.quality is None)
    assert half.quality is None or torch.equal(half.quality, whole.quality)
    assert half.priors is whole.priors is model.make_priors(70, 97, "cpu")
    assert half.features is None and whole.features is not None and half.towers is not None
    assert all(torch.equal(a, b) for a, b in zip(whole.features, pyramid, strict=True))
    with pytest.raises(ConfigError, match=r"\(N, 3, H, W\)"):
        model.forward_features(images[0])


def test_facts_by_timms_names() -> None:
    model = create_model("gfocal_r18", **TINY, label_names=["cat", "dog"])
    assert (model.num_classes, model.num_features) == (2, 16)
    assert model.get_classifier() is model.get_submodule(model.pretrained_cfg["classifier"])
    timms = model.backbone.pretrained_cfg
    assert model.default_cfg["mean"] == pytest.approx(timms["mean"]) and model.default_cfg == model.pretrained_cfg
    assert model.pretrained_cfg["std"] == pytest.approx(timms["std"])
    assert model.pretrained_cfg["input_size"] == (3, 800, 1333)
    assert model.pretrained_cfg["label_names"] == ("cat", "dog")


def test_gradient_checkpointing_changes_no_gradient() -> None:
    """Also where stages in front are frozen, so that what is recomputed gets an input without gradient."""
    torch.manual_seed(0)
    model = create_model("gfocal_tiny", frozen_stages=1, norm_eval=True, **TINY).double().train()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)

    def gradients() -> tuple[dict[str, torch.Tensor], int]:
        model.zero_grad()
        calls = []
        handle = model.backbone.body.layer2.register_forward_pre_hook(lambda *_: calls.append(1))
        output = model(images)
        (output.cls_logits.sum() + output.box.square().sum()).backward()
        handle.remove()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, len(calls)

    plain, calls = gradients()
    assert calls == 1 and any("layer2" in name for name in plain)
    model.set_grad_checkpointing()
    checkpointed, calls = gradients()
    assert calls == 2  # once more in the backward pass
    model.set_grad_checkpointing(False)
    assert gradients()[1] == 1
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-9, atol=1e-12)
    model.backbone.body = torch.nn.Identity()
    with pytest.raises(ConfigError, match="'test_resnet' does not know gradient checkpointing"):
        model.set_grad_checkpointing()


def test_timms_way_to_the_transform() -> None:
    model = create_model("gfocal_tiny", **TINY)
    assert resolve_data_config({}, model=model) == resolve_data_config(model) == model.data_config.to_dict()
    wishes = {"image_size": (50, 70), "mean": None, "crop_pct": 0.9, "input_size": (3, 224, 224)}
    config = resolve_data_config(wishes, model=model)
    assert config == {**resolve_data_config(model), "image_size": [50, 70]}
    assert create_transform(**config, is_training=False)(Image.new("RGB", (140, 100))).shape == (3, 50, 70)
    with pytest.raises(ConfigError, match="TrainTransform"):
        create_transform(**config, is_training=True)
    with pytest.raises(ConfigError, match="image_size"):
        resolve_data_config({"image_size": 224}, model=model)
