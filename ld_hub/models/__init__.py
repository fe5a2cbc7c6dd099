"""Detectors by name; importing the package registers every family."""

from ld_hub.models import atss, fcos, gfocal, retinanet

__all__ = ["atss", "fcos", "gfocal", "retinanet"]
