"""The score of best F1 against all cut-offs tried one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ld_hub.evaluation.best_f1 import best_f1_scores
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.ground_truth import GroundTruth
from ld_hub.evaluation.matching import overlaps


def problem(seed: int, classes: int = 3) -> tuple[GroundTruth, list[dict[str, Any]]]:
    """Boxes on three images, detections near most of them and some anywhere; scores repeat."""
    random = np.random.default_rng(seed)
    truth, found = [], []
    for image in (1, 2, 3):
        for _ in range(int(random.integers(0, 6))):
            box, label = [*random.uniform(0, 60, 2), *random.uniform(10, 30, 2)], int(random.integers(classes)) + 1
            row = {"image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "ignore": 0}
            truth.append({**row, "id": len(truth) + 1, "iscrowd": int(random.random() < 0.1)})
            if random.random() < 0.8:
                near = [value + random.normal(0, 2) for value in box]
                found.append({**row, "bbox": near, "score": round(float(random.uniform(0.2, 1)), 1)})
        for _ in range(int(random.integers(0, 4))):
            box = [*random.uniform(0, 60, 2), *random.uniform(10, 30, 2)]
            found.append({"image_id": image, "category_id": int(random.integers(classes)) + 1, "bbox": box,
                          "score": round(float(random.uniform(0, 0.7)), 1)})  # fmt: skip
    images = [{"id": image, "width": 100, "height": 100} for image in (1, 2, 3)]
    categories = [{"id": label + 1, "name": str(label)} for label in range(classes)]
    return GroundTruth("here", images, categories, truth), found


def iou(a: list[float], b: list[float], crowd: int) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inter = max(width, 0) * max(height, 0)
    return inter / (a[2] * a[3] if crowd else a[2] * a[3] + b[2] * b[3] - inter)


def f1_of(truth: GroundTruth, rows: list[dict[str, Any]], cut: float, label: int | None) -> float:
    """F1 of the detections of at least a score, matched in a loop."""
    wanted = [box for box in truth.annotations if label in (None, box["category_id"])]
    kept = [row for row in rows if row["score"] >= cut and label in (None, row["category_id"])]
    taken, right, wrong = set(), 0, 0
    for row in sorted(kept, key=lambda each: -each["score"]):
        same = [b for b in wanted if b["image_id"] == row["image_id"] and b["category_id"] == row["category_id"]]
        near = [(iou(row["bbox"], b["bbox"], b["iscrowd"]), b) for b in same]
        free = [(v, b["id"]) for v, b in near if v >= 0.5 and not b["iscrowd"] and b["id"] not in taken]
        if free:
            taken.add(max(free)[1])
            right += 1
        elif not any(v >= 0.5 and b["iscrowd"] for v, b in near):
            wrong += 1
    return 2 * right / max(right + wrong + sum(not b["iscrowd"] for b in wanted), 1e-9)


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_no_other_cut_off_is_better(seed, per_class):
    truth, rows = problem(seed)
    scores, reached = best_f1_scores(overlaps(truth, Found.of(rows), (1, 2, 3)), per_class=per_class)
    assert scores.shape == reached.shape == (3,)
    for label in (1, 2, 3) if per_class else (None,):
        index = 0 if label is None else label - 1
        tried = {cut: f1_of(truth, rows, cut, label) for cut in {row["score"] for row in rows}}
        best = max(tried.values(), default=0.0)
        assert reached[index] == pytest.approx(best)
        if best > 0:
            assert tried[scores[index]] == pytest.approx(best)
        else:
            assert (scores[index], reached[index]) == (1.0, 0.0)
    if not per_class:
        assert len(set(scores.tolist())) == 1


def test_nothing_found():
    truth, _ = problem(0)
    scores, reached = best_f1_scores(overlaps(truth, Found.of([]), (1, 2, 3)), per_class=True)
    assert scores.tolist() == [1.0] * 3 and reached.tolist() == [0.0] * 3
