"""Random detection problems with everything that makes scorers differ."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from ld_hub.evaluation import DetectionEvaluator
from ld_hub.structures import Detections

NAMES = ("cat", "dog", "bird")
IDS = (5, 2, 9)  # neither sorted nor consecutive


def problem(seed: int, images: int = 6, *, annotations: bool = True):
    """Annotations and detections: ties in score and IoU, crowds, empty images, sizes on the area edges."""
    random = np.random.default_rng(seed)
    sides = np.array([4.0, 16.0, 32.0, 33.0, 96.0, 97.0, 150.0])  # 32 and 96 are COCO's area edges

    def boxes(count):
        size = random.choice(sides, (count, 2))
        return np.concatenate([random.integers(0, 60, (count, 2)).astype(float), size], axis=1)

    ids = random.permutation(np.arange(100, 100 + 7 * images, 7)).tolist()
    rows = []
    found = {}
    for image_id in ids:
        truth = boxes(random.integers(0, 5))
        for box in truth if annotations else ():
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": int(random.choice(IDS[:2])),  # bird has no ground truth
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(random.random() < 0.15),
                }
            )
        near = truth[random.integers(0, len(truth), len(truth) * 3)] if len(truth) else boxes(0)
        near = near + random.choice([-3.0, -1.0, 0.0, 0.0, 2.0], near.shape) * [1, 1, 0.5, 0.5]
        guesses = np.concatenate([near, boxes(random.integers(0, 6))])
        corners = np.concatenate([guesses[:, :2], guesses[:, :2] + guesses[:, 2:].clip(min=0)], axis=1)
        found[image_id] = Detections(
            torch.tensor(corners, dtype=torch.float32),
            torch.tensor(random.choice([0.1, 0.5, 0.5, 0.7, 0.9], len(corners)), dtype=torch.float32),
            torch.tensor(random.integers(0, 3, len(corners))),
            NAMES,
            IDS,
        )
    for number, row in enumerate(rows, start=1):
        row["id"] = number
    content = {
        "images": [{"id": i, "width": 300, "height": 300, "file_name": f"{i}.jpg"} for i in ids],
        "categories": [{"id": i, "name": name} for i, name in zip(IDS, NAMES, strict=True)],
        "annotations": rows,
    }
    return content, found


@pytest.fixture(scope="session")
def make_problem():
    return problem


@pytest.fixture(scope="session")
def evaluator_of():
    def build(content, found=None, **options):
        evaluator = DetectionEvaluator(copy.deepcopy(content), category_ids=IDS, label_names=NAMES, **options)
        if found:
            evaluator.update(list(found), list(found.values()))
        return evaluator

    return build
