"""Grids of priors for the heads of the library."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ld_hub.structures import Priors


def level_shapes(height: int, width: int, strides: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Cells of each level for an input of height x width px (each stride-2 step rounds up)."""
    return tuple((-(-height // stride), -(-width // stride)) for stride in strides)


def square_anchor_grid(
    shapes: Sequence[tuple[int, int]],
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
    centers, stride_rows, level_rows = [], [], []
    for level, ((height, width), stride) in enumerate(zip(shapes, strides, strict=True)):
        y, x = torch.meshgrid(
            torch.arange(height, device=device, dtype=dtype) * stride,
            torch.arange(width, device=device, dtype=dtype) * stride,
            indexing="ij",
        )
        centers.append(torch.stack([x, y], dim=-1).reshape(-1, 2))
        stride_rows.append(torch.full((height * width,), float(stride), device=device, dtype=dtype))
        level_rows.append(torch.full((height * width,), level, device=device, dtype=torch.int64))
    center, stride_row = torch.cat(centers), torch.cat(stride_rows)
    half: Tensor = stride_row[:, None] * (scale / 2)
    anchors = torch.cat([center - half, center + half], dim=1)
    return Priors(center, stride_row, torch.cat(level_rows), anchors, tuple(shapes), tuple(strides), size_divisor)
