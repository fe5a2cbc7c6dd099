"""MaxIoU and FCOS assignment against the published rules written as loops."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torchvision.ops as tv
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_hub.assigners import FCOSAssigner, MaxIoUAssigner
from ld_hub.ops.grids import level_shapes, multi_anchor_grid, point_grid
from ld_hub.structures import Priors, Targets

STRIDES = (8, 16, 32)
SIZE = (64, 96)


def truth(seed: int, number: int = 2, most: int = 4) -> Targets:
    """Boxes on quarter px, so that float64 areas and distances are exact; each image has a crowd if it has boxes."""
    random = torch.Generator().manual_seed(seed)
    boxes, labels, crowd = [], [], []
    for n in range(number):
        many = (seed + n) % (most + 1)
        corner = torch.randint(0, 160, (many, 2), generator=random) / 4
        side = torch.randint(8, 200, (many, 2), generator=random) / 4
        boxes.append(torch.cat([corner, corner + side], dim=1).double())
        labels.append(torch.randint(0, 7, (many,), generator=random))
        crowd.append(torch.arange(many) == 2)
    sizes = torch.tensor([SIZE, (40, 96)])[:number]
    return Targets.pad(boxes, labels, sizes, crowd)


def max_iou_loops(priors: Priors, boxes: torch.Tensor, usable: torch.Tensor, valid: torch.Tensor) -> list[int]:
    owner = []
    iou = tv.box_iou(boxes, priors.anchors)
    iou[:, ~valid] = 0
    for a in range(len(priors)):
        mine = {g: float(iou[g, a]) for g in range(len(boxes)) if usable[g]}
        best = max(mine, key=lambda g: mine[g]) if mine else -1
        value = mine.get(best, 0.0)
        owner.append(best if value >= 0.5 else -1 if value < 0.4 else -2)
        for g, overlap in mine.items():
            if overlap > 0 and overlap == float(iou[g].max()):
                owner[a] = g
    return owner


def fcos_loops(
    priors: Priors, boxes: torch.Tensor, usable: torch.Tensor, valid: torch.Tensor, radius: float
) -> list[int]:
    ranges = [(-1, 64), (64, 128), (128, float("inf"))]
    owner = []
    for a in range(len(priors)):
        (x, y), s = priors.centers[a].tolist(), float(priors.strides[a])
        best, least = -1, float("inf")
        for g, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
            region = (x1, y1, x2, y2)
            if radius:
                region = (max(x1, cx - radius * s), max(y1, cy - radius * s),
                          min(x2, cx + radius * s), min(y2, cy + radius * s))  # fmt: skip
            near = region[0] < x < region[2] and region[1] < y < region[3]
            low, high = ranges[int(priors.levels[a])]
            fits = low <= max(x - x1, y - y1, x2 - x, y2 - y) <= high
            if usable[g] and valid[a] and near and fits and (x2 - x1) * (y2 - y1) < least:
                best, least = g, (x2 - x1) * (y2 - y1)
        owner.append(best)
    return owner


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_max_iou(seed: int) -> None:
    priors, targets = multi_anchor_grid(level_shapes(*SIZE, STRIDES), STRIDES, dtype=torch.float64), truth(seed)
    found = MaxIoUAssigner()(priors, targets, num_classes=7)
    for n in range(2):
        valid = priors.valid(targets.image_sizes)[n]
        assert found.gt_index[n].tolist() == max_iou_loops(priors, targets.boxes[n], targets.usable[n], valid)
    assert torch.equal(found.weights == 0, (found.gt_index == -2) | ~found.valid)
    assert torch.equal(found.labels < 7, found.positive)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.5]))
def test_fcos(seed: int, radius: float) -> None:
    priors, targets = point_grid(level_shapes(*SIZE, STRIDES), STRIDES, dtype=torch.float64), truth(seed)
    found = FCOSAssigner(center_radius=radius)(priors, targets, num_classes=7)
    for n in range(2):
        valid = priors.valid(targets.image_sizes)[n]
        assert found.gt_index[n].tolist() == fcos_loops(priors, targets.boxes[n], targets.usable[n], valid, radius)


@pytest.mark.parametrize("assigner", [MaxIoUAssigner(), FCOSAssigner()])
def test_crowds_padding_and_batch_mates_change_nothing(assigner: object) -> None:
    grid = multi_anchor_grid if isinstance(assigner, MaxIoUAssigner) else point_grid
    priors, targets = grid(level_shapes(*SIZE, STRIDES), STRIDES, dtype=torch.float64), truth(4)
    whole = assigner(priors, targets, 7)  # type: ignore[operator]
    assert targets.crowd.any()
    assert not ((whole.gt_index >= 0) & targets.crowd.gather(1, whole.gt_index.clamp(min=0))).any()
    for n in range(2):
        one = {f.name: getattr(targets, f.name)[n : n + 1] for f in dataclasses.fields(targets)}
        one |= {k: torch.cat([one[k], torch.ones_like(one[k])], dim=1) for k in ("boxes", "labels", "crowd")}
        one["valid"] = torch.cat([one["valid"], torch.zeros_like(one["valid"])], dim=1)
        alone = assigner(priors, Targets(**one), 7)  # type: ignore[operator]
        assert torch.equal(alone.gt_index[0], whole.gt_index[n])


def test_a_box_without_area_gets_no_anchor() -> None:
    """The published low-quality rule would give it every anchor: all of them equal its best overlap, 0."""
    priors = multi_anchor_grid(level_shapes(*SIZE, STRIDES), STRIDES)
    targets = Targets.pad([torch.tensor([[5.0, 5, 5, 5]])], [torch.tensor([1])], torch.tensor([SIZE]))
    assert not MaxIoUAssigner()(priors, targets, 7).positive.any()


def test_grids_by_hand() -> None:
    points = point_grid([(2, 3), (1, 1)], (8, 16))
    assert points.centers.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8]]
    anchors = multi_anchor_grid([(1, 2)], (8,)).anchors
    assert anchors is not None
    sides = torch.stack([anchors[:9, 2] - anchors[:9, 0], anchors[:9, 3] - anchors[:9, 1]], dim=1)
    for i, ratio in enumerate((0.5, 1.0, 2.0)):
        for k in range(3):
            side = 32 * 2 ** (k / 3)
            expected = torch.tensor([side / ratio**0.5, side * ratio**0.5])
            assert torch.allclose(sides[3 * i + k], expected, rtol=1e-6)
    assert torch.allclose(anchors[9:] - anchors[:9], torch.tensor([8.0, 0, 8, 0]), atol=1e-5)
