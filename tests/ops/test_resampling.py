"""A map on another grid's cells: against loops, and against what a linear map has to give."""

from __future__ import annotations

import math

import pytest
import torch

from ld_hub.ops.resampling import on_cells

GRIDS = [(16, (3, 5), 8, (6, 9)), (14, (5, 7), 8, (8, 12)), (16, (4, 5), 32, (2, 2)), (4, (9, 7), 128, (1, 1))]


def in_loops(values: torch.Tensor, stride: float, shape: tuple[int, int], wanted: float) -> torch.Tensor:
    height, width = values.shape
    found = torch.empty(shape, dtype=values.dtype)

    def corners(cell: int, size: int) -> tuple[int, int, float]:
        place = min(max((cell + 0.5) * wanted / stride - 0.5, 0.0), size - 1.0)
        low = min(math.floor(place), size - 1)
        return low, min(low + 1, size - 1), place - low

    for i in range(shape[0]):
        top, bottom, down = corners(i, height)
        for j in range(shape[1]):
            left, right, across = corners(j, width)
            upper = values[top, left] * (1 - across) + values[top, right] * across
            lower = values[bottom, left] * (1 - across) + values[bottom, right] * across
            found[i, j] = upper * (1 - down) + lower * down
    return found


@pytest.mark.parametrize(("stride", "size", "wanted", "shape"), GRIDS)
def test_values_are_those_of_a_loop(stride, size, wanted, shape) -> None:
    values = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = on_cells(values, stride, shape, wanted)
    assert found.shape == (2, 3, *shape)
    for image in range(2):
        for channel in range(3):
            expected = in_loops(values[image, channel], stride, shape, wanted)
            torch.testing.assert_close(found[image, channel], expected, rtol=1e-12, atol=1e-12)


def test_a_map_that_says_where_it_is_says_so_on_any_grid() -> None:
    """Middles of cells of 14 px, read at middles of cells of 8 px."""
    x = (torch.arange(12, dtype=torch.float64) + 0.5) * 14
    place = torch.stack(torch.meshgrid(x, x, indexing="xy"))[None]
    found = on_cells(place, 14, (18, 18), 8)[0, :, 1:, 1:]  # behind the first middle
    wanted = (torch.arange(1, 18, dtype=torch.float64) + 0.5) * 8
    torch.testing.assert_close(found, torch.stack(torch.meshgrid(wanted, wanted, indexing="xy")), rtol=1e-12, atol=0)


def test_the_same_grid_is_cut() -> None:
    values = torch.randn(1, 2, 6, 8, dtype=torch.bfloat16)
    assert torch.equal(on_cells(values, 16, (5, 8), 16), values[:, :, :5].float())
