"""timm backbones as feature extractors at strides 8, 16, 32."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from ld_hub.errors import CheckpointError, ConfigError, unknown_name
from ld_hub.layers.deformable import DeformableConv2d
from ld_hub.models.short_names import OFFSETS, SHORT_NAMES, ShortName, with_offsets
from ld_hub.models.timm_features import (
    Use,
    channels_first,
    create_network,
    layer_numbers,
    load_weights,
    nearest,
    pad_to_multiple,
    size_multiple,
    stages_of,
)
from ld_hub.preprocessing import DataConfig

REDUCTIONS = (8, 16, 32)
FITTING = "Fitting models: resnet*, resnext*, convnext*, efficientnet*, mobilenetv*, swin*, regnet*."
USE = Use(
    what="backbone",
    checkpoint="backbone_checkpoint",
    fitting="Any timm model with features at strides 8, 16, 32 fits, e.g. resnet50, convnext_tiny, efficientnet_b0.",
    without="pretrained_backbone=False",
)
LOADED = "checkpoint"  # `Backbone.initialized_from` of weights that came with a whole detector's


def timm_name(backbone: str) -> str:
    """Name in timm of a backbone given by a short or a full name.

    Raises:
        UnknownNameError: If timm has no such model.
        ConfigError: If it is no name.
    """
    if not isinstance(backbone, str):  # from a config.json
        raise ConfigError(f"backbone is {backbone!r}; expected a name, such as 'resnet50'.")
    full = SHORT_NAMES[backbone].timm if backbone in SHORT_NAMES else backbone
    if not timm.is_model(full):
        known = [*SHORT_NAMES, *timm.list_models()]
        raise unknown_name("backbone", backbone, known, "Any timm model with features at strides 8, 16, 32 fits.")
    return full


class Backbone(nn.Module):
    """A timm model that returns its maps at strides 8, 16 and 32.

    Some short names are timm models with a change (`ld_hub.models.short_names`): ``*_caffe`` as Caffe had them,
    ``*_dcn`` and ``*_dcnv2`` with deformable convolutions, ``mobilenetv2_leaky``, ``swin_t`` with a layer norm per map.

    Args:
        name: Short name or any timm name with an optional ``.tag``.
        in_chans: Input channels.
        pretrained: Load timm's weights (downloads once).
        checkpoint: Local safetensors file under timm's key names; wins over `pretrained`.
        frozen_stages: Freeze the stem and this many stages (1: up to stride 4), parameters and batch statistics.
        norm_eval: Keep all batch norms on their running statistics while training.
        cache_dir: Cache of downloads instead of huggingface_hub's own.

    Attributes:
        initialized_from: ``"pretrained"`` (timm's weights), the path of `checkpoint`, ``"checkpoint"`` once
            `load_state_dict` has loaded all of its weights, alone or within a detector; None for random numbers.

    Raises:
        ConfigError: If the model has no features at these strides.
    """

    def __init__(
        self,
        name: str,
        *,
        in_chans: int = 3,
        pretrained: bool = False,
        checkpoint: str | Path | None = None,
        frozen_stages: int = 0,
        norm_eval: bool = False,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.timm_name = timm_name(name)
        self.name, self.in_chans = name, in_chans
        self.style = style = SHORT_NAMES.get(name) or ShortName(self.timm_name)
        self.norm_eval = norm_eval or style.constant_norms
        if style.constant_norms and pretrained and checkpoint is None:
            raise CheckpointError(
                f"timm has no weights for the backbone '{name}'. Pass backbone_checkpoint=FILE.safetensors (Caffe "
                "weights under timm's names), or use 'r50' or 'r101', whose weights are fetched."
            )
        self.body = _create_body(style, in_chans, pretrained and checkpoint is None, cache_dir)
        if style.adapt is not None:
            style.adapt(self.body)
        self.channels: tuple[int, ...] = tuple(self.body.feature_info.channels())
        self.norms = nn.ModuleList(map(nn.LayerNorm, self.channels)) if style.output_norms else None
        described = timm.get_pretrained_cfg(self.timm_name)  # None for timm's deprecated names
        self.pretrained_cfg: dict[str, Any] = dict(described.to_dict()) if described is not None else {}
        trained_at = self.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
        multiple = size_multiple(self.body, REDUCTIONS, in_chans, int(trained_at))
        if multiple is None:
            raise ConfigError(
                f"Backbone '{name}' takes images neither of any size nor of multiples of {max(REDUCTIONS)} or "
                f"{trained_at} px, or gives maps at other strides than it declares, so no detector can stand on it. "
                f"{FITTING}"
            )
        self.size_multiple = multiple
        self.initialized_from: str | None = "pretrained" if pretrained else None
        if checkpoint is not None:
            load_weights(self.body, checkpoint, self.timm_name, USE)
            self.initialized_from = str(checkpoint)
        self.register_load_state_dict_post_hook(_note_loading)  # type: ignore[no-untyped-call]  # untyped in torch
        self._frozen = list(self._stages(frozen_stages)) if frozen_stages else []
        if style.constant_norms:
            self._frozen += list(_batch_norms(self.body))
        for parameter in self._frozen_parameters():
            parameter.requires_grad_(False)

    def data_config(self) -> DataConfig:
        """How images become input, as the backbone's weights expect."""
        return self.style.data_config or DataConfig.from_timm(self.pretrained_cfg, self.in_chans)

    @property
    def offset_channels(self) -> int | None:
        """What its deformable convolutions predict, 18 (version 1) or 27 (version 2); None without any."""
        found = (m.offset_channels for m in self.body.modules() if isinstance(m, DeformableConv2d))
        return next(found, None)

    def use_offsets(self, channels: int) -> str:
        """Change to the version of deformable convolution with so many offset channels; new offsets are zero.

        Args:
            channels: 18 or 27. Its parameters are new ones: call it before there is an optimizer.

        Returns:
            The short name it has from now on.

        Raises:
            ConfigError: If there is no such backbone.
        """
        name = with_offsets(self.name, channels)
        if name is None:
            raise ConfigError(
                f"backbone '{self.name}' cannot have {channels} offset channels; expected a deformable one, "
                f"e.g. 'r101_dcn', and {' or '.join(map(str, OFFSETS.values()))}."
            )
        if name != self.name:
            for module in list(self.body.modules()):
                if isinstance(module, DeformableConv2d):
                    module.set_version(not module.modulated)
            self.name, self.style = name, SHORT_NAMES[name]
        return name

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(N, in_chans, H, W)`` to three maps ``(N, C_l, ceil(H/s), ceil(W/s))`` for s = 8, 16, 32."""
        height, width = images.shape[-2:]
        maps: list[Tensor] = self.body(pad_to_multiple(images, self.size_multiple))
        if self.norms is not None:  # of maps with the channels last
            maps = [norm(m) for norm, m in zip(self.norms, maps, strict=True)]
        maps = channels_first(self.body, maps)
        if self.size_multiple > 1:
            maps = [m[:, :, : -(-height // s), : -(-width // s)] for m, s in zip(maps, REDUCTIONS, strict=True)]
        return maps

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode, except for frozen stages and (`norm_eval`) batch norms."""
        super().train(mode)
        if mode:
            for module in self._frozen:
                module.eval()
            if self.norm_eval:
                for module in _batch_norms(self):
                    module.eval()
        return self

    def layers_of_parameters(self) -> dict[str, int]:
        """Number of the layer of each parameter of the network by name, 0 at the stem, as timm's layer decay counts.

        Raises:
            ConfigError: If timm does not say what its layers are.
        """
        layers = layer_numbers(self.timm_name, USE)
        return {f"body.{name}": nearest(name, layers) for name, _ in self.body.named_parameters()}

    def _stages(self, count: int) -> Iterator[nn.Module]:
        """Top modules of the stem and the first `count` stages, in the order of the forward pass."""
        reduction = 2 ** (count + 1)
        ends = [stage.module for stage in stages_of(self.timm_name, USE) if stage.reduction == reduction]
        if not ends:
            raise ConfigError(f"frozen_stages: backbone '{self.name}' has no stage that ends at stride {reduction}.")
        last = _flat(ends[-1])
        for name, module in self.body.named_children():
            if not last.startswith(_flat(name)):
                yield module
            elif last == _flat(name):
                yield module
                return
            else:  # stages inside one container, as EfficientNet's `blocks`
                for child, block in module.named_children():
                    yield block
                    if _flat(f"{name}.{child}") == last:
                        return

    def _frozen_parameters(self) -> Iterator[nn.Parameter]:
        for module in self._frozen:
            yield from module.parameters()


def _note_loading(backbone: Any, keys: Any) -> None:
    """After `load_state_dict` of the backbone or of a module around it."""
    missing = {name.rpartition("backbone.")[2] for name in keys.missing_keys}
    if missing.isdisjoint(backbone.state_dict()):
        backbone.initialized_from = LOADED


def _batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))


def _create_body(style: ShortName, in_chans: int, pretrained: bool, cache_dir: str | Path | None) -> Any:
    """The timm feature extractor; errors name what would fit."""
    reductions = [stage.reduction for stage in stages_of(style.timm, USE)]
    wanted = [max((i for i, r in enumerate(reductions) if r == s), default=-1) for s in REDUCTIONS]
    if -1 in wanted:
        raise ConfigError(
            f"backbone '{style.timm}' has features at strides {reductions}, expected {list(REDUCTIONS)} among them. "
            f"{FITTING}"
        )
    options = {"features_only": True, "in_chans": in_chans, "out_indices": tuple(wanted), **style.options}
    return create_network(style.timm, USE, pretrained=pretrained, cache_dir=cache_dir, **options)


def _flat(module_name: str) -> str:
    """A stage is called ``stages.0`` in its table and ``stages_0`` in a flattened extractor."""
    return module_name.replace(".", "_")
