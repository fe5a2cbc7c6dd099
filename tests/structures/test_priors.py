"""Priors, rows and targets."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_hub.ops.grids import level_shapes, square_anchor_grid
from ld_hub.structures import Assignment, Rows, StepCounts, Targets

STRIDES = (8, 16, 32, 64, 128)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 100), st.integers(0, 100))
def test_valid_is_by_each_images_own_padded_size(height: int, width: int, more_h: int, more_w: int) -> None:
    batch = (32 * math.ceil((height + more_h) / 32), 32 * math.ceil((width + more_w) / 32))
    priors = square_anchor_grid(level_shapes(*batch, STRIDES), STRIDES)
    valid = priors.valid(torch.tensor([[height, width]]))[0]
    own = (32 * math.ceil(height / 32), 32 * math.ceil(width / 32))
    expected = []
    for (rows, columns), s in zip(priors.level_shapes, STRIDES, strict=True):
        for i in range(rows):
            expected += [i < math.ceil(own[0] / s) and j < math.ceil(own[1] / s) for j in range(columns)]
    assert valid.tolist() == expected


def test_grid_of_gfl() -> None:
    priors = square_anchor_grid([(2, 3), (1, 2)], (8, 16), scale=8.0)
    assert priors.centers.tolist() == [[0, 0], [8, 0], [16, 0], [0, 8], [8, 8], [16, 8], [0, 0], [16, 0]]
    assert priors.anchors is not None
    assert priors.anchors[1].tolist() == [8 - 32, -32, 8 + 32, 32]
    assert priors.anchors[7].tolist() == [16 - 64, -64, 16 + 64, 64]
    assert priors.level_sizes == (6, 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(0, 4))
def test_fixed_capacity_rows_select_the_same_as_exact_ones(seed: int, density: float, spare: int) -> None:
    random = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, 40, generator=random) < density
    values = torch.randn(2, 40, 3, generator=random)
    exact = Rows.find(mask)
    assert torch.equal(exact.gather(values), values[mask])
    capacity = int(mask.sum()) + spare  # an upper bound, as an assigner knows it
    with _elsewhere():
        fixed = Rows.find(mask, capacity)
        dense = Rows.find(mask, None)
    for rows in (fixed, dense):
        total = (rows.gather(values) * rows.weight[:, None]).sum(dim=0)
        assert torch.allclose(total, values[mask].sum(dim=0), atol=1e-5)
        assert int(rows.weight.sum()) == int(mask.sum())


class _elsewhere:
    """Take the path of accelerators and compiled graphs on the CPU."""

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(torch.compiler, "is_compiling", lambda: True)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def test_a_batch_without_boxes_keeps_one_padded_column() -> None:
    empty = [torch.zeros(0, 4), torch.zeros(0, 4)]
    targets = Targets.pad(empty, [torch.zeros(0, dtype=torch.int64)] * 2, torch.tensor([[32, 32], [32, 32]]))
    assert targets.boxes.shape == (2, 1, 4)
    assert not targets.usable.any()


def test_counts_of_two_halves_average_to_the_whole() -> None:
    priors = square_anchor_grid([(2, 2), (1, 1)], (8, 16))
    gt = torch.tensor([[0, -1, -1, 0, 1], [-1, -1, -1, -1, -1], [0, 0, 0, -1, -1]])

    def assignment(index: torch.Tensor) -> Assignment:
        zeros = torch.zeros(index.shape)
        boxes = torch.tensor([-4.0, -2, 4, 8]).expand(*index.shape, 4)
        return Assignment(index, index, boxes, zeros, None, None, index > -9, priors)

    whole = StepCounts.local(assignment(gt))
    assert (whole.images.item(), whole.samples.item()) == (3, 3 + 1 + 3)
    assert whole.positives.tolist() == [2 + 0 + 3, 1]
    parts = StepCounts.mean([StepCounts.local(assignment(gt[:2])), StepCounts.local(assignment(gt[2:]))])
    assert parts.images.item() * 2 == 3
    assert parts.samples.item() * 2 == 7
    assert (parts.positives * 2).tolist() == [5, 1]
    # only the rows at (0, 0) lie inside the box: 4 px to either side, 2 up and 8 down
    assert whole.centerness.item() == 3 * (4 / 4 * 2 / 8) ** 0.5
    assert parts.centerness.item() * 2 == whole.centerness.item()
