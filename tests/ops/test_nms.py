"""Soft-NMS and score-voting NMS against plain loops over boxes."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision

from ld_hub.ops import nms
from ld_hub.ops.nms import class_aware_nms, score_voting_nms, soft_nms


def problem(seed: int, number: int = 60, classes: int = 3, size: float = 60.0):
    """Boxes around a few places, so that many overlap."""
    random = torch.Generator().manual_seed(seed)
    centre = torch.rand(6, 2, generator=random, dtype=torch.float64)[torch.randint(0, 6, (number,), generator=random)]
    corner = centre * 150 + 6 * torch.rand(number, 2, generator=random, dtype=torch.float64)
    extent = size * (0.7 + 0.2 * torch.rand(number, 2, generator=random, dtype=torch.float64))
    scores = torch.rand(number, generator=random, dtype=torch.float64)
    return torch.cat([corner, corner + extent], dim=1), scores, torch.randint(0, classes, (number,), generator=random)


def loop_iou(a, b, distance=False):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    iou = common / max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common, 1e-12)
    if not distance:
        return iou
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    between = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    return iou - between / diagonal


def loop_soft(boxes, scores, labels, decay, iou_threshold, sigma, least, most):
    boxes, left, labels = boxes.tolist(), dict(enumerate(scores.tolist())), labels.tolist()
    result = []
    while left:
        best = max(left, key=left.get)
        result.append((best, left.pop(best)))
        for k in left:
            if labels[k] == labels[best]:
                iou = loop_iou(boxes[k], boxes[best])
                if decay == "gaussian":
                    left[k] *= math.exp(-(iou**2) / sigma)
                elif iou > iou_threshold:
                    left[k] *= 1 - iou
    return [(k, score) for k, score in result if score > least][:most]


def loop_voting(boxes, scores, labels, iou_threshold, sigma, most):
    rows, values, classes = boxes.tolist(), scores.tolist(), labels.tolist()
    kept = []
    for k in sorted(range(len(rows)), key=lambda k: -values[k]):
        same = (j for j in kept if classes[j] == classes[k])
        if all(loop_iou(rows[j], rows[k], distance=True) <= iou_threshold for j in same):
            kept.append(k)
    kept, result = kept[:most], []
    for k in kept:
        votes = [
            (1.0 if j == k else loop_iou(rows[k], rows[j]), j) for j in range(len(rows)) if classes[j] == classes[k]
        ]
        votes = [(values[j] * math.exp(-((1 - iou) ** 2) / sigma), rows[j]) for iou, j in votes if iou > 0.01]
        total = sum(weight for weight, _ in votes)
        result.append([sum(weight * row[s] for weight, row in votes) / total for s in range(4)])
    return kept, result


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
@pytest.mark.parametrize("seed, most, least", [(0, 1000, 0.001), (1, 25, 0.001), (2, 1000, 0.2)])
def test_soft_nms_is_the_loop(decay, seed, most, least):
    boxes, scores, labels = problem(seed)
    settings = {"iou_threshold": 0.4, "sigma": 0.5, "least": least, "most": most}
    index, value = soft_nms(boxes, scores, labels, decay, **settings)
    expected = loop_soft(boxes, scores, labels, decay, **settings)
    assert index.tolist() == [k for k, _ in expected]
    assert value.tolist() == pytest.approx([score for _, score in expected], rel=1e-6)  # overlap() clamps the union
    assert 10 < len(index) and (value < scores[index] - 1e-3).any()


@pytest.mark.parametrize(
    "seed, threshold, most, sigma",
    [(3, 0.6, 1000, 0.025), (4, 0.3, 1000, 0.025), (5, 0.6, 9, 0.025), (6, 0.0, 1000, 0.025), (7, 0.6, 1000, 2.0)],
)
def test_score_voting_is_the_loop(seed, threshold, most, sigma, monkeypatch):
    monkeypatch.setattr(nms, "CHUNK", 50)  # several parts
    boxes, scores, labels = problem(seed)
    index, mean = score_voting_nms(boxes, scores, labels, iou_threshold=threshold, sigma=sigma, most=most)
    kept, expected = loop_voting(boxes, scores, labels, threshold, sigma, most)
    assert index.tolist() == kept
    assert torch.allclose(mean, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-4)
    assert (mean - boxes[index]).abs().max() > 0.5
    assert len(kept) < 40


def test_votes_are_exact_under_autocast():
    boxes, scores, labels = problem(3)
    boxes, scores = boxes.float(), scores.float()
    _, plain = score_voting_nms(boxes, scores, labels, iou_threshold=0.6, sigma=0.025, most=100)
    with torch.autocast("cpu", torch.bfloat16):
        _, mean = score_voting_nms(boxes, scores, labels, iou_threshold=0.6, sigma=0.025, most=100)
    assert torch.equal(mean, plain) and mean.dtype == torch.float32


def test_suppression_goes_through_chains():
    """A suppresses B, which therefore does not suppress C, which then suppresses D: Cluster-NMS needs its rounds."""
    boxes = torch.tensor([[20.0 * k, 0, 20.0 * k + 100, 100] for k in range(12)])
    scores, labels = torch.linspace(0.9, 0.1, 12), torch.zeros(12, dtype=torch.int64)
    index, _ = score_voting_nms(boxes, scores, labels, iou_threshold=0.5, sigma=0.025, most=100)
    assert index.tolist() == [0, 2, 4, 6, 8, 10]


def test_an_overlap_at_the_threshold_suppresses_nothing():
    """An IoU of exactly 1/2, and a DIoU of exactly 1/4, the IoU of two boxes with one centre."""
    scores, labels = torch.tensor([0.9, 0.5]), torch.zeros(2, dtype=torch.int64)
    half = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 4]])
    soft = {"sigma": 0.5, "least": 0.001, "most": 10}
    assert class_aware_nms(half, scores, labels, 0.5, 10).tolist() == [0, 1]
    assert torch.equal(soft_nms(half, scores, labels, "linear", iou_threshold=0.5, **soft)[1], scores)
    lower = soft_nms(half, scores, labels, "linear", iou_threshold=0.499, **soft)[1]
    assert lower.tolist() == pytest.approx([0.9, 0.25])
    centred = torch.tensor([[0.0, 0, 4096, 4096], [1024, 1024, 3072, 3072]])  # beside which eps is nothing
    for threshold, kept in ((0.25, [0, 1]), (0.249, [0])):
        found = score_voting_nms(centred, scores, labels, iou_threshold=threshold, sigma=0.025, most=10)
        assert found[0].tolist() == kept


def test_steps_are_enough_for_one_class_alone():
    boxes = torch.tensor([[20.0 * k, 0, 20 * k + 10, 10] for k in range(6)])
    scores, labels = torch.linspace(0.9, 0.4, 6), torch.zeros(6, dtype=torch.int64)
    index, value = soft_nms(boxes, scores, labels, "linear", iou_threshold=0.5, sigma=0.5, least=0.001, most=4)
    assert index.tolist() == [0, 1, 2, 3] and torch.equal(value, scores[:4])


def test_classes_far_apart_are_suppressed_exactly():
    """The shift of class 999 leaves a float32 coordinate no quarter of a pixel."""
    random = torch.Generator().manual_seed(0)
    corner = torch.rand(400, 2, generator=random) * 12 + torch.tensor([4000.0, 0])
    boxes = torch.cat([corner, corner + 4 + torch.rand(400, 2, generator=random)], dim=1)
    scores, label = torch.rand(400, generator=random), torch.full((400,), 999)
    expected = torchvision.ops.nms(boxes.double(), scores.double(), 0.3)
    assert class_aware_nms(boxes, scores, label, 0.3, 400).tolist() == expected.tolist()


def test_sharp_settings_are_hard_nms():
    """Distinct classes, threshold 0 and a decay to nothing: the same boxes as torchvision's NMS keeps."""
    boxes, scores, labels = problem(7)
    hard = class_aware_nms(boxes, scores, labels, 0.0, 1000)
    index, value = soft_nms(boxes, scores, labels, "gaussian", iou_threshold=0.0, sigma=1e-12, least=1e-9, most=1000)
    assert index.tolist() == hard.tolist()
    assert torch.equal(value, scores[hard])


def test_degenerate_and_no_boxes():
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 10.0, 10.0]])
    scores, labels = torch.tensor([0.9, 0.5]), torch.zeros(2, dtype=torch.int64)
    index, boxes = score_voting_nms(point, scores, labels, iou_threshold=0.6, sigma=0.025, most=10)
    assert index.tolist() == [0, 1] and torch.equal(boxes, point)
    nothing = torch.tensor([0.9, 0.0])  # as of a quality that float32 cannot tell from 0
    index, boxes = score_voting_nms(point, nothing, labels, iou_threshold=0.6, sigma=0.025, most=10)
    assert index.tolist() == [0, 1] and torch.equal(boxes, point)
    soft = {"iou_threshold": 0.5, "sigma": 0.5, "least": 0.001, "most": 10}
    index, value = soft_nms(point, scores, labels, "linear", **soft)
    assert index.tolist() == [0, 1] and torch.equal(value, scores)
    none = point[:0], scores[:0], labels[:0]
    assert [len(part) for part in score_voting_nms(*none, iou_threshold=0.6, sigma=0.025, most=10)] == [0, 0]
    assert [len(part) for part in soft_nms(*none, "gaussian", **soft)] == [0, 0]
