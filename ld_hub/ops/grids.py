"""Grids of priors for the heads of the library."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ld_hub.structures import Priors

Shapes = Sequence[tuple[int, int]]


def level_shapes(height: int, width: int, strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Cells of each level for an input of height x width px (each stride-2 step rounds up)."""
    return tuple((-(-height // stride), -(-width // stride)) for stride in strides)


def square_anchor_grid(
    shapes: Shapes,
    strides: Sequence[int],
    *,
    scale: float = 8.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    size_divisor: int = 32,
) -> Priors:
    """One square anchor per cell, as ATSS and GFL use it.

    The anchor of cell (column j, row i) is centred on the cell's top-left corner ``(j * s, i * s)`` px, not on its
    middle (reference SPEC 2), and its side is ``scale * s`` px.

    Args:
        shapes: Height and width in cells of each level.
        strides: Stride of each level in px.
        scale: Side of an anchor in stride units.
        device: Where the tensors are made.
        dtype: Floating-point type.
        size_divisor: Stored in the priors, see `Priors.valid`.
    """
    points = point_grid(shapes, strides, corner=True, device=device, dtype=dtype, size_divisor=size_divisor)
    half: Tensor = points.strides[:, None] * (scale / 2)
    anchors = torch.cat([points.centers - half, points.centers + half], dim=1)
    return Priors(points.centers, points.strides, points.levels, anchors, tuple(shapes), tuple(strides), size_divisor)


def point_grid(
    shapes: Shapes,
    strides: Sequence[int],
    *,
    corner: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    size_divisor: int = 32,
) -> Priors:
    """One point per cell, ``(j * s + s // 2, i * s + s // 2)`` px, as FCOS uses it.

    Args:
        shapes: Height and width in cells of each level.
        strides: Stride of each level in px.
        corner: Put the points on the cells' top-left corners ``(j * s, i * s)`` instead.
        device: Where the tensors are made.
        dtype: Floating-point type.
        size_divisor: Stored in the priors, see `Priors.valid`.
    """
    centers, stride_rows, level_rows = [], [], []
    for level, ((height, width), stride) in enumerate(zip(shapes, strides, strict=True)):
        offset = 0 if corner else stride // 2
        y, x = torch.meshgrid(
            torch.arange(height, device=device, dtype=dtype) * stride + offset,
            torch.arange(width, device=device, dtype=dtype) * stride + offset,
            indexing="ij",
        )
        centers.append(torch.stack([x, y], dim=-1).reshape(-1, 2))
        stride_rows.append(torch.full((height * width,), float(stride), device=device, dtype=dtype))
        level_rows.append(torch.full((height * width,), level, device=device, dtype=torch.int64))
    center, stride_row, level_row = torch.cat(centers), torch.cat(stride_rows), torch.cat(level_rows)
    return Priors(center, stride_row, level_row, None, tuple(shapes), tuple(strides), size_divisor)


def multi_anchor_grid(
    shapes: Shapes,
    strides: Sequence[int],
    *,
    scale: float = 4.0,
    octaves: int = 3,
    ratios: Sequence[float] = (0.5, 1.0, 2.0),
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
    size_divisor: int = 32,
) -> Priors:
    """``len(ratios) * octaves`` anchors per cell, as RetinaNet uses them (arXiv 1708.02002, sec. 4).

    All are centred on the cell's top-left corner. Anchors of a cell are ordered by ratio, then by size
    ``scale * s * 2^(k / octaves)`` px. The order of the float32 operations is the published one, because low-quality
    matching tests overlaps for equality (reference SPEC 2).

    Args:
        shapes: Height and width in cells of each level.
        strides: Stride of each level in px.
        scale: Side of the smallest square anchor in stride units.
        octaves: Sizes per factor of two.
        ratios: Height over width.
        device: Where the tensors are made.
        dtype: Floating-point type.
        size_divisor: Stored in the priors, see `Priors.valid`.
    """
    cells = point_grid(shapes, strides, corner=True, device=device, dtype=dtype, size_divisor=size_divisor)
    per_cell = octaves * len(ratios)
    scales = torch.tensor([2 ** (k / octaves) * scale for k in range(octaves)], device=device)  # float32 as published
    tall = torch.tensor(ratios, device=device).sqrt()[:, None]
    wide = 1 / tall
    anchors, start = [], 0
    for (height, width), stride in zip(shapes, strides, strict=True):
        half_w = 0.5 * (stride * wide * scales[None]).flatten()
        half_h = 0.5 * (stride * tall * scales[None]).flatten()
        base = torch.stack([-half_w, -half_h, half_w, half_h], dim=1).to(dtype)  # (per_cell, 4)
        corner = cells.centers[start : start + height * width].repeat(1, 2)
        anchors.append((corner[:, None] + base).reshape(-1, 4))
        start += height * width
    return Priors(
        centers=cells.centers.repeat_interleave(per_cell, dim=0),
        strides=cells.strides.repeat_interleave(per_cell),
        levels=cells.levels.repeat_interleave(per_cell),
        anchors=torch.cat(anchors),
        level_shapes=tuple(shapes),
        level_strides=tuple(strides),
        size_divisor=size_divisor,
        anchors_per_cell=per_cell,
    )
