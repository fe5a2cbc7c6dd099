"""What OpenMMLab, LD and BCKD call the tensors that we have, and which of these structures are proven.

A detector's map is its family's (neck, head) after its backbone's. ResNets have timm's names there as well; MobileNetV2
and Swin have not, and Swin's patch merging orders its input differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ld_hub.errors import ConfigError

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeyMap:
    """How tensors are called elsewhere. Patterns fit a whole foreign name; the first that does counts.

    Attributes:
        names: ``(pattern, our name)``.
        constants: ``(pattern, what its value has to be, from the model's configuration)``: buffers that we compute.
        unused: ``(pattern, why we have no place for it)``.
        layouts: ``(pattern, function)``: tensors whose values come in another order here.
    """

    names: Pairs = ()
    constants: tuple[tuple[str, Callable[[Any], Tensor]], ...] = ()
    unused: Pairs = ()
    layouts: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = ()

    def __add__(self, other: KeyMap) -> KeyMap:
        """Both, this one first."""
        return KeyMap(
            self.names + other.names,
            self.constants + other.constants,
            self.unused + other.unused,
            self.layouts + other.layouts,
        )

    def ours(self, name: str) -> str | None:
        """Our name of a foreign one; None if there is none."""
        return next((m.expand(ours) for pattern, ours in self.names if (m := re.fullmatch(pattern, name))), None)

    def constant(self, name: str) -> Callable[[Any], Tensor] | None:
        """What gives the value that a stored constant must have; None for other names."""
        return next((value for pattern, value in self.constants if re.fullmatch(pattern, name)), None)

    def reason(self, name: str) -> str | None:
        """Why a foreign tensor is not needed; None if it is."""
        return next((reason for pattern, reason in self.unused if re.fullmatch(pattern, name)), None)

    def arranged(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor of a foreign name, in our order."""
        change = next((change for pattern, change in self.layouts if re.fullmatch(pattern, name)), None)
        return tensor if change is None else change(tensor)


def key_map(family: str, backbone: str) -> KeyMap:
    """The map of a detector.

    Args:
        family: Its family.
        backbone: Short name of its backbone; one without an entry of its own has timm's names.

    Raises:
        ConfigError: If the family has none.
    """
    if family not in HEADS:
        raise ConfigError(f"Files of other libraries cannot be read into the family '{family}' yet.")
    return _BACKBONES.get(backbone, _AS_TIMM) + _NECK + HEADS[family]


def _bins(config: Any) -> Tensor:
    """0, 1, ..., R: what the distribution's expectation is taken over."""
    return torch.arange(config.reg_max + 1, dtype=torch.float32)


def _relative_positions(config: Any, window: int = 7) -> Tensor:
    """Swin's table row for two cells of a window: (dy + 6) * 13 + dx + 6, ``(49, 49)`` (arXiv 2103.14030, eq. 4)."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    flat = (2 * window - 1) * y.flatten() + x.flatten()
    return flat[:, None] - flat[None, :] + 2 * window * (window - 1)


def _as_timm_merges(tensor: Tensor) -> Tensor:
    """Input ``(..., 4C)`` of patch merging: there channel, row, column of the 2x2 patch; here column, row, channel."""
    if not tensor.ndim or tensor.shape[-1] % 4:
        return tensor  # of a wrong shape, which the comparison will tell
    parts: Tensor = tensor.unflatten(-1, (-1, 2, 2))
    return parts.movedim((-1, -2, -3), (-3, -2, -1)).flatten(-3)


def _mobilenetv2() -> KeyMap:
    """Stages 1 to 7 there are 0 to 6 here; the first has no expansion, so its norms count from one less."""
    names = [
        (r"backbone\.conv1\.conv\.weight", r"backbone.body.conv_stem.weight"),
        (r"backbone\.conv1\.bn\.(\w+)", r"backbone.body.bn1.\1"),
    ]
    first = (("depthwise", "conv_dw", 1), ("linear", "conv_pw", 2))
    later = (("expand", "conv_pw", 1), ("depthwise", "conv_dw", 2), ("linear", "conv_pwl", 3))
    for stage in range(7):
        theirs, ours = rf"backbone\.layer{stage + 1}\.(\d+)\.", rf"backbone.body.blocks.{stage}.\1."
        for part, conv, norm in later if stage else first:
            names += [
                (rf"{theirs}{part}_conv\.conv\.weight", rf"{ours}{conv}.weight"),
                (rf"{theirs}{part}_conv\.bn\.(\w+)", rf"{ours}bn{norm}.\2"),
            ]
    return KeyMap(tuple(names), unused=((r"backbone\.conv2\..+", "of the classifier, behind the last map"),))


def _swin() -> KeyMap:
    """Patch merging ends a stage there and begins the next here; the norms of the maps are ours, not timm's."""
    block, ours = r"backbone\.stages\.(\d)\.blocks\.(\d+)\.", r"backbone.body.layers_\1.blocks.\2."
    names = [
        (r"backbone\.patch_embed\.projection\.(\w+)", r"backbone.body.patch_embed.proj.\1"),
        (r"backbone\.patch_embed\.norm\.(\w+)", r"backbone.body.patch_embed.norm.\1"),
        (rf"{block}(norm[12])\.(\w+)", rf"{ours}\3.\4"),
        (rf"{block}attn\.w_msa\.(qkv\.\w+|proj\.\w+|relative_position_bias_table)", rf"{ours}attn.\3"),
        (rf"{block}ffn\.layers\.0\.0\.(\w+)", rf"{ours}mlp.fc1.\3"),
        (rf"{block}ffn\.layers\.1\.(\w+)", rf"{ours}mlp.fc2.\3"),
    ]
    for stage in range(3):
        merging = rf"backbone\.stages\.{stage}\.downsample\.(norm|reduction)\.(\w+)"
        names.append((merging, rf"backbone.body.layers_{stage + 1}.downsample.\1.\2"))
        names.append((rf"backbone\.norm{stage + 1}\.(\w+)", rf"backbone.norms.{stage}.\1"))
    return KeyMap(
        tuple(names),
        constants=((r"backbone\..*\.relative_position_index", _relative_positions),),
        unused=((r"backbone\.norm0\.\w+", "of the map at stride 4, which is not used"),),
        layouts=((r"backbone\.stages\.\d\.downsample\.(norm|reduction)\.\w+", _as_timm_merges),),
    )


_AS_TIMM = KeyMap(((r"backbone\.(.+)", r"backbone.body.\1"),))
_BACKBONES = {"mobilenetv2": _mobilenetv2(), "mobilenetv2_leaky": _mobilenetv2(), "swin_t": _swin()}
_NECK = KeyMap(((r"neck\.(lateral_convs|fpn_convs)\.(\d+)\.conv\.(weight|bias)", r"neck.\1.\2.\3"),))
_TOWERS: Pairs = (
    (r"bbox_head\.cls_convs\.(\d+)\.conv\.(weight|bias)", r"head.cls_tower.\1.conv.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.conv\.(weight|bias)", r"head.box_tower.\1.conv.\2"),
    (r"bbox_head\.cls_convs\.(\d+)\.gn\.(weight|bias)", r"head.cls_tower.\1.norm.\2"),
    (r"bbox_head\.reg_convs\.(\d+)\.gn\.(weight|bias)", r"head.box_tower.\1.norm.\2"),
    (r"bbox_head\.scales\.(\d+)\.scale", r"head.scales.\1.scale"),
)


def head_names(**predictors: str) -> KeyMap:
    """A dense head's names: its predictors are called differently in every family, all else is the same.

    Args:
        **predictors: Patterns of their names elsewhere, by ours: ``cls="gfl_cls"``.
    """
    last = [(rf"bbox_head\.{theirs}\.(weight|bias)", rf"head.{ours}.\1") for ours, theirs in predictors.items()]
    return KeyMap((*_TOWERS, *last), constants=((r"bbox_head\.integral\.project", _bins),))


HEADS: dict[str, KeyMap] = {}


def register_key_map(family: str, head: KeyMap) -> None:
    """Let files of other libraries be read into a family; said at the end of its file.

    Args:
        family: Its name.
        head: Of `head_names`, and what else its head has.
    """
    HEADS[family] = head


VERIFIED = {
    "gfocal_r18": "model_LD_gfl_r18",
    "gfocal_r50": "model_LD_gfl_r50",
    "gfocal_r101": "model_LD_gfl_r101",
    "gfocal_r101_dcn": "model_LD_gfl_r101_dcn",
    "gfocal_x101_32x4d": "model_BCKD_gfl_x101_32x4d",
    "gfocal_x101_32x4d_dcn": "model_BCKD_gfl_x101_32x4d_dcn",
    "gfocal_mobilenetv2_leaky": "model_BCKD_bckd_mobilenet",
    "atss_r50": "model_BCKD_plain_atss_r50",
    "atss_r50_bins": "model_LD_atss_r50",
    "fcos_r50_caffe": "model_BCKD_plain_fcos_r50_caffe",
    "fcos_r50_caffe_bins": "model_LD_fcos_r50",
    "retinanet_r18": "model_BCKD_plain_retinanet_r18",
    "retinanet_r50": "model_BCKD_plain_retinanet_r50",
    "retinanet_r50_bins": "model_LD_retina_r50",
}
"""Structures whose converted weights give what the official code gave: the recorded forward pass, box by box."""

_KEYS = "its published key list maps one to one; no forward pass was recorded, but one of {} was, which differs in {}"
_NO_FILE = "no file of it is known, nor a forward pass recorded; made of the parts of {}"
_SECOND = "names from the authors' code; no key list, no forward pass recorded; apart from the quality as {}"

UNVERIFIED = {
    "gfocal_r34": _KEYS.format("gfocal_r18", "depth"),
    "atss_r101_bins": _KEYS.format("atss_r50_bins", "depth"),
    "fcos_r101_caffe": _KEYS.format("fcos_r50_caffe", "depth"),
    "fcos_r101_caffe_bins": _KEYS.format("fcos_r50_caffe_bins", "depth"),
    "retinanet_r101_bins": _KEYS.format("retinanet_r50_bins", "depth"),
    "atss_r101": "no key list, no forward pass recorded; differs from atss_r50 in depth",
    "retinanet_r101": "no key list, no forward pass recorded; differs from retinanet_r50 in depth",
    "atss_r18": _NO_FILE.format("atss_r50 and gfocal_r18"),
    "atss_r18_bins": _NO_FILE.format("atss_r50_bins and gfocal_r18"),
    "fcos_r18": _NO_FILE.format("fcos_r50_caffe and gfocal_r18"),
    "fcos_r18_bins": _NO_FILE.format("fcos_r50_caffe_bins and gfocal_r18"),
    "fcos_r50": _NO_FILE.format("fcos_r50_caffe and gfocal_r50"),
    "fcos_r50_bins": _NO_FILE.format("fcos_r50_caffe_bins and gfocal_r50"),
    "fcos_r101": _NO_FILE.format("fcos_r50_caffe and gfocal_r101"),
    "fcos_r101_bins": _NO_FILE.format("fcos_r50_caffe_bins and gfocal_r101"),
    "retinanet_r18_bins": _NO_FILE.format("retinanet_r50_bins and gfocal_r18"),
    "gfocal_mobilenetv2": "no key list, no forward pass recorded; gfocal_mobilenetv2_leaky with ReLU6",
    "gfocal_swin_t": "no key list, no forward pass recorded; equals a second implementation of it in our tests",
    "gfocalv2_r50": _SECOND.format("gfocal_r50"),
    "gfocalv2_r101": _SECOND.format("gfocal_r101"),
    "gfocalv2_r101_dcn": _SECOND.format("gfocal_r101_dcn"),
    "gfocalv2_x101_32x4d": _SECOND.format("gfocal_x101_32x4d"),
    "gfocalv2_x101_32x4d_dcn": _SECOND.format("gfocal_x101_32x4d_dcn"),
    "r101_dcnv2": "as backbone, from a file with 27 offset channels; no forward pass of version 2 recorded",
    "x101_32x4d_dcnv2": "as backbone, from a file with 27 offset channels; no forward pass of version 2 recorded",
}
"""All other structures that files can be converted into, and why nothing proves them."""
