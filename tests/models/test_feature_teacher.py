"""timm models as makers of features: their maps, their input, their weights, and those that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

from ld_hub.errors import CheckpointError, ConfigError, MissingFileError, UnknownNameError
from ld_hub.hub import save_safetensors
from ld_hub.models.feature_teacher import FeatureTeacher, create_feature_teacher


def encoder(name: str, **options: object) -> FeatureTeacher:
    torch.manual_seed(0)
    return create_feature_teacher(name, pretrained=False, **options).eval()  # type: ignore[arg-type]


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_vision_transformer_gives_its_patches_after_the_norm() -> None:
    made, whole = encoder("test_vit"), timm.create_model("test_vit", dynamic_img_size=True).eval()
    whole.load_state_dict(made.body.network.state_dict(), strict=False)  # but for the classifier
    assert (made.spec.strides, made.spec.channels, made.size_multiple) == ((16,), (64,), 16)
    assert made.data_config.mean == (127.5,) * 3  # its own, on the scale of pixels
    (found,) = made(images(50, 90))  # to 64 x 96 with zeros
    padded = torch.zeros(2, 3, 64, 96)
    padded[:, :, :50, :90] = images(50, 90)
    tokens = whole.forward_features(padded)[:, whole.num_prefix_tokens :]
    torch.testing.assert_close(found, tokens.transpose(1, 2).unflatten(2, (4, 6)))


@torch.no_grad()
def test_a_convolutional_model_gives_the_last_map_of_each_stride() -> None:
    made = encoder("test_resnet")
    whole = timm.create_model("test_resnet").eval()
    whole.load_state_dict({k.replace("_0.", ".0."): v for k, v in made.body.state_dict().items()}, strict=False)
    maps = made(images(50, 90))
    assert made.spec.strides == (2, 4, 8, 16, 32) and [m.shape[1] for m in maps] == list(made.spec.channels)
    assert [tuple(m.shape[2:]) for m in maps] == [(25, 45), (13, 23), (7, 12), (4, 6), (2, 3)]  # of any size
    torch.testing.assert_close(maps[-1], whole.forward_features(images(50, 90)))


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_weights_come_from_a_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = timm.create_model(name).eval()  # with its classifier, which is passed over
    file = save_safetensors(whole.state_dict(), tmp_path / "weights.safetensors")
    made = create_feature_teacher(name, checkpoint=file).eval()
    with torch.no_grad():
        size = whole.pretrained_cfg["input_size"][-1]
        last, expected = made(images(size, size))[-1], whole.forward_features(images(size, size))
    if name == "test_vit":
        expected = expected[:, whole.num_prefix_tokens :].transpose(1, 2).unflatten(2, (size // 16, size // 16))
    torch.testing.assert_close(last, expected)
    assert made.origin is None


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    other = save_safetensors(timm.create_model("test_vit3").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"feature_teacher_checkpoint .* does not fit 'test_vit'"):
        create_feature_teacher("test_vit", checkpoint=other)
    with pytest.raises(MissingFileError, match="feature_teacher_checkpoint: no file"):
        create_feature_teacher("test_vit", checkpoint=tmp_path / "none.safetensors")


def test_without_a_network_the_file_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LD_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=r"LD_HUB_OFFLINE forbids.*feature_teacher_checkpoint=FILE") as raised:
        create_feature_teacher("test_vit", cache_dir=tmp_path)
    assert "feature teacher 'test_vit'" in str(raised.value)


def test_names_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="vit_small_patch16_dinov3"):  # a near miss
        encoder("vit_small_patch16_dino3")
    with pytest.raises(ConfigError, match="images of 160 x 160 px"):  # of one size alone
        encoder("test_vit_relpos")


def test_a_model_for_classification_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def classifier(pretrained: bool = False, features_only: bool = False, **options: object) -> nn.Module:
        if features_only:
            raise RuntimeError("features_only is not implemented")
        return nn.Linear(3, 3)

    monkeypatch.setitem(timm.models._registry._model_entrypoints, "only_classifies", classifier)
    with pytest.raises(ConfigError, match=r"cannot give features \(RuntimeError: features_only is not implemented\)"):
        encoder("only_classifies")


def test_a_module_of_the_users_own() -> None:
    body = nn.Sequential(nn.Conv2d(3, 7, 8, stride=8))
    body.forward = lambda x: [body[0](x)]  # type: ignore[method-assign]
    made = FeatureTeacher(body, name="mine", strides=(8,), channels=(7,), size_multiple=8)
    assert made(images(20, 30))[0].shape == (2, 7, 3, 4)
    with pytest.raises(ConfigError, match="1 strides and 2 numbers"):
        FeatureTeacher(body, name="mine", strides=(8,), channels=(7, 7))
    with pytest.raises(ConfigError, match=r"maps of \(7,\) channels, not of \(9,\)"):
        FeatureTeacher(body, name="mine", strides=(8,), channels=(9,), size_multiple=8)(images(8, 8))
