"""An evaluation artefact, to be changed."""

from __future__ import annotations

from typing import Any

from ld_hub.hub.evidence import FORMAT, STAT_NAMES

GOOD: dict[str, Any] = {
    "format": FORMAT,
    "format_version": 1,
    "date": "2024-01-01",
    "command": "ld-hub eval m",
    "model": {"name": "m", "architecture": "a", "family": "gfocal", "config": {}, "recipe": None},
    "weights": {"file": "model.safetensors", "sha256": "0" * 64, "tensors": "1"},
    "data": {"name": "d", "split": "val", "annotations": "a.json", "sha256": "0" * 64},
    "detections_file": {"file": "detections.json", "sha256": "0" * 64},
    "protocol": "coco",
    "stats": {name: None for name in STAT_NAMES},
    "per_class": {"cat": 0.5, "dog": None},
    "boxes": {"cat": 3, "dog": 0},
    "images": 3,
    "detections": 7,
    "not_counted": 2,
    "backend": "pycocotools",
    "device": "cpu",
    "precision": "float32",
    "batch_size": 8,
    "versions": {},
}
