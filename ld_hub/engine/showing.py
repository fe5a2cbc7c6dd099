"""What trackers get: settings, and pictures of what the model finds on the same few images at every evaluation."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ld_hub.data import DetectionSet
from ld_hub.drawing import draw_detections
from ld_hub.evaluation import DetectionEvaluator

SHOWN = 8  # images
SIDE = 640  # px, of the square that a picture fits in
LEAST = 0.3  # score of a box that is drawn
TITLE = "detections"


def plain(values: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Values that every tracker takes as hyperparameters."""
    return {key: value if isinstance(value, (bool, int, float, str)) else str(value) for key, value in values.items()}


def log_pictures(trackers: Sequence[Any], dataset: DetectionSet, evaluator: DetectionEvaluator, step: int) -> None:
    """Send pictures of the detections on the first images of a data set to the trackers that take pictures.

    Args:
        trackers: `accelerate.tracking.GeneralTracker` objects; those without ``log_images`` are passed over, but for
            trackio's.
        dataset: What was evaluated on.
        evaluator: With the detections on it.
        step: Optimizer step.
    """
    taking = [each for each in trackers if hasattr(each, "log_images") or each.name == "trackio"]
    if not taking:
        return
    pictures = draw_first(dataset, evaluator)
    for tracker in taking:
        if tracker.name == "trackio":  # accelerate hands it numbers only
            trackio = importlib.import_module("trackio")
            named = {f"{TITLE}/{k}": trackio.Image(picture) for k, picture in enumerate(pictures)}  # it drops lists
            tracker.log(named, step=step)
        elif tracker.name == "tensorboard":
            tracker.log_images({TITLE: np.stack(pictures)}, step=step, dataformats="NHWC")
        else:
            tracker.log_images({TITLE: pictures}, step=step)


def draw_first(dataset: DetectionSet, evaluator: DetectionEvaluator) -> list[npt.NDArray[np.uint8]]:
    """The first images with the boxes found on them, ``(SIDE, SIDE, 3)`` each, grey where the image ends.

    Args:
        dataset: What was evaluated on.
        evaluator: With the detections on it.
    """
    records, found = dataset.records, evaluator.found()
    labels = {category: label for label, category in enumerate(dataset.category_ids)}
    pictures = []
    for index in range(min(SHOWN, len(dataset))):
        here = (found.image_ids == records.image_ids[index]) & (found.scores > LEAST)
        corners = found.boxes[here] + np.pad(found.boxes[here][:, :2], ((0, 0), (2, 0)))
        image = records.load(index).convert("RGB")
        scale = SIDE / max(image.size)
        resized = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        names = [labels[category] for category in found.category_ids[here].tolist()]
        drawn = draw_detections(
            resized, (corners * scale).tolist(), names, found.scores[here].tolist(),
            label_names=dataset.label_names, scale=1,
        )  # fmt: skip
        square = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
        square.paste(drawn)
        pictures.append(np.asarray(square))
    return pictures
