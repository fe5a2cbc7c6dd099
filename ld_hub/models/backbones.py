"""timm backbones as feature extractors at strides 8, 16, 32."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from ld_hub.errors import CheckpointError, ConfigError, MissingFileError, unknown_name
from ld_hub.hub import WEIGHTS_NAME, load_safetensors, offline
from ld_hub.layers.deformable import DeformableConv2d
from ld_hub.models.short_names import OFFSETS, SHORT_NAMES, ShortName, with_offsets
from ld_hub.preprocessing import DataConfig

REDUCTIONS = (8, 16, 32)
LOADED = "checkpoint"  # `Backbone.initialized_from` of weights that came with a whole detector's


def timm_name(backbone: str) -> str:
    """Name in timm of a backbone given by a short or a full name.

    Raises:
        UnknownNameError: If timm has no such model.
    """
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
        self.channels_last_output = getattr(self.body, "output_fmt", None) == "NHWC"
        self.channels: tuple[int, ...] = tuple(self.body.feature_info.channels())
        self.norms = nn.ModuleList(map(nn.LayerNorm, self.channels)) if style.output_norms else None
        described = timm.get_pretrained_cfg(self.timm_name)  # None for timm's deprecated names
        self.pretrained_cfg: dict[str, Any] = dict(described.to_dict()) if described is not None else {}
        trained_at = self.pretrained_cfg.get("input_size", (3, 224, 224))[-1]
        self.size_multiple = _size_multiple(self.body, in_chans, int(trained_at))
        self.initialized_from: str | None = "pretrained" if pretrained else None
        if checkpoint is not None:
            self._load(Path(checkpoint))
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
        down, right = (-(-side // self.size_multiple) * self.size_multiple - side for side in (height, width))
        maps: list[Tensor] = self.body(F.pad(images, (0, right, 0, down)) if down or right else images)
        if self.norms is not None:  # of maps with the channels last
            maps = [norm(m) for norm, m in zip(self.norms, maps, strict=True)]
        if self.channels_last_output:
            maps = [m.permute(0, 3, 1, 2).contiguous() for m in maps]
        if down or right:
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

    def _stages(self, count: int) -> Iterator[nn.Module]:
        """Top modules of the stem and the first `count` stages, in the order of the forward pass."""
        reduction = 2 ** (count + 1)
        ends = [stage.module for stage in _feature_info(self.timm_name) if stage.reduction == reduction]
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

    def _load(self, path: Path) -> None:
        if not path.is_file():
            raise MissingFileError(f"backbone_checkpoint: no file '{path}'.")
        expected = self.body.state_dict()
        found = load_safetensors(path)
        state = {name if name in expected else _flat_key(name): tensor for name, tensor in found.items()}
        optional = ["num_batches_tracked"]
        if not any("conv_offset" in name for name in state):
            optional += ["conv_offset.weight", "conv_offset.bias"]  # classifiers have none: they stay zero
        missing = [k for k in expected if k not in state and not k.endswith(tuple(optional))]
        wrong = [k for k, v in expected.items() if k in state and state[k].shape != v.shape]
        if missing or wrong:
            raise CheckpointError(
                f"backbone_checkpoint '{path}' does not fit '{self.timm_name}': {len(missing)} tensors missing "
                f"(first: {missing[:3]}), {len(wrong)} of another shape (first: {wrong[:3]}). "
                "Expected a safetensors file of this timm model under timm's key names."
            )
        self.body.load_state_dict({k: state.get(k, v) for k, v in expected.items()})


def _note_loading(backbone: Any, keys: Any) -> None:
    """After `load_state_dict` of the backbone or of a module around it."""
    missing = {name.rpartition("backbone.")[2] for name in keys.missing_keys}
    if missing.isdisjoint(backbone.state_dict()):
        backbone.initialized_from = LOADED


def _batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    return (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))


def _create_body(style: ShortName, in_chans: int, pretrained: bool, cache_dir: str | Path | None) -> Any:
    """The timm feature extractor; errors name what would fit."""
    full_name = style.timm
    reductions = [stage.reduction for stage in _feature_info(full_name)]
    wanted = [max((i for i, r in enumerate(reductions) if r == s), default=-1) for s in REDUCTIONS]
    if -1 in wanted:
        raise ConfigError(
            f"backbone '{full_name}' has features at strides {reductions}, expected {list(REDUCTIONS)} among them. "
            "Fitting models: resnet*, resnext*, convnext*, efficientnet*, mobilenetv*, swin*, regnet*."
        )
    try:
        build = partial(_with_any_input_size, full_name, in_chans=in_chans, out_indices=tuple(wanted), **style.options)
        if not pretrained:
            return build()
        if offline():  # timm itself would ask the Hub
            build = partial(build, pretrained_cfg_overlay={"file": _fetched_before(full_name, cache_dir)})
        return build(pretrained=True, cache_dir=cache_dir)
    except (OSError, RuntimeError, ValueError) as error:
        if not pretrained:
            raise
        raise CheckpointError(
            f"The ImageNet weights of backbone '{full_name}' could not be loaded: {str(error).splitlines()[0]} "
            "Without a network, pass backbone_checkpoint=FILE.safetensors (timm's weights under timm's names) "
            "or pretrained_backbone=False."
        ) from error


def _fetched_before(full_name: str, cache_dir: str | Path | None) -> str:
    """The file of a backbone's weights, for use without the network."""
    cfg = timm.get_pretrained_cfg(full_name)
    repo = cfg.hf_hub_id if cfg is not None else None
    file = try_to_load_from_cache(repo, WEIGHTS_NAME, cache_dir=cache_dir) if repo else None
    if not isinstance(file, str):
        raise OSError(f"{offline()} forbids the network, and they were not fetched before.")
    return file


def _with_any_input_size(full_name: str, **options: Any) -> Any:
    """Create the feature extractor with its fixed input size lifted where it has one (Swin, ViT)."""
    for lift in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):
        try:
            return timm.create_model(full_name, features_only=True, **options, **lift)
        except TypeError:
            continue
    raise ConfigError(f"timm cannot build '{full_name}' as a feature extractor.")


def _size_multiple(body: nn.Module, in_chans: int, trained_at: int) -> int:
    """What the sides of an image have to be multiples of: 1 where every stage rounds up, as in ResNets.

    Patches (ConvNeXt, Swin) cut or refuse a rest; windows of a fixed number of cells (MaxViT) refuse all but
    multiples of the size they were trained at. Found by asking, on the smallest images that tell.
    """
    was_training = body.training
    body.eval()
    try:
        for multiple in (1, max(REDUCTIONS), trained_at):
            height, width = (65, 95) if multiple == 1 else (2 * multiple, multiple)
            if _rounds_up(body, in_chans, height, width):
                return multiple
    finally:
        body.train(was_training)
    raise ConfigError(
        f"This backbone takes images neither of any size nor of multiples of {max(REDUCTIONS)} or {trained_at} px, or "
        "gives maps at other strides than it declares, so no detector can stand on it. Fitting models: resnet*, "
        "convnext*, efficientnet*, mobilenetv*, swin*, regnet*."
    )


def _rounds_up(body: nn.Module, in_chans: int, height: int, width: int) -> bool:
    """Whether an image of this size gives maps of the size the grid of priors has."""
    weight = next(body.parameters())
    image = torch.zeros(1, in_chans, height, width, device=weight.device, dtype=weight.dtype)
    try:
        with torch.no_grad():
            maps = body(image)
    except (RuntimeError, AssertionError, ValueError, IndexError):
        return False
    sizes = [m.shape[1:3] if getattr(body, "output_fmt", None) == "NHWC" else m.shape[2:] for m in maps]
    return all(tuple(s) == (-(-height // r), -(-width // r)) for s, r in zip(sizes, REDUCTIONS, strict=True))


def _flat(module_name: str) -> str:
    """A stage is called ``stages.0`` in its table and ``stages_0`` in a flattened extractor."""
    return module_name.replace(".", "_")


def _flat_key(name: str) -> str:
    """A classifier's tensor in the extractor: ``layers.0.blocks...`` of Swin is ``layers_0.blocks...`` there."""
    return re.sub(r"^(\w+)\.(\d+)\.", r"\1_\2.", name)


class _Stage(NamedTuple):
    """A map that a timm model gives: after which module, and its stride in px."""

    module: str
    reduction: int


@lru_cache(maxsize=64)
def _feature_info(full_name: str) -> tuple[_Stage, ...]:
    """Table of all feature maps, read from a model without weights."""
    for device in ("meta", "cpu"):  # a few models compute with values while they are built
        try:
            with torch.device(device):
                stages = timm.create_model(full_name, features_only=True).feature_info.get_dicts()
            return tuple(_Stage(stage["module"], stage["reduction"]) for stage in stages)
        except (RuntimeError, AttributeError, TypeError, ValueError, AssertionError) as error:
            reason = f"{type(error).__name__}: {error}"
    raise ConfigError(
        f"backbone '{full_name}' cannot give features ({reason}). "
        "Any timm model with features at strides 8, 16, 32 fits, e.g. resnet50, convnext_tiny, efficientnet_b0."
    )
