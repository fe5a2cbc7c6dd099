"""IoU-family regression losses."""

from __future__ import annotations

from torch import Tensor

from ld_hub.ops.boxes import EPS, Overlap, overlap
from ld_hub.structures import Assignment, DenseOutput


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


def boxes_in_strides(output: DenseOutput, assignment: Assignment) -> tuple[Tensor, Tensor]:
    """Predicted and true boxes of the positive rows.

    Returns:
        Twice ``(K, 4)`` xyxy in units of each row's stride; the first with gradient.
    """
    rows = assignment.rows
    stride = output.priors.strides[rows.priors][:, None]
    pred = output.coder.decode_rows(rows.gather(output.box), output.priors, rows.priors)
    return pred / stride, rows.gather(assignment.boxes) / stride
