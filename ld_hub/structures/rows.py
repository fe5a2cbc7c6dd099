"""The rows of a region: found once per step, gathered by every loss and term that needs them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rows:
    """Selected rows of the ``(N, A)`` grid of a batch.

    On the CPU the selection has exactly as many rows as the mask. Elsewhere its size must not depend on the data
    (that would make the host wait, and break compiled graphs), so it has a fixed capacity, filled up with rows of
    weight 0, or it keeps all rows in place where no useful capacity is known. No form ever drops a row.

    Attributes:
        index: ``(K,)`` int64 into the flattened ``N * A`` rows.
        weight: ``(K,)`` 1.0 for selected rows, 0.0 for filling.
        per_image: A, so that ``index % A`` is the row's prior.
        dense: True if `index` is simply all rows in order.
    """

    index: Tensor
    weight: Tensor
    per_image: int
    dense: bool = False

    @classmethod
    def find(cls, mask: Tensor, capacity: int | None = None, dtype: torch.dtype = torch.float32) -> Rows:
        """Select the True rows of a mask without a host synchronisation.

        Args:
            mask: ``(N, A)`` bool.
            capacity: Upper bound on the number of True entries, from shapes; None if there is none.
            dtype: Of `weight`.
        """
        flat = mask.flatten()
        if mask.device.type == "cpu" and not torch.compiler.is_compiling():
            index = flat.nonzero().squeeze(1)
            return cls(index, torch.ones(len(index), dtype=dtype), mask.shape[1])
        if capacity is None or capacity >= flat.numel() // 2:
            return cls.every(mask, dtype)
        position = torch.where(flat, flat.cumsum(0) - 1, capacity)  # unselected rows pile up in one spare slot
        index = torch.zeros(capacity + 1, dtype=torch.int64, device=mask.device)
        index.scatter_(0, position, torch.arange(flat.numel(), device=mask.device))
        weight = torch.arange(capacity, device=mask.device) < flat.sum()
        return cls(index[:capacity], weight.to(dtype), mask.shape[1])

    @classmethod
    def every(cls, mask: Tensor, dtype: torch.dtype = torch.float32) -> Rows:
        """All rows in place, those that are False in a mask with weight 0; for regions that hold nearly all.

        Args:
            mask: ``(N, A)`` bool.
            dtype: Of `weight`.
        """
        flat = mask.flatten()
        return cls(torch.arange(len(flat), device=flat.device), flat.to(dtype), mask.shape[1], dense=True)

    @property
    def priors(self) -> Tensor:
        """``(K,)`` index of each row into the A priors."""
        return self.index % self.per_image

    def gather(self, values: Tensor) -> Tensor:
        """Take these rows of ``(N, A, ...)`` values: ``(K, ...)``."""
        flat = values.flatten(0, 1)
        return flat if self.dense else flat.index_select(0, self.index)

    def mask(self, images: int) -> Tensor:
        """Where these rows are: ``(N, A)`` 1.0, and 0.0 elsewhere.

        Args:
            images: N.
        """
        flat = torch.zeros(images * self.per_image, dtype=self.weight.dtype, device=self.weight.device)
        return flat.scatter_add(0, self.index, self.weight).view(images, -1)
