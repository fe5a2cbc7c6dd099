"""Our names of the official structures that golden files are about."""

from __future__ import annotations


def name_of(stem: str) -> str:
    """The name for ``keys_LD_fcos_r50``, ``model_BCKD_plain_atss_r50``, ...."""
    case = stem.split("_", 2)[2]
    if case.startswith("bckd_"):
        return {"bckd_mobilenet": "gfocal_mobilenetv2_leaky", "bckd_r50": "gfocal_r50"}[case]
    if case.startswith("plain_"):
        return case.removeprefix("plain_")
    family, _, backbone = case.partition("_")
    if family == "gfl":
        return f"gfocal_{backbone.removesuffix('_voc')}"
    caffe = "_caffe" if family == "fcos" else ""
    return f"{'retinanet' if family == 'retina' else family}_{backbone}{caffe}_bins"
