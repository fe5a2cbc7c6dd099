"""A map's values on the cells of another grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def on_cells(values: Tensor, stride: float, shape: tuple[int, int], wanted: float) -> Tensor:
    """Bilinear interpolation at the middles of the cells of another grid on the same images.

    Both grids begin at the images' top-left corner, whatever lies behind their other edges: a middle at x px is read
    at ``x / stride``. Beyond the outermost middles of the map its outermost values count.

    Args:
        values: ``(N, F, H, W)``.
        stride: px per cell of `values`.
        shape: Height and width in cells of the other grid.
        wanted: px per cell of the other grid.

    Returns:
        ``(N, F, *shape)`` in at least float32; a part of `values` where the strides agree.
    """
    values = values if values.dtype == torch.float64 else values.float()
    if stride == wanted and values.shape[2] >= shape[0] and values.shape[3] >= shape[1]:
        return values[:, :, : shape[0], : shape[1]]
    y, x = (
        (torch.arange(count, device=values.device, dtype=values.dtype) + 0.5) * (2 * wanted / stride / size) - 1
        for count, size in zip(shape, values.shape[2:], strict=True)
    )
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    grid = places.expand(len(values), -1, -1, -1)
    return F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
