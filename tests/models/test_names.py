"""Names of GFocal detectors, and what somebody with other habits meant by theirs."""

from __future__ import annotations

import pytest

from ld_hub.errors import HubError, UnknownNameError
from ld_hub.models.factory import create_model
from ld_hub.models.names import get_pretrained_cfg, list_models
from ld_hub.registry import MODELS

PAPERS = {  # name: student, recipe, teacher (LD, BCKD and OpenMMLab result tables)
    "gfocal_r101_ld_r101_dcn": ("gfocal_r101", "ld", "gfocal_r101_dcn"),
    "gfocal_r34_ld_r101_dcn": ("gfocal_r34", "ld", "gfocal_r101_dcn"),
    "gfocal_x101_32x4d_dcn_ld_x101_32x4d_dcn": ("gfocal_x101_32x4d_dcn", "ld", "gfocal_x101_32x4d_dcn"),
    "gfocal_r18_bckd_r101": ("gfocal_r18", "bckd", "gfocal_r101"),
    "gfocal_r34_bckd_r101": ("gfocal_r34", "bckd", "gfocal_r101"),
    "gfocal_r50_bckd_r101": ("gfocal_r50", "bckd", "gfocal_r101"),
    "gfocal_mobilenetv2_leaky_bckd_r101": ("gfocal_mobilenetv2_leaky", "bckd", "gfocal_r101"),
    "gfocal_r50_bckd_swin_t": ("gfocal_r50", "bckd", "gfocal_swin_t"),
    **{
        f"gfocal_r50_{recipe}_r101": ("gfocal_r50", recipe, "gfocal_r101")
        for recipe in (
            "fitnets", "inside_gt", "main_region", "fine_grained", "defeat", "gi", "vlr_gi", "vlr_fine_grained",
            "crosskd", "crosskd_pkd",
        )
    },
    **{f"gfocal_r18_ld_{teacher}": ("gfocal_r18", "ld", f"gfocal_{teacher}") for teacher in ("r34", "r50", "r101_dcn")},
    **{
        f"{family}_r50_{recipe}_r101": (f"{family}_r50{form}", recipe, f"{family}_r101{form}")
        for family, form in (("atss", ""), ("fcos", "_caffe"), ("retinanet", ""))
        for recipe in ("crosskd", "crosskd_pkd")
    },
    "gfocalv2_r50_vlr_r101": ("gfocalv2_r50", "vlr", "gfocalv2_r101"),
    "gfocalv2_r101_vlr_r101_dcn": ("gfocalv2_r101", "vlr", "gfocalv2_r101_dcn"),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_distilled_names_of_the_papers(name: str) -> None:
    entry = MODELS[name]
    assert entry.distilled is not None
    assert (entry.distilled.student, entry.distilled.recipe, entry.distilled.teacher) == PAPERS[name]
    assert entry.config == MODELS[entry.distilled.student].config
    assert entry.family == MODELS[entry.distilled.teacher].family == name.split("_", maxsplit=1)[0].removesuffix("v2")


def test_settings_of_the_published_configurations() -> None:
    for name in list_models(["gfocal_r*", "gfocal_x*", "gfocalv2_*"], exclude_filters="*r10t*"):
        config = MODELS[name].config
        assert (config["frozen_stages"], config["norm_eval"]) == (1, True), name
        assert config.get("quality", "none") == ("distribution" if name.startswith("gfocalv2") else "none")
    for name in ("gfocal_mobilenetv2_leaky", "gfocal_mobilenetv2", "gfocal_swin_t"):
        assert MODELS[name].config == {"backbone": name.removeprefix("gfocal_")}  # all of it is trained


def test_weights_of_the_new_names() -> None:
    for name, ap in (
        ("gfocal_r101_dcn", 47.1), ("gfocal_x101_32x4d_dcn", 48.1), ("gfocal_r101_ld_r101_dcn", 45.5),
    ):  # fmt: skip
        cfg = get_pretrained_cfg(name)
        assert cfg is not None and cfg.ap == ap and cfg.url.endswith(f"-{cfg.sha256}.pth")
    assert get_pretrained_cfg("gfocalv2_r50") is None


FIGURES = {  # rows of tables whose weights nobody has published
    "gfocal_r50_fitnets_r101.ld_1x_coco": 40.7, "gfocal_r50_defeat_r101.ld_1x_coco": 40.8,
    "gfocal_r50_gi_r101.ld_1x_coco": 41.5, "gfocal_r50_crosskd_r101.crosskd_1x_coco": 43.7,
    "gfocal_r50_crosskd_pkd_r101.crosskd_1x_coco": 43.9, "atss_r50_vlr_r101.ld_1x_coco": 41.6,
    "fcos_r50_crosskd_r101.crosskd_ms2x_coco": 41.1, "retinanet_r50_crosskd_r101.crosskd_2x_coco": 39.7,
    "gfocal_r18_ld_r34.ld_4e_voc0712": 52.9,
}  # fmt: skip


@pytest.mark.parametrize("full", FIGURES)
def test_figures_without_a_file_say_so(full: str) -> None:
    cfg = get_pretrained_cfg(full)
    assert cfg is not None and cfg.ap == FIGURES[full] and not cfg.url
    with pytest.raises(HubError, match="no file of its weights is known"):
        create_model(full, pretrained=True)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("gflv2_r50", "'gfocalv2_r50'"),
        ("gfocal_v2_r50", "'gfocalv2_r50'"),
        ("GFocal-V2_ResNet-101", "'gfocalv2_r101'"),
        ("gfl_v2_x101_32x4d", "'gfocalv2_x101_32x4d'"),
        ("gflv2", "'gfocalv2'"),
        ("gfocalv2_r50_vlr", "'gfocalv2_r50_vlr_r101'"),
        ("gfocal_v2_convnext_tiny", "create_model('gfocalv2', backbone='convnext_tiny')"),
        ("gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco", "'gfocal_r101_dcn'"),
        ("gfl_x101_32x4d_fpn_dconv_c4-c5_mstrain_2x_coco", "'gfocal_x101_32x4d_dcn'"),
        ("ld_r101_gflv1_r101dcn_fpn_coco_2x", "'gfocal_r101_ld_r101_dcn'"),
        ("bckd_r50_gflv1_r101_fpn_coco_1x", "'gfocal_r50_bckd_r101'"),
        ("gfocal_mobilenet_v2", "'gfocal_mobilenetv2'"),
        ("gfocal_swin_tiny", "'gfocal_swin_t'"),
        ("gfocal_swin_tiny_patch4_window7_224", "create_model('gfocal', backbone='swin_tiny_patch4_window7_224')"),
    ],
)
def test_near_misses(name: str, right: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        create_model(name)
    assert f"Did you mean {right}?" in str(caught.value)
