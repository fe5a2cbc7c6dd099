"""Which row answers for which ground truth."""

from ld_hub.assigners.atss_assigner import ATSSAssigner, atss_threshold
from ld_hub.assigners.fcos_assigner import FCOSAssigner
from ld_hub.assigners.max_iou_assigner import MaxIoUAssigner

__all__ = ["ATSSAssigner", "FCOSAssigner", "MaxIoUAssigner", "atss_threshold"]
