"""Weights that others have published for our names: where they lie and what their authors measured.

None of these figures was measured by this library. Every file name ends in the first digits of the file's sha256.
"""

from __future__ import annotations

import re

from ld_hub.registry import PretrainedCfg

_BASE = "https://download.openmmlab.com/mmdetection/v2.0/"
_GFL = "https://arxiv.org/abs/2006.04388"
_LD = "https://arxiv.org/abs/2102.12252"

# name.tag: (address below the base, COCO val2017 box AP, paper)
_OPENMMLAB = {
    "gfocal_r50.mmdet_1x_coco": (
        "gfl/gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth", 40.2, _GFL,
    ),
    "gfocal_r50.mmdet_ms2x_coco": (
        "gfl/gfl_r50_fpn_mstrain_2x_coco/gfl_r50_fpn_mstrain_2x_coco_20200629_213802-37bb1edc.pth", 42.9, _GFL,
    ),
    "gfocal_r101.mmdet_ms2x_coco": (
        "gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth", 44.7, _GFL,
    ),
    "gfocal_x101_32x4d.mmdet_ms2x_coco": (
        "gfl/gfl_x101_32x4d_fpn_mstrain_2x_coco/gfl_x101_32x4d_fpn_mstrain_2x_coco_20200630_102002-50c1ffdb.pth",
        45.9, _GFL,
    ),
    "gfocal_r18_ld_r101.mmdet_1x_coco": (
        "ld/ld_r18_gflv1_r101_fpn_coco_1x/ld_r18_gflv1_r101_fpn_coco_1x_20220702_062206-330e6332.pth", 36.5, _LD,
    ),
    "gfocal_r34_ld_r101.mmdet_1x_coco": (
        "ld/ld_r34_gflv1_r101_fpn_coco_1x/ld_r34_gflv1_r101_fpn_coco_1x_20220630_134007-9bc69413.pth", 39.9, _LD,
    ),
    "gfocal_r50_ld_r101.mmdet_1x_coco": (
        "ld/ld_r50_gflv1_r101_fpn_coco_1x/ld_r50_gflv1_r101_fpn_coco_1x_20220629_145355-8dc5bad8.pth", 41.0, _LD,
    ),
}  # fmt: skip


def published(name: str) -> dict[str, PretrainedCfg]:
    """Published weights of an architecture, by tag; empty where there are none.

    Args:
        name: Registered name.
    """
    tags = {}
    for full, (address, ap, paper) in _OPENMMLAB.items():
        owner, _, tag = full.partition(".")
        if owner == name:
            tags[tag] = PretrainedCfg(
                url=_BASE + address,
                sha256=_digits(address),
                ap=ap,
                source="OpenMMLab model zoo",
                paper=paper,
                license="Apache-2.0",
            )
    return tags


def _digits(address: str) -> str:
    """Leading digits of the sha256 that end a file name."""
    found = re.search(r"-([0-9a-f]{8})\.pth$", address)
    return found.group(1) if found else ""
