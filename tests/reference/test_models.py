"""Whole models: backbone, pyramid, head and detections, with weights that enter through the converter."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ld_hub
from ld_hub.layers.coders import DistanceCoder
from ld_hub.models.checkpoints.convert import load_openmmlab_state
from ld_hub.models.checkpoints.key_maps import VERIFIED
from ld_hub.structures import DenseOutput
from tests.reference.test_inference import assert_same_detections
from tests.support import golden
from tests.support.names import name_of

CASES = golden.find("model_*")
LEFT_OUT = {"model_BCKD_plain_retinanet_r50", "model_LD_retina_r50"}  # too large for this repository


@lru_cache(maxsize=1)
def rules() -> Any:
    """The rule that gives every official tensor its value from its name."""
    spec = importlib.util.spec_from_file_location("gen_inputs", golden.DIRECTORY / "gen_inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official_state(keys: str) -> dict[str, Tensor]:
    state = {}
    for key, entry in golden.load(keys)[0]["keys"].items():
        value = rules().weight_for(key, tuple(entry["shape"]))
        state[key] = torch.arange(17.0) if value is None else torch.as_tensor(value)
    return state


def check(arrays: Any, key: str, actual: Tensor, stride: int, tolerance: float = 1e-5) -> None:
    if f"{key}/full" in arrays.files:
        assert golden.error(actual, arrays[f"{key}/full"]) <= tolerance, key
    else:
        assert golden.error(actual.reshape(-1)[::stride], arrays[f"{key}/strided"]) <= tolerance, key
    assert golden.sums_error(actual, arrays[f"{key}/sum"]) <= tolerance, key


def as_maps(output: DenseOutput, field: str) -> list[Tensor]:
    """Rows back to maps (N, K, H, W) of each level."""
    rows = getattr(output, field)
    rows = rows[..., None] if field == "quality" else rows.flatten(2)
    rows = rows.unflatten(1, (-1, output.priors.anchors_per_cell)).flatten(2)
    parts = rows.split([height * width for height, width in output.priors.level_shapes], dim=1)
    shapes = output.priors.level_shapes
    return [p.transpose(1, 2).unflatten(2, shape) for p, shape in zip(parts, shapes, strict=True)]


def test_the_verified_are_those_that_replay() -> None:
    replayed = set(CASES) if os.environ.get("LD_HUB_REFERENCE_DATA") else {*CASES, *LEFT_OUT}
    assert set(VERIFIED.values()) <= replayed
    assert {name_of(case) for case in replayed} == VERIFIED.keys()
    assert all(name_of(case) == name for name, case in VERIFIED.items())


@pytest.mark.parametrize("case", CASES)
def test_forward_and_detections(case: str) -> None:
    info, arrays = golden.load(case)
    model = ld_hub.create_model(name_of(case))
    load_openmmlab_state(model, official_state(case.replace("model_", "keys_")), source=case)
    model.eval()
    images = torch.as_tensor(rules().model_input())
    with torch.inference_mode():
        maps = model.backbone(images)
        output = model(images, features=True)
    strides = info["strides"]
    for level, feature in enumerate(maps):
        check(arrays, f"backbone{level + 1}", feature, strides["backbone"])
    assert output.features is not None
    for level, feature in enumerate(output.features):
        check(arrays, f"fpn{level}", feature, strides["fpn"])
    shown = output
    if isinstance(model.coder, DistanceCoder):  # the official head decodes in eval mode
        shown = replace(output, box=model.coder.distances(output.box, output.priors.strides))
    fields = {"cls": "cls_logits", "reg": "box"} | ({} if output.quality is None else {"cent": "quality"})
    assert ("cent0/sum" in arrays.files) == ("cent" in fields)
    for kind, field in fields.items():
        for level, found in enumerate(as_maps(shown, field)):
            check(arrays, f"{kind}{level}", found, strides["outputs"])

    meta = info["img_meta"]
    sizes = torch.tensor([meta["img_shape"][:2]])
    config = replace(model.postprocess_config, prefilter="pair" if info["fork"] == "BCKD" else "location")
    assert model.family == "gfocal" or config == model.postprocess_config
    official = info["test_cfg"]
    assert config.nms_iou == official["nms"]["iou_threshold"]
    assert [config.score_threshold, config.nms_pre, config.max_detections] == [
        official[key] for key in ("score_thr", "nms_pre", "max_per_img")
    ]
    for rescale, factors in ((0, None), (1, torch.tensor([meta["scale_factor"][:2]]))):
        (found,) = model.postprocess(output, sizes, factors, config=config)
        dets, labels = arrays[f"dets_rescale{rescale}"], arrays[f"labels_rescale{rescale}"].astype(np.int64)
        assert_same_detections(found.boxes, found.scores, found.labels, dets, labels)
