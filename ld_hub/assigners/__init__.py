"""Which row answers for which ground truth."""

from ld_hub.assigners.atss import ATSSAssigner, atss_threshold
from ld_hub.assigners.fcos import FCOSAssigner
from ld_hub.assigners.max_iou import MaxIoUAssigner

__all__ = ["ATSSAssigner", "FCOSAssigner", "MaxIoUAssigner", "atss_threshold"]
