"""Detection losses, one value per row; how rows are weighted and normalised is the criterion's business."""

from ld_hub.losses.box_loss import box_loss, boxes_in_strides
from ld_hub.losses.centered import CenternessCriterion
from ld_hub.losses.centerness import centerness_loss
from ld_hub.losses.distribution_focal import distribution_focal_loss
from ld_hub.losses.focal import focal_loss, focal_loss_sum
from ld_hub.losses.quality_focal import quality_focal_loss, quality_focal_loss_sum
from ld_hub.losses.weighted_classes import WeightedClasses

__all__ = [
    "CenternessCriterion",
    "WeightedClasses",
    "box_loss",
    "boxes_in_strides",
    "centerness_loss",
    "distribution_focal_loss",
    "focal_loss",
    "focal_loss_sum",
    "quality_focal_loss",
    "quality_focal_loss_sum",
]
