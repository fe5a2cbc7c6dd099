"""ATSS against the paper's algorithm written as loops."""

from __future__ import annotations

import torch
import torchvision.ops as tv
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_hub.assigners import ATSSAssigner, atss_threshold
from ld_hub.ops.grids import level_shapes, square_anchor_grid
from ld_hub.structures import Priors, Targets

STRIDES = (8, 16, 32, 64, 128)


def loops(priors: Priors, boxes: torch.Tensor, valid: torch.Tensor, topk: int) -> list[int]:
    """arXiv 1912.02424, Algorithm 1, one ground truth at a time; returns the index of the owner or -1."""
    owner, best = [-1] * len(priors), [-1.0] * len(priors)
    iou = tv.box_iou(boxes, priors.anchors)
    for g, box in enumerate(boxes):
        center, candidates = (box[:2] + box[2:]) / 2, []
        for level in range(len(priors.level_shapes)):
            here = [a for a in range(len(priors)) if priors.levels[a] == level and valid[a]]
            distance = [float(((priors.centers[a] - center) ** 2).sum()) for a in here]
            candidates += [a for _, a in sorted(zip(distance, here, strict=True))[:topk]]
        values = iou[g, candidates]
        threshold = values.mean() + values.std()
        for a in candidates:
            x, y = priors.centers[a]
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if iou[g, a] >= threshold and inside and iou[g, a] > best[a]:
                owner[a], best[a] = g, float(iou[g, a])
    return owner


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([(96, 128), (61, 90), (33, 128)]))
def test_against_loops(seed: int, number: int, size: tuple[int, int]) -> None:
    priors = square_anchor_grid(level_shapes(96, 128, STRIDES), STRIDES, dtype=torch.float64)
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=random, dtype=torch.float64) * 60
    boxes = torch.cat([corner, corner + 4 + torch.rand(number, 2, generator=random, dtype=torch.float64) * 60], dim=1)
    sizes = torch.tensor([size, (96, 128)], dtype=torch.float64)
    labels = torch.arange(number)
    targets = Targets.pad([boxes, boxes[:1]], [labels, labels[:1]], sizes)
    assignment = ATSSAssigner(topk=9)(priors, targets, num_classes=10)
    assert assignment.gt_index[0].tolist() == loops(priors, boxes, priors.valid(sizes)[0], 9)
    assert assignment.gt_index[1].tolist() == loops(priors, boxes[:1], priors.valid(sizes)[1], 9)
    owner = assignment.gt_index[0].clamp(min=0)
    assert torch.equal(assignment.labels[0], torch.where(assignment.positive[0], labels[owner], 10))
    assert torch.equal(assignment.boxes[0][assignment.positive[0]], boxes[owner][assignment.positive[0]])
    assert int(assignment.positive.sum()) <= assignment.capacity
    again = atss_threshold(assignment.overlaps, priors, targets.boxes, assignment.valid)
    assert torch.equal(again[0], assignment.thresholds[0])


def test_crowds_and_padding_are_never_assigned() -> None:
    priors = square_anchor_grid(level_shapes(128, 128, STRIDES), STRIDES)
    box = torch.tensor([[20.0, 20, 90, 90]])
    size = torch.tensor([[128.0, 128]])
    one = torch.zeros(1, dtype=torch.int64)
    plain = ATSSAssigner()(priors, Targets.pad([box], [one], size), 3)
    crowd = ATSSAssigner()(priors, Targets.pad([box], [one], size, [torch.tensor([True])]), 3)
    assert plain.positive.any()
    assert not crowd.positive.any()
    assert float(crowd.overlaps.abs().sum()) == 0
    padded = Targets.pad([box, box.repeat(3, 1)], [one, one.repeat(3)], size.repeat(2, 1))
    assert torch.equal(ATSSAssigner()(priors, padded, 3).gt_index[0], plain.gt_index[0])
