"""Overlaps of ground truths and anchors, as every assigner by IoU takes them."""

from __future__ import annotations

from torch import Tensor

from ld_hub.ops.boxes import pairwise_iou
from ld_hub.structures import Priors, Targets


def usable_overlaps(priors: Priors, targets: Targets, valid: Tensor) -> Tensor:
    """IoU of each ground truth with each anchor, 0 for crowds, padding and anchors off the image.

    Args:
        priors: Grid with anchors.
        targets: Ground truths.
        valid: ``(N, A)`` bool, anchors on the images.

    Returns:
        ``(N, G, A)``, the one matrix of this size that a step keeps.
    """
    if priors.anchors is None:
        raise AssertionError("overlaps are taken with anchors, and these priors have none")
    overlaps = pairwise_iou(targets.boxes.to(priors.centers.dtype), priors.anchors)
    overlaps *= targets.usable[:, :, None].to(overlaps.dtype)
    overlaps *= valid[:, None].to(overlaps.dtype)
    return overlaps
