"""Synthetic ``.pth`` files with the names and shapes of the published ones, from key lists of the official code."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.support import golden

PROJECT = "bbox_head.integral.project"
STEPS = (1, 2, 3, 5)

# name.tag: the key list of the published file; where two are named, the backbone is the second's
KEY_LISTS = {
    "atss_r50.mmdet_1x_coco": ("BCKD_plain_atss_r50",),
    "atss_r101.mmdet_1x_coco": ("BCKD_plain_atss_r50", "BCKD_gfl_r101"),
    "fcos_r50_caffe.mmdet_1x_coco": ("BCKD_plain_fcos_r50_caffe",),
    "fcos_r101_caffe.mmdet_ms2x_coco": ("BCKD_plain_fcos_r101_caffe",),
    "gfocal_r50.mmdet_1x_coco": ("BCKD_gfl_r50",),
    "gfocal_r50.mmdet_ms2x_coco": ("BCKD_gfl_r50",),
    "gfocal_r101.mmdet_ms2x_coco": ("BCKD_gfl_r101",),
    "gfocal_r101_dcn.mmdet_ms2x_coco": ("LD_gfl_r101_dcn",),
    "gfocal_x101_32x4d.mmdet_ms2x_coco": ("BCKD_gfl_x101_32x4d",),
    "gfocal_x101_32x4d_dcn.mmdet_ms2x_coco": ("BCKD_gfl_x101_32x4d_dcn",),
    "gfocal_r18_ld_r101.mmdet_1x_coco": ("LD_gfl_r18",),
    "gfocal_r34_ld_r101.mmdet_1x_coco": ("LD_gfl_r34",),
    "gfocal_r50_ld_r101.mmdet_1x_coco": ("LD_gfl_r50",),
    "gfocal_r101_ld_r101_dcn.mmdet_2x_coco": ("LD_gfl_r101",),
    "retinanet_r18.mmdet_1x_coco": ("BCKD_plain_retinanet_r18",),
    "retinanet_r50.mmdet_1x_coco": ("BCKD_plain_retinanet_r50",),
    "retinanet_r101.mmdet_2x_coco": ("BCKD_plain_retinanet_r50", "BCKD_gfl_r101"),
}


def tensors(*lists: str, offsets: int | None = None) -> dict[str, Tensor]:
    """Random tensors of the names and shapes of a key list.

    Every tensor looks at few stored numbers, element (i, j, k, l) at number i + 2j + 3k + 5l: files stay small, and no
    transposition goes unnoticed.

    Args:
        lists: Key lists, as in `KEY_LISTS`.
        offsets: Offset channels of deformable convolutions other than in the list.
    """
    keys = dict(golden.load(f"keys_{lists[0]}")[0]["keys"])
    if len(lists) > 1:
        other = golden.load(f"keys_{lists[1]}")[0]["keys"]
        keys = {k: v for k, v in keys.items() if not k.startswith("backbone.")}
        keys |= {k: v for k, v in other.items() if k.startswith("backbone.")}
    random = torch.Generator().manual_seed(0)
    state = {}
    for name, item in keys.items():
        shape = list(item["shape"])
        if offsets is not None and ".conv_offset." in name:
            shape[0] = offsets
        state[name] = _tensor(shape, getattr(torch, item["dtype"]), random)
    if PROJECT in state:
        state[PROJECT] = torch.arange(17.0)
    return state


def _tensor(shape: list[int], dtype: torch.dtype, random: torch.Generator) -> Tensor:
    if dtype is not torch.float32:
        return torch.randint(1, 1000, shape, generator=random, dtype=dtype)
    steps = STEPS[: len(shape)]
    size = 1 + sum((side - 1) * step for side, step in zip(shape, steps, strict=True))
    return (torch.randn(size, generator=random) * 0.05).as_strided(shape, steps)


def pth(content: Any, *, zipped: bool = True) -> tuple[bytes, str]:
    """The bytes of a file with these tensors and OpenMMLab's meta data, and their sha256.

    Args:
        content: Tensors, or anything else to be pickled.
        zipped: False for the format that PyTorch wrote before its version 1.6.
    """
    if isinstance(content, Mapping):
        content = {"meta": {"mmdet_version": "2.3.0", "epoch": 12}, "state_dict": dict(content)}
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue(), hashlib.sha256(stream.getvalue()).hexdigest()
