"""Datasets: readers that make a `DetectionSet`, loaders that make batches of it, the doctor.

Names are imported from their files at first use: loaders bring torch, and who asks where data lies wants none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_hub.lazy import lazy_names

if TYPE_CHECKING:
    from ld_hub.data.checkup import Report, doctor
    from ld_hub.data.coco import load_coco
    from ld_hub.data.detection_set import DetectionSet
    from ld_hub.data.layouts import load_data
    from ld_hub.data.loader import eval_loader, train_loader
    from ld_hub.data.sampler import TrainBatches
    from ld_hub.data.stream_set import StreamSet, load_stream
    from ld_hub.data.voc import load_voc
    from ld_hub.data.yolo import load_yolo

_FILE_OF = {
    "DetectionSet": "detection_set",
    "Report": "checkup",
    "StreamSet": "stream_set",
    "TrainBatches": "sampler",
    "doctor": "checkup",
    "eval_loader": "loader",
    "load_coco": "coco",
    "load_data": "layouts",
    "load_stream": "stream_set",
    "load_voc": "voc",
    "load_yolo": "yolo",
    "train_loader": "loader",
}

__all__ = [
    "DetectionSet",
    "Report",
    "StreamSet",
    "TrainBatches",
    "doctor",
    "eval_loader",
    "load_coco",
    "load_data",
    "load_stream",
    "load_voc",
    "load_yolo",
    "train_loader",
]

__getattr__ = lazy_names(__name__, _FILE_OF)
