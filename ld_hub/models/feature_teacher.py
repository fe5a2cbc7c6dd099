"""Image encoders as teachers of features: any timm model, or a module of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ld_hub.errors import ConfigError, unknown_name
from ld_hub.models.timm_features import (
    Use,
    channels_first,
    create_network,
    load_weights,
    pad_to_multiple,
    size_multiple,
    stages_of,
    weights_file,
)
from ld_hub.preprocessing import DataConfig
from ld_hub.structures import EncoderSpec

USE = Use(
    what="feature teacher",
    checkpoint="feature_teacher_checkpoint",
    fitting="Models of timm with maps fit: convolutional ones (resnet50, convnext_tiny) and vision transformers "
    "(vit_small_patch16_dinov3, vit_small_patch14_dinov2).",
    without="another feature_teacher",
)


class FeatureTeacher(nn.Module):
    """An image encoder whose maps a student learns from.

    Args:
        body: Images ``(N, K, H, W)``, normalised as `data_config` says, to maps ``(N, F_k, H_k, W_k)``.
        name: What it is called.
        strides: px per cell of each map, finest first; the cells begin at the images' top-left corner.
        channels: Channels of each map.
        data_config: Mean and standard deviation of its input.
        size_multiple: What the sides of its images have to be multiples of, in px; it gets them padded.
        origin: ``org/name@commit`` of weights from the Hub.
    """

    def __init__(
        self,
        body: nn.Module,
        *,
        name: str,
        strides: tuple[float, ...],
        channels: tuple[int, ...],
        data_config: DataConfig | None = None,
        size_multiple: int = 1,
        origin: str | None = None,
    ) -> None:
        super().__init__()
        if not strides or len(strides) != len(channels):
            raise ConfigError(
                f"Feature teacher '{name}' has {len(strides)} strides and {len(channels)} numbers of channels; "
                "expected one of each for every map."
            )
        self.body, self.name, self.origin = body, name, origin
        self.spec = EncoderSpec(name, tuple(strides), tuple(channels))
        self.data_config = data_config or DataConfig()
        self.size_multiple = size_multiple

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(N, K, H, W)`` to the maps; what was padded for the encoder alone is still on them."""
        maps = channels_first(self.body, list(self.body(pad_to_multiple(images, self.size_multiple))))
        found = tuple(each.shape[1] for each in maps)
        if found != self.spec.channels:
            said = self.spec.channels
            raise ConfigError(f"Feature teacher '{self.name}' gives maps of {found} channels, not of {said}.")
        return tuple(maps)


class _PatchGrid(nn.Module):
    """The patch tokens of a vision transformer after its last block and norm, as one map."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        options = {"indices": 1, "norm": True, "output_fmt": "NCHW", "intermediates_only": True}
        return list(self.network.forward_intermediates(images, **options))


def create_feature_teacher(
    name: str,
    *,
    in_chans: int = 3,
    pretrained: bool = True,
    checkpoint: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> FeatureTeacher:
    """A timm model as a teacher of features.

    Of a model with maps at several strides the last at each stride teaches; of a vision transformer, whose maps all
    have the stride of its patches, the last block's, after the norm.

    Args:
        name: In timm, with an optional ``.tag``.
        in_chans: Channels of the student's images.
        pretrained: Load timm's weights (fetched once); False leaves random numbers.
        checkpoint: Local safetensors file under timm's names; nothing is fetched.
        cache_dir: Cache of downloads instead of huggingface_hub's own.

    Raises:
        UnknownNameError: If timm has no such model.
        ConfigError: If it gives no maps, or takes images of one size alone.
        CheckpointError: If the weights cannot be had.
        MissingFileError: If there is no such file.
    """
    if not timm.is_model(name):
        raise unknown_name("feature teacher", name, timm.list_models(), USE.fitting)
    stages = stages_of(name, USE)
    last = {stage.reduction: index for index, stage in enumerate(stages)}
    strides, plain = tuple(sorted(last)), len(last) == 1
    chosen = tuple(last[stride] for stride in strides)
    options = {"num_classes": 0} if plain else {"features_only": True, "out_indices": chosen}
    fetch = pretrained and checkpoint is None
    network = create_network(name, USE, pretrained=fetch, cache_dir=cache_dir, in_chans=in_chans, **options)
    if checkpoint is not None:
        load_weights(network, checkpoint, name, USE)
    described = timm.get_pretrained_cfg(name)  # None for timm's deprecated names
    cfg = {} if described is None else dict(described.to_dict())
    body = _PatchGrid(network) if plain else network
    trained_at = int(cfg.get("input_size", (3, 224, 224))[-1])
    multiple = size_multiple(body, strides, in_chans, trained_at)
    if multiple is None:
        raise ConfigError(
            f"feature teacher '{name}' takes images neither of any size nor of multiples of {max(strides)} or "
            f"{trained_at} px: it is made for images of {trained_at} x {trained_at} px. {USE.fitting}"
        )
    with torch.no_grad():
        maps = channels_first(body, list(body.eval()(torch.zeros(1, in_chans, 2 * max(strides), max(strides)))))
    return FeatureTeacher(
        body,
        name=name,
        strides=strides,
        channels=tuple(each.shape[1] for each in maps),
        data_config=DataConfig.from_timm(cfg, in_chans),
        size_multiple=multiple,
        origin=_origin(name, cache_dir) if fetch else None,
    )


def _origin(name: str, cache_dir: str | Path | None) -> str | None:
    """``org/name@commit`` of weights that were fetched: the cache keeps each commit in a directory of its name."""
    file = weights_file(name, cache_dir)
    return None if file is None else f"{timm.get_pretrained_cfg(name).hf_hub_id}@{file.parent.name}"
