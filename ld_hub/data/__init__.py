"""Datasets: readers that make a `DetectionSet`, loaders that make batches of it, the doctor."""

from ld_hub.data.coco import load_coco
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.doctor import Report, doctor
from ld_hub.data.layouts import load_data
from ld_hub.data.loader import eval_loader, train_loader
from ld_hub.data.sampler import TrainBatches
from ld_hub.data.voc import load_voc
from ld_hub.data.yolo import load_yolo

__all__ = [
    "DetectionSet",
    "Report",
    "TrainBatches",
    "doctor",
    "eval_loader",
    "load_coco",
    "load_data",
    "load_voc",
    "load_yolo",
    "train_loader",
]
