"""IoU-family regression losses."""

from __future__ import annotations

from torch import Tensor

from ld_hub.ops.boxes import EPS, Overlap, overlap


def box_loss(pred: Tensor, target: Tensor, kind: Overlap = "giou", *, eps: float = EPS, reference: str = "") -> Tensor:
    """``1 - overlap`` of each box with its target.

    Args:
        pred: ``(K, 4)`` xyxy; the published `eps` supposes stride units.
        target: ``(K, 4)`` xyxy, same unit.
        kind: ``"iou"``, ``"giou"``, ``"diou"`` or ``"ciou"``.
        eps: Guard of the divisions.
        reference: See `ld_hub.ops.boxes.overlap`.

    Returns:
        ``(K,)``, 0 for equal boxes.
    """
    return 1 - overlap(pred, target, kind, eps=eps, reference=reference)
