"""Detectors by name; importing the package registers every family."""

from ld_hub.models import gfocal

__all__ = ["gfocal"]
