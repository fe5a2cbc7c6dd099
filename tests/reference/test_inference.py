"""Decoding, pre-filter and NMS against the official detections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ld_hub.layers.coders import DistributionCoder
from ld_hub.layers.postprocess import PostprocessConfig, postprocess
from ld_hub.structures import DenseOutput
from tests.support import golden

CASES = golden.find("infer_*")


def assert_same_detections(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, dets: np.ndarray,
                           expected_labels: np.ndarray) -> None:  # fmt: skip
    """Matched by box, label and score, in order of score."""
    assert len(boxes) == len(dets)
    mine = torch.cat([boxes, scores[:, None]], dim=1).double().numpy()
    order = np.lexsort((mine[:, 0], labels.numpy(), -mine[:, 4].round(5)))
    theirs = np.lexsort((dets[:, 0], expected_labels, -dets[:, 4].astype(np.float64).round(5)))
    assert np.array_equal(labels.numpy()[order], expected_labels[theirs])
    assert golden.error(mine[order], dets[theirs]) <= 1e-5


@pytest.mark.parametrize("stem", CASES)
def test_detections(stem: str) -> None:
    info, arrays = golden.load(stem)
    cls = [torch.as_tensor(arrays[f"cls{i}"]) for i in range(5)]
    box = [torch.as_tensor(arrays[f"reg{i}_q8"]).float() / 16 for i in range(5)]
    quality = [torch.as_tensor(arrays[f"cent{i}"]) for i in range(5)] if "cent0" in arrays.files else None
    assert (quality is None) == (stem.split("_")[2] in {"gfl", "retina"})
    priors = replace(golden.priors_of(info["feature_sizes"], torch.float32, stem.split("_")[2]), size_divisor=32)
    output = DenseOutput.from_levels(cls, box, quality, priors, DistributionCoder(16))
    sizes = torch.tensor(info["img_shapes"], dtype=torch.float32)
    factors = torch.tensor(info["scale_factors"])[:, :2]
    seen = 0
    for variant, changes in {"std": {}, **info.get("cfg_variants", {})}.items():
        names = {"score_thr": "score_threshold", "max_per_img": "max_detections", "nms_pre": "nms_pre"}
        config = PostprocessConfig(prefilter="pair" if info["fork"] == "BCKD" else "location")
        config = replace(config, **{names[k]: v for k, v in changes.items()})
        for rescale in (0, 1):
            if f"{variant}_rescale{rescale}/dets0" not in arrays.files:
                continue
            found = postprocess(output, sizes, factors if rescale else None, config)
            for i, result in enumerate(found):
                dets = arrays[f"{variant}_rescale{rescale}/dets{i}"]
                labels = arrays[f"{variant}_rescale{rescale}/labels{i}"].astype(np.int64)
                assert_same_detections(result.boxes, result.scores, result.labels, dets, labels)
                seen += 1
    assert seen >= 2
