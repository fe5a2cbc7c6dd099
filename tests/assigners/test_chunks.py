"""Cutting ground truths into parts changes no bit, and only the overlaps that are kept are a whole matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ld_hub.assigners import ATSSAssigner, FCOSAssigner, MaxIoUAssigner
from ld_hub.distillation.regions import vlr_weights
from ld_hub.ops import boxes as room
from ld_hub.ops.grids import level_shapes, multi_anchor_grid, point_grid, square_anchor_grid
from ld_hub.structures import Assignment, Priors, Targets

STRIDES = (8, 16, 32, 64, 128)
SIZE = (192, 256)
CASES = {
    "atss": (square_anchor_grid, ATSSAssigner()),
    "retinanet": (multi_anchor_grid, MaxIoUAssigner()),
    "fcos": (point_grid, FCOSAssigner()),
    "fcos, whole boxes": (point_grid, FCOSAssigner(center_radius=0.0)),
}


def truth(number: int) -> Targets:
    """Two images, the second one smaller and with fewer boxes; equal boxes and crowds among them."""
    random = torch.Generator().manual_seed(0)
    corner = torch.rand(number, 2, generator=random) * 150
    boxes = torch.cat([corner, corner + 6 + torch.rand(number, 2, generator=random) * 90], dim=1)
    boxes[number // 2] = boxes[1]
    labels, crowd = torch.randint(0, 7, (number,), generator=random), torch.arange(number) % 7 == 3
    few = slice(0, number // 3)
    sizes = torch.tensor([SIZE, (150, 256)])
    return Targets.pad([boxes, boxes[few] * 0.7], [labels, labels[few]], sizes, [crowd, crowd[few]])


def assign(case: str, targets: Targets) -> tuple[Priors, Assignment, Tensor]:
    grid, assigner = CASES[case]
    priors = grid(level_shapes(*SIZE, STRIDES), STRIDES)
    assignment = assigner(priors, targets, 7)  # type: ignore[operator]
    region = assignment.weights if priors.anchors is None else vlr_weights(assignment, targets)
    return priors, assignment, region


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = truth(13)
    priors, whole, region = assign(case, targets)
    for size in (1, 5 * 2 * len(priors)):  # a box at a time; five, five and three
        monkeypatch.setattr(room, "CHUNK", size)
        assert len(room.chunks(13, 2 * len(priors))) in {13, 3}
        _, cut, region_of_cut = assign(case, targets)
        for field in ("gt_index", "labels", "boxes", "weights", "overlaps", "thresholds"):
            one, other = getattr(whole, field), getattr(cut, field)
            assert (one is None and other is None) or torch.equal(one, other), field
        assert torch.equal(region, region_of_cut)
    assert whole.positive.sum() > 10


class _Sizes(TorchDispatchMode):
    """Entries of the tensors that are made, by storage; the tensors are held, so that no storage is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.made.setdefault(leaf.untyped_storage().data_ptr(), leaf)
        return result

    def above(self, entries: int) -> list[int]:
        held = self.made.values()
        return [t.untyped_storage().nbytes() for t in held if t.untyped_storage().nbytes() > 4 * entries]


@pytest.mark.parametrize("case", CASES)
def test_only_the_overlaps_are_kept_whole(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = truth(40)
    rows = 2 * len(assign(case, targets)[0])
    monkeypatch.setattr(room, "CHUNK", 4 * rows)
    with _Sizes() as sizes:
        _, assignment, _ = assign(case, targets)
    kept = [] if assignment.overlaps is None else [assignment.overlaps.numel() * 4]
    assert sizes.above(10 * rows) == kept


def test_a_compiled_graph_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    assert room.chunks(10, room.CHUNK // 3) == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)]
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    assert room.chunks(10, room.CHUNK // 3) == [slice(0, 10)]
