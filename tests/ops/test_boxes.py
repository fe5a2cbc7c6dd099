"""Box operations against torchvision's."""

from __future__ import annotations

import pytest
import torch
import torchvision.ops as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ld_hub.ops.boxes import centre_penalty, overlap, pairwise_iou
from ld_hub.ops.distribution import boxes_to_distances, distances_to_boxes, expectation
from ld_hub.ops.nms import class_aware_nms


def boxes(number: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(number, 2, generator=random, dtype=dtype) * 50
    return torch.cat([corner, corner + 1 + torch.rand(number, 2, generator=random, dtype=dtype) * 40], dim=1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_pairs(seed: int) -> None:
    first, second = boxes(8, seed), boxes(11, seed + 1)
    expected = tv.box_iou(first, second)
    actual = pairwise_iou(first.view(2, 4, 4), second)
    assert torch.allclose(actual.view(8, 11), expected, atol=1e-12)
    penalty = expected - tv.distance_box_iou(first, second, eps=0)
    assert torch.allclose(centre_penalty(first.view(2, 4, 4), second).view(8, 11), penalty, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("giou", tv.generalized_box_iou_loss),
        ("diou", tv.distance_box_iou_loss),
    ],
)
def test_rows(kind: str, loss: object) -> None:
    first, second = boxes(64, 1), boxes(64, 2)
    assert torch.allclose(1 - overlap(first, second, kind), loss(first, second, eps=1e-6), atol=1e-6)  # type: ignore
    assert torch.allclose(overlap(first, first, kind), torch.ones(64, dtype=torch.float64), atol=1e-6)


def test_gradients_of_rows() -> None:
    first, second = boxes(5, 3).requires_grad_(), boxes(5, 4)
    for kind, reference in (("iou", ""), ("giou", ""), ("diou", ""), ("ciou", "ld")):
        assert torch.autograd.gradcheck(lambda b, k=kind, r=reference: overlap(b, second, k, reference=r), (first,))


def test_distances_invert() -> None:
    centers = torch.rand(6, 2)
    box = boxes(6, 5, torch.float32)
    assert torch.allclose(distances_to_boxes(centers, boxes_to_distances(centers, box)), box, atol=1e-5)


def test_expectation_of_known_distributions() -> None:
    logits = torch.full((2, 17), -1e4)
    logits[0, 3] = 0.0  # certain: 3
    logits[1, 4] = logits[1, 9] = 0.0  # undecided between 4 and 9
    assert expectation(logits).tolist() == [3.0, 6.5]


def test_nms_is_torchvisions_within_classes() -> None:
    box, random = boxes(300, 6, torch.float32), torch.Generator().manual_seed(7)
    scores, labels = torch.rand(300, generator=random), torch.randint(0, 5, (300,), generator=random)
    kept = class_aware_nms(box, scores, labels, 0.5, 1000)
    assert torch.equal(kept, tv.batched_nms(box, scores, labels, 0.5))
    assert torch.equal(class_aware_nms(box, scores, labels, 0.5, 7), kept[:7])
    assert class_aware_nms(box[:0], scores[:0], labels[:0], 0.5, 7).shape == (0,)
