"""Which row answers for which ground truth."""

from ld_hub.assigners.atss import ATSSAssigner, atss_threshold

__all__ = ["ATSSAssigner", "atss_threshold"]
