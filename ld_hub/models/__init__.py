"""Detectors by name: one file per family, and what all of them share."""
