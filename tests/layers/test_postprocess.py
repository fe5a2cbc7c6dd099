"""Settings of post-processing, and the kinds of NMS they name."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ld_hub.errors import ConfigError
from ld_hub.layers.coders import DistributionCoder
from ld_hub.layers.postprocess import NMS_KINDS, PostprocessConfig, postprocess
from ld_hub.models.checkpoints.saved import read_saved
from ld_hub.models.factory import create_model
from ld_hub.ops.grids import square_anchor_grid
from ld_hub.ops.nms import class_aware_nms, score_voting_nms, soft_nms
from ld_hub.structures import DenseOutput

SIZE = torch.tensor([[96, 96]])


def output(seed: int = 0) -> DenseOutput:
    """Overlapping boxes of three classes, with sure distributions."""
    random = torch.Generator().manual_seed(seed)
    priors = square_anchor_grid([(12, 12), (6, 6)], (8, 16))
    rows = len(priors.strides)
    box = torch.zeros(1, rows, 4, 17)
    box.scatter_(3, torch.randint(1, 4, (1, rows, 4, 1), generator=random), 20.0)
    return DenseOutput(torch.randn(1, rows, 3, generator=random) - 1, box, None, priors, DistributionCoder(16))


def test_each_kind_is_the_function_it_names() -> None:
    """The candidates are those of hard NMS that drops nothing."""
    config = PostprocessConfig(score_threshold=0.3, nms_iou=0.2, max_detections=40, soft_sigma=0.3, voting_sigma=0.1)
    (every,) = postprocess(output(), SIZE, None, replace(config, nms_iou=1.0, max_detections=10_000))
    boxes, scores, labels = every.boxes, every.scores, every.labels
    assert len(scores) > 100
    hard = class_aware_nms(boxes, scores, labels, 0.2, 40)
    voted, mean = score_voting_nms(boxes, scores, labels, iou_threshold=0.2, sigma=0.1, most=40)
    expected = {"hard": (boxes[hard], scores[hard], labels[hard]), "score_voting": (mean, scores[voted], labels[voted])}
    for decay in ("linear", "gaussian"):
        index, lowered = soft_nms(
            boxes, scores, labels, decay, iou_threshold=0.2, sigma=0.3, least=0.001, most=40  # type: ignore[arg-type]
        )  # fmt: skip
        expected[f"soft_{decay}"] = (boxes[index], lowered, labels[index])
    assert set(expected) == set(NMS_KINDS)
    for kind, parts in expected.items():
        (found,) = postprocess(output(), SIZE, None, replace(config, nms=kind))  # type: ignore[arg-type]
        assert len(found.scores) == 40 and (found.scores.diff() <= 0).all()
        for mine, part in zip((found.boxes, found.scores, found.labels), parts, strict=True):
            assert torch.allclose(mine, part, rtol=1e-5)  # candidates come in another order: sums round otherwise
    assert len({str((parts[0].tolist(), parts[1].tolist())) for parts in expected.values()}) == 4


@pytest.mark.parametrize("prefilter", ["location", "pair"])
def test_a_score_at_the_threshold_does_not_count(prefilter: Any) -> None:
    priors = square_anchor_grid([(1, 3)], (8,))
    logits = torch.tensor([[[0.0], [1.0], [-1.0]]])
    few = DenseOutput(logits, torch.zeros(1, 3, 4, 17), None, priors, DistributionCoder(16))
    config = PostprocessConfig(score_threshold=0.5, nms_iou=1.0, prefilter=prefilter)
    (found,) = postprocess(few, SIZE, None, config)
    assert found.scores.tolist() == [torch.tensor(1.0).sigmoid().item()]


@pytest.mark.parametrize("prefilter", ["location", "pair"])
@pytest.mark.parametrize("nms_pre", [20, 1000])
def test_what_is_found_on_the_padding_of_an_image_does_not_count(prefilter: Any, nms_pre: int) -> None:
    """The image ends at 40 px; its own padding reaches to 64, that of its batch to 96."""
    config = PostprocessConfig(score_threshold=0.3, nms_iou=1.0, prefilter=prefilter, nms_pre=nms_pre)
    size, quiet, loud = torch.tensor([[96, 40]]), output(), output()
    beyond = quiet.priors.centers[:, 0] >= 64
    assert 20 < beyond.sum() < 100
    quiet.cls_logits[:, beyond] = -9.0
    loud.cls_logits[:, beyond] = 9.0
    (first,), (second,) = (postprocess(each, size, None, config) for each in (quiet, loud))
    assert torch.equal(first.boxes, second.boxes) and torch.equal(first.scores, second.scores)
    assert len(first.scores) > 20 and first.boxes[:, 2].max() <= 40


@pytest.mark.parametrize("kind", NMS_KINDS)
def test_no_candidates(kind: Any) -> None:
    (found,) = postprocess(output(), SIZE, None, PostprocessConfig(score_threshold=1.0, nms=kind))
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(
    "values", [{"nms": "Hard"}, {"soft_sigma": 0.0}, {"voting_sigma": float("inf")}, {"soft_least": -0.1}]
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        PostprocessConfig(**values)


def test_settings_are_stored_with_a_model(tmp_path: Path) -> None:
    """At their defaults the later settings are not written, so that older versions read the file without a warning."""
    model = create_model("gfocal_tiny", num_classes=2)
    stored = json.loads((model.save_pretrained(tmp_path / "plain") / "config.json").read_text())["postprocess"]
    assert list(stored) == ["score_threshold", "nms_iou", "nms_pre", "max_detections", "prefilter"]
    assert read_saved(tmp_path / "plain").postprocess_config == model.postprocess_config
    model.postprocess_config = config = PostprocessConfig(nms="score_voting", voting_sigma=0.05)
    stored = json.loads((model.save_pretrained(tmp_path / "voting") / "config.json").read_text())["postprocess"]
    assert stored.items() <= asdict(config).items()
    assert set(asdict(config)) - set(stored) == {"soft_sigma", "soft_least"}
    assert read_saved(tmp_path / "voting").postprocess_config == config
    assert {item.name for item in fields(config)} >= set(stored)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", NMS_KINDS)
def test_on_a_gpu_as_on_the_cpu(kind: Any) -> None:
    config = PostprocessConfig(score_threshold=0.3, nms_iou=0.5, nms=kind)
    plain = output()
    priors = square_anchor_grid([(12, 12), (6, 6)], (8, 16), device=torch.device("cuda"))
    moved = DenseOutput(plain.cls_logits.cuda(), plain.box.cuda(), None, priors, plain.coder)
    (here,), (there,) = postprocess(plain, SIZE, None, config), postprocess(moved, SIZE.cuda(), None, config)
    assert torch.equal(here.labels, there.labels.cpu())
    assert torch.allclose(here.boxes, there.boxes.cpu(), atol=1e-3)
    assert torch.allclose(here.scores, there.scores.cpu(), atol=1e-5)
