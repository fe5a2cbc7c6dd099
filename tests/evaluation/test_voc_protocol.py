"""VOC's average precision against a plain loop after the development kit's definition, and by hand."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from ld_hub.evaluation import DetectionEvaluator, read_ground_truth
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.voc_protocol import voc_average_precision
from ld_hub.structures import Detections

IDS = (5, 2, 9)
THRESHOLDS = [Fraction(k, 20) for k in range(10, 20)]


def draw(seed):
    """Whole-numbered boxes: ties of score and IoU, difficult boxes, empty images, a class that is nowhere."""
    random = np.random.default_rng(seed)
    images = sorted(random.choice(50, random.integers(1, 6), replace=False).tolist())
    annotations, rows = [], []
    for image in images:
        truth = random.integers([0, 0, 4, 4], [40, 40, 60, 60], (random.integers(0, 6), 4))
        for box in truth.tolist():
            flags = {"difficult": int(random.random() < 0.25), "iscrowd": int(random.random() < 0.05)}
            place = {"image_id": image, "category_id": int(random.choice(IDS[:2]))}
            annotations.append({"id": len(annotations) + 1, "bbox": box, **place, **flags})
        guesses = random.integers([0, 0, 4, 4], [40, 40, 60, 60], (random.integers(0, 5), 4))
        if len(truth):
            near = truth[random.integers(0, len(truth), 3 * len(truth))]
            guesses = np.concatenate([near + random.choice([-4, -1, 0, 0, 0, 2], near.shape), guesses])
            guesses[:, 2:] = guesses[:, 2:].clip(min=0)
        for box in guesses.tolist():
            score = float(random.choice([0.1, 0.5, 0.5, 0.7, 0.9]) if seed % 2 else random.random())
            rows.append({"image_id": image, "category_id": int(random.choice(IDS)), "bbox": box, "score": score})
    content = {
        "images": [{"id": number, "width": 120, "height": 120} for number in images],
        "categories": [{"id": number, "name": f"c{number}"} for number in IDS],
        "annotations": annotations,
    }
    return content, rows


def iou(one, other):
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if wide <= 0 or high <= 0:
        return Fraction(0)
    return Fraction(wide * high, one[2] * one[3] + other[2] * other[3] - wide * high)


def plain(content, rows, category, threshold, eleven):
    """One class at one threshold, one detection after the other; None without boxes."""
    boxes = [a for a in content["annotations"] if a["category_id"] == category]
    hard = {a["id"] for a in boxes if a["difficult"] or a["iscrowd"]}
    positives = len(boxes) - len(hard)
    if not positives:
        return None
    order = sorted((r for r in rows if r["category_id"] == category), key=lambda r: -r["score"])
    seen, right, wrong, curve = set(), 0, 0, []
    for row in order:
        best, most = None, Fraction(0)
        for box in boxes:
            overlap = iou(row["bbox"], box["bbox"]) if box["image_id"] == row["image_id"] else Fraction(0)
            if overlap > most:
                best, most = box["id"], overlap
        if best is not None and most >= threshold:
            if best in hard:
                continue
            right += best not in seen
            wrong += best in seen
            seen.add(best)
        else:
            wrong += 1
        curve.append((Fraction(right, positives), Fraction(right, right + wrong)))
    if eleven:
        levels = [Fraction(k, 10) for k in range(11)]
        return sum(max((p for r, p in curve if r >= level), default=Fraction(0)) for level in levels) / 11
    area, last = Fraction(0), Fraction(0)
    for recall, _ in curve:
        if recall > last:
            area += (recall - last) * max(p for r, p in curve if r >= recall)
            last = recall
    return area


@pytest.mark.parametrize("protocol", ["voc07", "voc12"])
def test_numbers_are_those_of_a_plain_loop(protocol):
    middle = 0
    for seed in range(300):
        content, rows = draw(seed)
        found = voc_average_precision(read_ground_truth(content), Found.of(rows), IDS, protocol)
        for label, category in enumerate(IDS):
            for k, threshold in enumerate(THRESHOLDS):
                expected = plain(content, rows, category, threshold, protocol == "voc07")
                expected = -1.0 if expected is None else float(expected)
                assert found[k, label] == pytest.approx(expected, abs=1e-12), (seed, category, threshold)
                middle += 0 < expected < 1
    assert middle > 2500  # not only zeros and ones


def score(truth, guesses, protocol):
    """One class, images 1 and 2; truth (image, xywh, difficult), guesses (image, xywh, score)."""
    content = {
        "images": [{"id": 1, "width": 500, "height": 500}, {"id": 2, "width": 500, "height": 500}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"image_id": i, "category_id": 1, "bbox": b, "ignore": d} for i, b, d in truth],
    }
    evaluator = DetectionEvaluator(content, category_ids=[1, 2], label_names=["a", "b"], protocol=protocol)
    for image in (1, 2):
        mine = [(b, s) for i, b, s in guesses if i == image]
        boxes = torch.tensor([[x, y, x + w, y + h] for (x, y, w, h), _ in mine], dtype=torch.float32).reshape(-1, 4)
        scores = torch.tensor([s for _, s in mine], dtype=torch.float32)
        evaluator.update([image], [Detections(boxes, scores, torch.zeros(len(mine)).long(), ("a", "b"))])
    return evaluator.compute()


A, B, C = [0, 0, 100, 100], [200, 200, 100, 100], [300, 0, 100, 100]


@pytest.mark.parametrize(
    "truth, guesses, eleven, area",
    [
        # right, wrong, right of two: precision 1 to recall 1/2, then 2/3
        ([(1, A, 0), (2, A, 0)], [(1, A, 0.9), (2, B, 0.8), (2, A, 0.7)], (6 + 5 * 2 / 3) / 11, 1 / 2 + 1 / 3),
        # half of the boxes: 0, 0.1, ..., 0.5 are six of the eleven recalls
        ([(1, A, 0), (2, A, 0)], [(1, A, 0.9)], 6 / 11, 1 / 2),
        # a difficult box: what finds it is not counted, nor is it missed
        ([(1, A, 0), (1, B, 1)], [(1, B, 0.9), (1, B, 0.8), (1, A, 0.7)], 1.0, 1.0),
        ([(1, A, 0), (1, B, 1)], [(1, A, 0.9)], 1.0, 1.0),
        # the second detection of a box is wrong, in whatever order they come in the file
        ([(1, A, 0), (1, B, 0)], [(1, A, 0.8), (1, A, 0.9), (1, B, 0.7)], (6 + 5 * 2 / 3) / 11, 1 / 2 + 1 / 3),
        # a detection on the wrong image
        ([(1, A, 0)], [(2, A, 0.9), (1, A, 0.8)], 1 / 2, 1 / 2),
        # more boxes than found: 1 of 3 reaches the recalls 0 to 0.3
        ([(1, A, 0), (1, B, 0), (1, C, 0)], [(1, A, 0.9)], 4 / 11, 1 / 3),
        ([(1, A, 0)], [], 0.0, 0.0),
    ],
)
def test_by_hand(truth, guesses, eleven, area):
    for protocol, expected in (("voc07", eleven), ("voc12", area)):
        metrics = score(truth, guesses, protocol)
        assert metrics.protocol == protocol
        assert list(metrics.stats.values()) == pytest.approx([expected] * 11)
        assert metrics.per_class == {"a": pytest.approx(expected), "b": None}
        assert metrics.boxes == {"a": sum(not hard for *_, hard in truth), "b": 0}


def test_the_greatest_overlap_decides_even_if_that_box_is_taken():
    """COCO would give the second detection the box that is free; VOC does not."""
    truth = [(1, [0, 0, 100, 100], 0), (1, [0, 0, 100, 80], 0)]
    guesses = [(1, [0, 0, 100, 100], 0.9), (1, [0, 0, 100, 95], 0.8)]
    assert score(truth, guesses, "voc12")["AP50"] == pytest.approx(1 / 2)
    assert score(truth, guesses, "coco")["AP50"] == pytest.approx(1.0)


def test_each_threshold_includes_its_iou():
    for k, percent in enumerate(range(50, 100, 5)):
        metrics = score([(1, A, 0)], [(1, [0, 0, 100, percent], 0.9)], "voc07")
        found = [metrics[f"AP{each}"] for each in range(50, 100, 5)]
        assert found == [1.0] * (k + 1) + [0.0] * (9 - k), percent
        assert metrics["AP"] == pytest.approx((k + 1) / 10)


def test_three_of_ten_are_a_recall_of_three_tenths():
    """In floats 0.1 + 0.1 + 0.1 is more than 0.3."""
    truth = [(1, [40 * k, 0, 20, 20], 0) for k in range(10)]
    guesses = [(1, [40 * k, 0, 20, 20], 0.9) for k in range(3)]
    assert score(truth, guesses, "voc07")["AP"] == pytest.approx(4 / 11)


@pytest.mark.parametrize("protocol", ["coco", "voc07", "voc12"])
def test_crowds_of_a_class_that_the_model_lacks_excuse_nothing(protocol):
    content = {
        "images": [{"id": 1, "width": 500, "height": 500}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": A}],
    }
    found = Detections(torch.tensor([[200.0, 200, 300, 300], [0, 0, 100, 100]]), torch.tensor([0.9, 0.8]),
                       torch.zeros(2).long(), ("a",))  # fmt: skip
    for crowds in ([], [{"image_id": 1, "category_id": 2, "bbox": B, "iscrowd": 1}]):
        more = {**content, "annotations": content["annotations"] + crowds}
        evaluator = DetectionEvaluator(more, category_ids=[1], label_names=["a"], protocol=protocol)
        evaluator.update([1], [found])
        assert evaluator.compute()["AP"] == pytest.approx(1 / 2)


def test_nothing_to_find_and_nothing_found():
    assert set(score([(1, A, 1)], [(1, A, 0.9)], "voc07").stats.values()) == {None}  # difficult boxes only
    assert set(score([(1, A, 0)], [], "voc12").stats.values()) == {0.0}
    table = score([(1, A, 0)], [], "voc12").table()
    assert [line.split() for line in table.splitlines()[-2:]] == [["a", "0.0", "1"], ["b", "–", "0"]]
