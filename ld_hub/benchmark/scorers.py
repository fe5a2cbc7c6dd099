"""Time and memory of the scorers, on random detections."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ld_hub.benchmark.memory import MemoryWatch
from ld_hub.errors import ConfigError
from ld_hub.evaluation import DetectionEvaluator

BOXES = 7  # mean number of boxes per image, as in COCO
SIDE = 640  # px


@dataclass(frozen=True)
class ScoringLoad:
    """What is to be scored.

    Attributes:
        images: Number of images.
        num_classes: C.
        detections: Per image.
        seed: Of everything.
    """

    images: int = 5000
    num_classes: int = 80
    detections: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "num_classes", "detections"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least 1.")


@dataclass(frozen=True)
class Scoring:
    """What scoring cost.

    Attributes:
        backend: The scorer.
        images: Number of images.
        seconds: From collected detections to metrics.
        growth: Bytes that memory rose meanwhile; None where the system cannot tell.
        ap: The AP, to see that scorers agree.
    """

    backend: str
    images: int
    seconds: float
    growth: int | None
    ap: float


def random_evaluator(load: ScoringLoad, backend: str) -> DetectionEvaluator:
    """An evaluator that holds random detections: some close to a box, some of another class, some on nothing."""
    random = np.random.default_rng(load.seed)
    number = random.poisson(BOXES, load.images)
    owner = np.repeat(np.arange(load.images), number)
    boxes = _boxes(random, len(owner))
    labels = random.integers(0, load.num_classes, len(owner))
    rows = zip(owner.tolist(), labels.tolist(), boxes.tolist(), strict=True)
    content = {
        "images": [{"id": k + 1, "width": SIDE, "height": SIDE} for k in range(load.images)],
        "categories": [{"id": k + 1, "name": f"class {k + 1}"} for k in range(load.num_classes)],
        "annotations": [
            {"id": k, "image_id": image + 1, "category_id": label + 1, "bbox": box, "iscrowd": int(k % 50 == 0)}
            for k, (image, label, box) in enumerate(rows, start=1)
        ],
    }
    categories = range(1, load.num_classes + 1)
    names = [f"class {k}" for k in categories]
    evaluator = DetectionEvaluator(content, category_ids=tuple(categories), label_names=names, backend=backend)
    evaluator.merge([_detections(random, load, number, boxes, labels)])
    return evaluator


def _detections(
    random: np.random.Generator, load: ScoringLoad, number: Any, boxes: Any, labels: Any
) -> dict[str, npt.NDArray[Any]]:
    """The state of an evaluator, see `DetectionEvaluator.state`."""
    image = np.repeat(np.arange(load.images), load.detections)
    total = len(image)
    found, label = _boxes(random, total), random.integers(0, load.num_classes, total)
    near = np.flatnonzero((random.random(total) < 0.6) & (number[image] > 0))
    first = np.cumsum(number) - number
    box = first[image[near]] + random.integers(0, number[image[near]])
    shift = random.normal(0, 0.1, (len(near), 4)) * np.tile(boxes[box, 2:], 2)
    found[near] = boxes[box] + shift
    found[:, 2:] = found[:, 2:].clip(min=1)
    found[:, :2] = found[:, :2].clip(0, SIDE - found[:, 2:])
    label[near] = np.where(random.random(len(near)) < 0.8, labels[box], label[near])
    return {
        "image_ids": np.arange(1, load.images + 1),
        "counts": np.full(load.images, load.detections),
        "boxes": found,
        "scores": random.beta(1, 4, total),
        "labels": label,
    }


def _boxes(random: np.random.Generator, number: int) -> Any:
    """``(number, 4)`` x, y, width, height in px, inside the image."""
    size = np.exp(random.uniform(np.log(8), np.log(400), (number, 2)))
    return np.concatenate([random.uniform(0, 1, (number, 2)) * (SIDE - size), size], axis=1)


def time_scoring(load: ScoringLoad, backend: str) -> Scoring:
    """Time one scorer, in this process."""
    evaluator = random_evaluator(load, backend)
    watch = MemoryWatch(torch.device("cpu"))
    watch.start()
    start = time.perf_counter()
    metrics = evaluator.compute()
    seconds = time.perf_counter() - start
    return Scoring(backend, load.images, seconds, watch.stop().growth, metrics["AP"] or 0.0)


def sizes(images: int) -> list[int]:
    """A quarter, a half and all of a number of images."""
    return sorted({max(1, images // part) for part in (4, 2, 1)})


def time_scorers(load: ScoringLoad, backends: list[str]) -> Iterator[Scoring]:
    """Time scorers on a quarter, a half and all of the images, so that growth can be seen.

    Every run has a process of its own: memory that another run gave back would not count as growth.

    Args:
        load: What to score.
        backends: Which scorers.

    Yields:
        One result per size and scorer, smallest size first.
    """
    context = multiprocessing.get_context("spawn")
    for images in sizes(load.images):
        part = ScoringLoad(images, load.num_classes, load.detections, load.seed)
        for backend in backends:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                yield pool.submit(time_scoring, part, backend).result()
