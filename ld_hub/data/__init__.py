"""Datasets: readers that make a `DetectionSet`, loaders that make batches of it, the demo dataset, the doctor."""

from ld_hub.data.coco import load_coco
from ld_hub.data.dataset import DetectionSet
from ld_hub.data.demo import make_demo_dataset
from ld_hub.data.doctor import Report, doctor
from ld_hub.data.loader import eval_loader, train_loader
from ld_hub.data.sampler import TrainBatches

__all__ = [
    "DetectionSet",
    "Report",
    "TrainBatches",
    "doctor",
    "eval_loader",
    "load_coco",
    "make_demo_dataset",
    "train_loader",
]
