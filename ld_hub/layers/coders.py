"""Box coders: the one place that knows what a head's box channels mean."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ld_hub.ops.distribution import distances_to_boxes, expectation
from ld_hub.structures import Priors


@dataclass(frozen=True)
class DistributionCoder:
    """Edge distances as distributions over ``reg_max + 1`` bins of one stride each (GFL, sec. 3.2).

    Attributes:
        reg_max: R; the largest distance is R strides.
    """

    reg_max: int = 16

    @property
    def channels(self) -> int:
        """Regression channels per prior."""
        return 4 * (self.reg_max + 1)

    def decode(self, box: Tensor, priors: Priors) -> Tensor:
        """``(N, A, 4, R+1)`` bin logits to ``(N, A, 4)`` xyxy px."""
        return distances_to_boxes(priors.centers, expectation(box) * priors.strides[:, None])

    def decode_rows(self, box: Tensor, priors: Priors, rows: Tensor) -> Tensor:
        """``(K, 4, R+1)`` bin logits of the priors `rows` ``(K,)`` to ``(K, 4)`` xyxy px."""
        return distances_to_boxes(priors.centers[rows], expectation(box) * priors.strides[rows][:, None])
