"""Sizes of feature maps, for every kind of rounding a body has."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from ld_hub.errors import CheckpointError, ConfigError
from ld_hub.hub import save_safetensors
from ld_hub.models.backbones import Backbone
from ld_hub.models.gfocal import GFocal, GFocalConfig
from ld_hub.structures import Targets

SWIN = "swin_tiny_patch4_window7_224"


@pytest.mark.parametrize(
    ("name", "multiple"), [("test_resnet", 1), ("tf_efficientnet_lite0", 1), ("test_convnext", 32), (SWIN, 32)]
)
def test_maps_round_up_for_every_body(name: str, multiple: int) -> None:
    backbone = Backbone(name).eval()
    assert backbone.size_multiple == multiple
    with torch.no_grad():
        for height, width in ((97, 131), (33, 64)):
            maps = backbone(torch.randn(1, 3, height, width))
            assert [m.shape[2:] for m in maps] == [(-(-height // s), -(-width // s)) for s in (8, 16, 32)]


def test_padding_is_at_the_right_and_bottom_and_only_where_needed() -> None:
    backbone = Backbone("test_convnext").eval()
    image = torch.randn(1, 3, 70, 64)
    padded = torch.cat([image, torch.zeros(1, 3, 26, 64)], dim=2)
    with torch.no_grad():
        for small, large in zip(backbone(image), backbone.body(padded), strict=True):
            assert torch.equal(small, large[:, :, : small.shape[2]])


def test_bodies_that_fit_no_size_are_refused_when_built() -> None:
    with pytest.raises(ConfigError, match="neither of any size nor of multiples of 32 or 224 px"):
        Backbone("coatnet_nano_rw_224")


def test_swin_trains_and_predicts_on_odd_sizes() -> None:
    model = GFocal(GFocalConfig(backbone=SWIN, num_classes=2, fpn_channels=16, head_width=16, head_depth=1))
    output = model(torch.randn(1, 3, 75, 101))
    truth = Targets.pad([torch.tensor([[5.0, 5, 60, 70]])], [torch.tensor([1])], torch.tensor([[75, 101]]))
    loss = sum(model.loss(output, truth).values())
    assert isinstance(loss, torch.Tensor) and loss.isfinite()
    loss.backward()
    grad = model.backbone.body.patch_embed.proj.weight.grad
    assert grad is not None and grad.any()


def test_offline_takes_what_was_fetched_before_and_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    asked = []
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *a, **k: asked.append(a))
    with pytest.raises(CheckpointError, match="LD_HUB_OFFLINE forbids the network, and they were not fetched before"):
        Backbone("test_resnet", pretrained=True, cache_dir=tmp_path)
    cfg = timm.get_pretrained_cfg("test_resnet")
    classifier = timm.create_model("test_resnet")
    place = tmp_path / f"models--{cfg.hf_hub_id.replace('/', '--')}"  # as huggingface_hub lays out its cache
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    save_safetensors(classifier.state_dict(), place / "snapshots" / "abc" / "model.safetensors")
    backbone = Backbone("test_resnet", pretrained=True, cache_dir=tmp_path)
    expected = classifier.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.body.state_dict().items())
    assert backbone.initialized_from == "pretrained" and not asked


def test_asking_for_sizes_leaves_mode_and_statistics() -> None:
    backbone = Backbone("test_resnet")
    assert all(module.training for module in backbone.modules())
    for name, value in backbone.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert value == 0
