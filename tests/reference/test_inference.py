"""Decoding, pre-filter and NMS against the official detections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ld_hub.layers.coders import DistributionCoder
from ld_hub.layers.postprocess import PostprocessConfig, postprocess
from ld_hub.models.factory import create_model
from ld_hub.ops.grids import square_anchor_grid
from ld_hub.structures import DenseOutput
from tests.support import golden

CASES = golden.find("infer_*")
FAMILIES = {"gfl": "gfocal", "atss": "atss", "fcos": "fcos", "retina": "retinanet"}


def own_settings(family: str, **config: str) -> PostprocessConfig:
    """What a detector of the family does unless it is told otherwise."""
    with torch.device("meta"):
        return create_model(family, **config).postprocess_config


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
        family = FAMILIES[stem.split("_")[2]]
        config = own_settings(family, **({} if family == "gfocal" else {"boxes": "bins", "box_loss": "giou"}))
        assert config.prefilter == "location"  # LD's; that of the other code base is the one thing that differs
        config = replace(config, prefilter="pair" if info["fork"] == "BCKD" else "location")
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


@pytest.mark.parametrize(
    ("family", "boxes", "nms_iou"),
    [("atss", "delta", 0.6), ("fcos", "relu", 0.6), ("fcos", "exp", 0.5), ("retinanet", "delta", 0.5)],
)
def test_plain_detectors_have_the_settings_of_their_published_configurations(
    family: str, boxes: str, nms_iou: float
) -> None:
    expected = PostprocessConfig(0.05, nms_iou, 1000, 100, prefilter="pair")
    assert own_settings(family, boxes=boxes) == expected


@pytest.mark.parametrize("prefilter", ["location", "pair"])
def test_centerness_ranks_locations_and_not_pairs(prefilter: str) -> None:
    """The threshold asks the class score alone; `nms_pre` ranks locations by the product, pairs by the class score."""
    priors = square_anchor_grid([(1, 4)], (8,))
    classes = torch.tensor([[0.9, 0.02], [0.5, 0.4], [0.06, 0.01], [0.04, 0.04]])
    centerness = torch.tensor([0.1, 0.9, 0.5, 1.0])
    box = torch.zeros(1, 4, 4, 17)
    box[..., 0] = 40  # all edges at the centre: no overlaps, so NMS keeps everything
    output = DenseOutput(classes.logit()[None], box, centerness.logit()[None], priors, DistributionCoder(16))

    def found(nms_pre: int) -> list[tuple[float, int]]:
        config = PostprocessConfig(nms_pre=nms_pre, prefilter=prefilter)  # type: ignore[arg-type]
        (result,) = postprocess(output, torch.tensor([[8, 32]]), None, config)
        return [(round(s, 4), c) for s, c in zip(result.scores.tolist(), result.labels.tolist(), strict=True)]

    # 0.06 passes the threshold before its centerness halves it; 0.04 does not, whatever its centerness
    assert found(4) == [(0.45, 0), (0.36, 1), (0.09, 0), (0.03, 0)]
    best_one = {"location": [(0.45, 0), (0.36, 1)], "pair": [(0.09, 0)]}
    assert found(1) == best_one[prefilter]
