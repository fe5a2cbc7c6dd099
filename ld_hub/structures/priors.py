"""Where a dense detector predicts: one row per location x anchor, all levels flattened."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Priors:
    """The grid that the rows of a `DenseOutput` stand on.

    Rows are ordered by level, then row-major by cell, then by anchor of the cell.

    Attributes:
        centers: ``(A, 2)`` x, y in px of the padded batch image.
        strides: ``(A,)`` px per cell.
        levels: ``(A,)`` int64, index of the pyramid level.
        anchors: ``(A, 4)`` xyxy px, or None for point-based heads (FCOS).
        level_shapes: ``(height, width)`` in cells of each level.
        level_strides: stride in px of each level.
        size_divisor: An image alone would be padded to a multiple of this; `valid` depends on it.
        anchors_per_cell: Anchors on each cell, 1 or (RetinaNet) 9.
    """

    centers: Tensor
    strides: Tensor
    levels: Tensor
    anchors: Tensor | None
    level_shapes: tuple[tuple[int, int], ...]
    level_strides: tuple[int, ...]
    size_divisor: int = 32
    anchors_per_cell: int = 1

    def __len__(self) -> int:
        return self.centers.shape[0]

    @property
    def level_sizes(self) -> tuple[int, ...]:
        """Rows of each level; their sum is A."""
        return tuple(height * width * self.anchors_per_cell for height, width in self.level_shapes)

    def valid(self, image_sizes: Tensor) -> Tensor:
        """Which rows lie on an image rather than on the padding of its batch.

        Validity is by each image's own padded size (reference SPEC 2): cells whose index is below
        ``ceil(padded / stride)``, where padded is the image's size rounded up to `size_divisor`.

        Args:
            image_sizes: ``(N, 2)`` height, width in px before padding.

        Returns:
            ``(N, A)`` bool.
        """
        padded = torch.ceil(image_sizes.to(self.centers.dtype) / self.size_divisor) * self.size_divisor
        cell = torch.floor(self.centers / self.strides[:, None])  # (A, 2) column, row
        limit = torch.ceil(padded.flip(1)[:, None, :] / self.strides[None, :, None])  # (N, A, 2) columns, rows
        return (cell[None] < limit).all(dim=2)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Priors:
        """Return the same grid on another device or in another floating-point type."""
        return replace(
            self,
            centers=self.centers.to(device=device, dtype=dtype),
            strides=self.strides.to(device=device, dtype=dtype),
            levels=self.levels.to(device=device),
            anchors=None if self.anchors is None else self.anchors.to(device=device, dtype=dtype),
        )
