"""Weights that others have published for our names: where they lie and what their authors measured.

None of these figures was measured by this library, and none of these files was run here. Every file name ends in the
first digits of the file's sha256. Files on file-sharing sites have no stable address: their tags say what they are, and
`ld-hub convert` reads them from a local path. Tags of table rows without any file say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ld_hub.registry import PretrainedCfg
from ld_hub.structures.class_names import VOC_LABELS

OPENMMLAB = "https://download.openmmlab.com/mmdetection/v2.0/"
NOT_RUN = "converter tested on the published key list; file not run"
PARTS_NOT_RUN = "converter tested on the published key lists of its head and its backbone; file not run"
NO_ADDRESS = "no stable address: get the .pth file from its authors; checkpoint_path=FILE and `ld-hub convert` read it"

NO_FILE = "a row of its authors' table: no file of its weights is known"

_BCKD = "https://arxiv.org/abs/2308.14286"
_CROSSKD = "https://arxiv.org/abs/2306.11369"
_ATSS = "https://arxiv.org/abs/1912.02424"
_FCOS = "https://arxiv.org/abs/1904.01355"
_GFL = "https://arxiv.org/abs/2006.04388"
_LD = "https://arxiv.org/abs/2102.12252"
_RETINANET = "https://arxiv.org/abs/1708.02002"

# name.tag: (address below the base, COCO val2017 box AP, paper)
_OPENMMLAB = {
    "atss_r50.mmdet_1x_coco": ("atss/atss_r50_fpn_1x_coco/atss_r50_fpn_1x_coco_20200209-985f7bd0.pth", 39.4, _ATSS),
    "atss_r101.mmdet_1x_coco": ("atss/atss_r101_fpn_1x_coco/atss_r101_fpn_1x_20200825-dfcadd6f.pth", 41.5, _ATSS),
    "fcos_r50_caffe.mmdet_1x_coco": (
        "fcos/fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco/"
        "fcos_center-normbbox-centeronreg-giou_r50_caffe_fpn_gn-head_1x_coco-0a0d75a8.pth", 38.7, _FCOS,
    ),
    "fcos_r101_caffe.mmdet_ms2x_coco": (
        "fcos/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco/"
        "fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco-511424d6.pth", 40.8, _FCOS,
    ),
    "gfocal_r50.mmdet_1x_coco": (
        "gfl/gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth", 40.2, _GFL,
    ),
    "gfocal_r50.mmdet_ms2x_coco": (
        "gfl/gfl_r50_fpn_mstrain_2x_coco/gfl_r50_fpn_mstrain_2x_coco_20200629_213802-37bb1edc.pth", 42.9, _GFL,
    ),
    "gfocal_r101.mmdet_ms2x_coco": (
        "gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth", 44.7, _GFL,
    ),
    "gfocal_r101_dcn.mmdet_ms2x_coco": (
        "gfl/gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco/"
        "gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20200630_102002-134b07df.pth", 47.1, _GFL,
    ),
    "gfocal_x101_32x4d.mmdet_ms2x_coco": (
        "gfl/gfl_x101_32x4d_fpn_mstrain_2x_coco/gfl_x101_32x4d_fpn_mstrain_2x_coco_20200630_102002-50c1ffdb.pth",
        45.9, _GFL,
    ),
    "gfocal_x101_32x4d_dcn.mmdet_ms2x_coco": (
        "gfl/gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco/"
        "gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco_20200630_102002-14a2bf25.pth", 48.1, _GFL,
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
    "gfocal_r101_ld_r101_dcn.mmdet_2x_coco": (
        "ld/ld_r101_gflv1_r101dcn_fpn_coco_2x/ld_r101_gflv1_r101dcn_fpn_coco_2x_20220629_185920-9e658426.pth",
        45.5, _LD,
    ),
    "retinanet_r18.mmdet_1x_coco": (
        "retinanet/retinanet_r18_fpn_1x_coco/retinanet_r18_fpn_1x_coco_20220407_171055-614fd399.pth", 31.7, _RETINANET,
    ),
    "retinanet_r50.mmdet_1x_coco": (
        "retinanet/retinanet_r50_fpn_1x_coco/retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth", 36.5, _RETINANET,
    ),
    "retinanet_r101.mmdet_2x_coco": (
        "retinanet/retinanet_r101_fpn_2x_coco/retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth", 38.9, _RETINANET,
    ),
}  # fmt: skip

_SETTINGS = {
    "atss_r101.mmdet_1x_coco": PretrainedCfg(note=PARTS_NOT_RUN),
    "retinanet_r101.mmdet_2x_coco": PretrainedCfg(note=PARTS_NOT_RUN),
    # The paper's first version: distances by exp, whole boxes as positives, centerness on the class tower; and Caffe
    # means that differ from those of the other Caffe-style files.
    "fcos_r101_caffe.mmdet_ms2x_coco": PretrainedCfg(
        note=NOT_RUN,
        config={"boxes": "exp", "center_radius": 0.0, "centerness_on": "cls"},
        data_config={"mean": (102.9801, 115.9465, 122.7717), "std": (1.0, 1.0, 1.0), "channel_order": "bgr"},
    ),
}

_VOC_METRIC = "VOC07 test AP (mean of the 11-point AP at IoU .50:.05:.95)"

# Files of the BCKD repository
_BCKD_COCO = {"gfocal_r18_bckd_r101": 38.6, "gfocal_r34_bckd_r101": 42.0, "gfocal_r50_bckd_r101": 43.2}
# Files of the LD repository: the authors' own students and baselines, with the AP of the repository's list of files
_LD_COCO = {
    "gfocal_r18_vlr_r101": 37.5,
    "gfocal_r34_vlr_r101": 41.0,
    "gfocal_r50_vlr_r101": 42.1,
    "gfocal_r50_vlr_gi_r101": 42.4,
    "gfocalv2_r50_vlr_r101": 42.7,
}
# Students that tables have and lists of files have not: tag and AP
_ROWS: dict[str, dict[str, tuple[str, float]]] = {
    _LD: {
        **{
            f"gfocal_r50_{recipe}_r101": ("ld_1x_coco", ap)
            for recipe, ap in (
                ("fitnets", 40.7), ("inside_gt", 40.7), ("main_region", 41.1), ("fine_grained", 41.1),
                ("defeat", 40.8), ("gi", 41.5),
            )
        },
        "gfocal_r18_ld_r18": ("ld_1x_coco", 36.1),
        "gfocal_r50_ld_r50": ("ld_1x_coco", 40.6),
        "gfocal_x101_32x4d_dcn_ld_x101_32x4d_dcn": ("ld_2x_coco", 47.5),
        "atss_r50_vlr_r101": ("ld_1x_coco", 41.6),
        "fcos_r50_vlr_r101": ("ld_1x_coco", 40.6),
        "retinanet_r50_vlr_r101": ("ld_1x_coco", 39.0),
    },
    _CROSSKD: {
        "gfocal_r50_crosskd_r101": ("crosskd_1x_coco", 43.7),
        "gfocal_r50_crosskd_pkd_r101": ("crosskd_1x_coco", 43.9),
        "atss_r50_crosskd_r101": ("crosskd_1x_coco", 41.8),
        "fcos_r50_crosskd_r101": ("crosskd_ms2x_coco", 41.1),
        "retinanet_r50_crosskd_r101": ("crosskd_2x_coco", 39.7),
    },
}  # fmt: skip
_LD_VOC = {
    "gfocal_r18": 51.8,
    "gfocal_r34": 55.7,
    "gfocal_r50": 55.8,
    "gfocal_r101": 57.6,
    "gfocal_r18_ld_r101": 53.0,
    "gfocal_r50_ld_r101": 56.1,
    "gfocal_r34_ld_r101_dcn": 56.5,  # 56.7 in its table of results
    "gfocal_r101_ld_r101_dcn": 58.4,
}
_AUTHORS = {_LD: "LD", _CROSSKD: "CrossKD"}
_VOC_ROWS = {"gfocal_r18_ld_r34": 52.9, "gfocal_r18_ld_r50": 52.8, "gfocal_r18_ld_r101_dcn": 52.8}


def published(name: str) -> dict[str, PretrainedCfg]:
    """Published weights of an architecture, by tag; empty where there are none.

    Args:
        name: Registered name.
    """
    return {tag: cfg for owner, tag, cfg in every_tag() if owner == name}


def every_tag() -> Iterator[tuple[str, str, PretrainedCfg]]:
    """Yield ``(name, tag, weights)`` of all published weights, those with an address first."""
    for full, (address, ap, paper) in _OPENMMLAB.items():
        name, _, tag = full.partition(".")
        yield (
            name,
            tag,
            replace(
                _SETTINGS.get(full, PretrainedCfg(note=NOT_RUN)),
                url=OPENMMLAB + address,
                sha256=_digits(address),
                ap=ap,
                source="OpenMMLab model zoo",
                paper=paper,
                license="Apache-2.0",
            ),
        )
    authors = partial(PretrainedCfg, source="LD repository", paper=_LD, note=NO_ADDRESS)
    for name, ap in _LD_COCO.items():
        yield name, "ld_1x_coco", authors(ap=ap)
    yield "gfocalv2_r101_vlr_r101_dcn", "ld_2x_coco", authors(ap=47.1, metric="COCO test-dev AP")
    for name, ap in _BCKD_COCO.items():
        yield name, "bckd_1x_coco", PretrainedCfg(ap=ap, source="BCKD repository", paper=_BCKD, note=NO_ADDRESS)
    voc = partial(authors, num_classes=len(VOC_LABELS), label_names=VOC_LABELS, metric=_VOC_METRIC)
    for name, ap in {**_LD_VOC, **_VOC_ROWS}.items():
        note = NO_FILE if name in _VOC_ROWS else NO_ADDRESS
        yield name, "ld_4e_voc0712", voc(ap=ap, config={"box_loss": "ciou"}, note=note)
    for paper, rows in _ROWS.items():
        for name, (tag, ap) in rows.items():
            yield name, tag, PretrainedCfg(ap=ap, source=f"{_AUTHORS[paper]} paper", paper=paper, note=NO_FILE)


def _digits(address: str) -> str:
    """Leading digits of the sha256 that end a file name."""
    found = re.search(r"-([0-9a-f]{8})\.pth$", address)
    return found.group(1) if found else ""
