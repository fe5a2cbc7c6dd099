"""Curves, confusions, calibration and images against pycocotools, plain loops and cases told by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ld_hub.errors import ConfigError, EvaluationError
from ld_hub.evaluation import matching, read_ground_truth
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.matching import overlaps
from ld_hub.evaluation.studies import calibration, confusion, per_image, precision_recall

IDS, NAMES = (5, 2, 9), ("cat", "dog", "bird")


def met(truth, rows, **options):
    return overlaps(truth, Found.of(rows), IDS, **options)


@pytest.fixture
def make(make_problem, evaluator_of):
    """Ground truth and results rows of a random problem."""

    def build(seed, **options):
        evaluator = evaluator_of(*make_problem(seed, **options))
        return evaluator.truth, evaluator.results()

    return build


def coco_ap(truth, rows, ious):
    """pycocotools' AP of each class at each IoU, and its precision curves; -1 without boxes."""
    content = {
        "images": truth.images,
        "categories": truth.categories,
        "annotations": [dict(row) for row in truth.annotations],
    }
    gt = COCO()
    gt.dataset = content
    gt.createIndex()
    run = COCOeval(gt, gt.loadRes([dict(row) for row in rows]), "bbox")
    run.params.iouThrs = np.array(ious)
    run.evaluate()
    run.accumulate()
    return run.eval["precision"][:, :, :, 0, 2]  # (ious, 101, classes by rising id)


def assert_same_as_coco(truth, rows, ious=(0.5, 0.75, 0.9)):
    mine, theirs = precision_recall(met(truth, rows), NAMES, ious=ious), coco_ap(truth, rows, ious)
    order = sorted(IDS)
    for name, number in zip(NAMES, IDS, strict=True):
        curves = theirs[:, :, order.index(number)]
        for k, iou in enumerate(ious):
            ap = mine.per_class[name][iou]
            assert (ap is None) == (curves[k] == -1).all()
            assert ap is None or ap == pytest.approx(curves[k].mean(), abs=1e-12)
    seen = (theirs[0] > -1).all(axis=0)
    for k, iou in enumerate(ious):
        assert np.allclose(mine.precision[iou], theirs[k][:, seen].mean(axis=1), atol=1e-12, rtol=0)
    return mine


@pytest.mark.parametrize("seed", range(25))
def test_average_precision_is_pycocotools(seed, make):
    """With ties in score and overlap, crowds, empty images and a class without boxes."""
    mine = assert_same_as_coco(*make(seed, images=8))
    assert mine.per_class["bird"] == {0.5: None, 0.75: None, 0.9: None}


def test_only_a_hundred_detections_of_a_class_and_image_count():
    random = np.random.default_rng(0)
    boxes = [[float(10 * k), 0.0, 9.0, 30.0] for k in range(20)]
    content = {
        "images": [{"id": 1, "width": 300, "height": 300}],
        "categories": [{"id": k, "name": name} for k, name in zip(IDS, NAMES, strict=True)],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 5, "bbox": box, "area": 270.0} for k, box in enumerate(boxes)
        ],
    }
    rows = [
        {"image_id": 1, "category_id": 5, "bbox": boxes[random.integers(20)] if k % 7 else [200.0, 200.0, 9.0, 9.0],
         "score": float(random.random())}
        for k in range(230)
    ]  # fmt: skip
    rows += [{"image_id": 1, "category_id": 2, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.9} for _ in range(90)]
    mine = assert_same_as_coco(read_ground_truth(content), rows)
    best = sorted((row for row in rows if row["category_id"] == 5), key=lambda row: -row["score"])[:100]
    cut = precision_recall(met(read_ground_truth(content), best), NAMES)
    assert cut.per_class == mine.per_class


def test_boxes_of_equal_overlap_are_taken_as_pycocotools_does():
    """The last one, which leaves the first to a worse detection."""
    truth = truth_of(box(10.0), box(30.0))
    rows = [box(20.0, score=0.9), box(6.0, score=0.8)]
    assert assert_same_as_coco(truth, rows, (0.5, 0.6)).per_class["cat"][0.6] == pytest.approx(1.0)
    rows[1]["bbox"][0] = 34.0
    assert assert_same_as_coco(truth, rows, (0.5, 0.6)).per_class["cat"][0.6] == pytest.approx(51 / 101)


def test_equal_boxes_overlap_wholly():
    """x + width - x is not always width."""
    random = np.random.default_rng(0)
    truth = truth_of(*({**box(0.0), "bbox": sides} for sides in (random.random((40, 4)) * 50).tolist()))
    rows = [{**row, "score": 0.5 + 0.01 * k} for k, row in enumerate(truth.annotations)]
    assert assert_same_as_coco(truth, rows, (0.95, 1.0)).per_class["cat"][1.0] == pytest.approx(1.0)


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_parts_of_the_pairs_make_the_whole(chunk, make, monkeypatch):
    truth, rows = make(3, images=8)
    whole = overlaps(truth, Found.of(rows), IDS)
    monkeypatch.setattr(matching, "_CHUNK", chunk)
    parts = overlaps(truth, Found.of(rows), IDS)
    assert len(whole.pairs.iou) > 80
    for name in ("det", "box", "iou"):
        assert np.array_equal(getattr(whole.pairs, name), getattr(parts.pairs, name))


def loop_iou(det, box, crowd=False):
    width = min(det[0] + det[2], box[0] + box[2]) - max(det[0], box[0])
    height = min(det[1] + det[3], box[1] + box[3]) - max(det[1], box[1])
    common = max(width, 0) * max(height, 0)
    union = det[2] * det[3] + (0 if crowd else box[2] * box[3] - common)
    return common / union if common else 0.0


def loop_matches(truth, rows, image, iou, score, any_class):
    """Detections of one image with the index of their annotation, "excused" or None; the plainest way."""
    boxes = [(k, row) for k, row in enumerate(truth.annotations) if row["image_id"] == image]
    chosen = sorted(
        (row for row in rows if row["image_id"] == image and row["score"] > score), key=lambda row: -row["score"]
    )
    result, taken = [None] * len(chosen), set()
    for round_of_any in (False, True) if any_class else (False,):
        for d, row in enumerate(chosen):
            if result[d] is not None:
                continue
            best, at = iou, None
            for k, box in boxes:
                mine = box["category_id"] == row["category_id"] or round_of_any
                overlap = loop_iou(row["bbox"], box["bbox"])
                if mine and not box["iscrowd"] and k not in taken and overlap >= best:
                    best, at = overlap, k
            if at is not None:
                result[d] = at
                taken.add(at)
            elif any(
                box["iscrowd"] and box["category_id"] == row["category_id"]
                and loop_iou(row["bbox"], box["bbox"], True) >= iou
                for _, box in boxes
            ):  # fmt: skip
                result[d] = "excused"
    return chosen, result


@pytest.mark.parametrize("seed, iou, score", [(1, 0.5, 0.3), (2, 0.7, 0.5), (3, 0.5, 0.0), (4, 0.3, 0.6)])
def test_confusion_and_images_are_those_of_a_plain_loop(seed, iou, score, make):
    truth, rows = make(seed, images=12)
    label = {number: k for k, number in enumerate(IDS)}
    counts, images = np.zeros((4, 4), dtype=int), {}
    for image in truth.image_ids:
        wanted = {k: row for k, row in enumerate(truth.annotations) if row["image_id"] == image and not row["iscrowd"]}
        for any_class in (True, False):
            chosen, result = loop_matches(truth, rows, image, iou, score, any_class)
            found = [at for at in result if isinstance(at, int)]
            if not any_class:
                images[image] = (len(found), len(wanted) - len(found), result.count(None))
                continue
            for row, at in zip(chosen, result, strict=True):
                if at != "excused":
                    truly = 3 if at is None else label[wanted[at]["category_id"]]
                    counts[truly, label[row["category_id"]]] += 1
            for k in wanted.keys() - set(found):
                counts[label[wanted[k]["category_id"]], 3] += 1
    mine = confusion(met(truth, rows), NAMES, iou=iou, score=score)
    assert np.array_equal(mine.counts, counts)
    assert counts[:3, :3].trace() > 3 and counts[0, 1] + counts[1, 0] + counts[0, 2] > 0 and counts[3].sum() > 3
    per = per_image(met(truth, rows), iou=iou, score=score)
    assert {image: (r.found, r.missed, r.false) for image, r in per.items()} == images
    assert list(per) == sorted(per)


@pytest.mark.parametrize("seed, bins", [(5, 10), (6, 4)])
def test_calibration_is_that_of_a_plain_loop(seed, bins, make):
    truth, rows = make(seed, images=12)
    rows[0]["score"], rows[1]["score"], rows[2]["score"] = 1.0, 0.0, 0.25
    expected = [[] for _ in range(bins)]
    for row in rows:
        mine = [
            b for b in truth.annotations if (b["image_id"], b["category_id"]) == (row["image_id"], row["category_id"])
        ]
        best = max((loop_iou(row["bbox"], b["bbox"]) for b in mine if not b["iscrowd"]), default=0.0)
        on_crowd = any(loop_iou(row["bbox"], b["bbox"], True) >= 0.5 for b in mine if b["iscrowd"])
        if best >= 0.5 or not on_crowd:
            expected[min(int(row["score"] * bins + 1e-9), bins - 1)].append((row["score"], best, best >= 0.5))
    mine = calibration(met(truth, rows), bins=bins)
    assert mine.count.tolist() == [len(part) for part in expected]
    assert 0 < (mine.count == 0).sum() < bins or bins == 4
    for k, part in enumerate(expected):
        found = (mine.score[k], mine.iou[k], mine.share[k])
        assert found == pytest.approx(np.mean(part, axis=0) if part else [np.nan] * 3, nan_ok=True)
    stored = json.loads(json.dumps(mine.to_dict(), allow_nan=False))
    assert stored["count"] == mine.count.tolist()
    assert [value is None for value in stored["iou"]] == [count == 0 for count in mine.count]


def box(x, category=5, **more):
    return {"image_id": 1, "category_id": category, "bbox": [x, 10.0, 40.0, 40.0], **more}


def truth_of(*boxes, images=2):
    return read_ground_truth(
        {
            "images": [{"id": k + 1, "width": 300, "height": 300} for k in range(images)],
            "categories": [{"id": k, "name": name} for k, name in zip(IDS, NAMES, strict=True)],
            "annotations": [{"id": k, **row} for k, row in enumerate(boxes, start=1)],
        }
    )


def test_by_hand():
    """A cat found, a cat taken for a dog, a dog missed, a bird that is not there, and a cat below the score."""
    truth = truth_of(box(10.0), box(100.0), box(200.0, 2))
    rows = [
        box(10.0, score=0.9), box(102.0, 2, score=0.8), box(240.5, 9, score=0.7), box(11.0, score=0.3),
    ]  # fmt: skip
    assert confusion(met(truth, rows), NAMES).counts.tolist() == [
        [1, 1, 0, 0],
        [0, 0, 0, 1],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
    ]
    results = per_image(met(truth, rows))
    assert results[1].to_dict() == {"found": 1, "missed": 2, "false": 2, "f1": 2 / 6}
    assert results[2].to_dict() == {"found": 0, "missed": 0, "false": 0, "f1": None}
    curves = precision_recall(met(truth, rows), NAMES)
    assert curves.per_class["cat"][0.5] == pytest.approx(51 / 101)
    assert curves.per_class["dog"] == {0.5: 0.0, 0.75: 0.0, 0.9: 0.0}
    assert curves.precision[0.5] == pytest.approx([0.5] * 51 + [0.0] * 50)
    plain = json.loads(json.dumps(curves.to_dict(), allow_nan=False))
    assert plain["per_class"]["bird"] == {"0.5": None, "0.75": None, "0.9": None}
    assert len(plain["precision"]["0.75"]) == len(plain["recall"]) == 101


def test_own_class_comes_first():
    """A better detection of another class does not take the box from the right one."""
    truth = truth_of(box(10.0))
    rows = [box(10.0, 2, score=0.9), box(12.0, score=0.5)]
    assert confusion(met(truth, rows), NAMES).counts.tolist() == [
        [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0],
    ]  # fmt: skip


def test_marked_boxes_are_left_out_on_demand():
    truth, rows = truth_of(box(10.0), box(100.0)), [box(10.0, score=0.9), box(100.0, score=0.95)]
    truth.annotations[1]["ignore"] = 1
    assert per_image(met(truth, rows))[1].found == 2
    left = per_image(met(truth, rows, skip_ignored=True))[1]
    assert (left.found, left.missed, left.false) == (1, 0, 0)
    assert confusion(met(truth, rows, skip_ignored=True), NAMES).counts.sum() == 1
    assert calibration(met(truth, rows, skip_ignored=True)).count.sum() == 1
    assert precision_recall(met(truth, rows[:1], skip_ignored=True), NAMES).per_class["cat"][0.5] == 1.0


def test_nothing_at_all():
    truth = truth_of()
    assert precision_recall(met(truth, []), NAMES).precision == {0.5: None, 0.75: None, 0.9: None}
    assert confusion(met(truth, []), NAMES).counts.sum() == 0
    assert calibration(met(truth, [])).count.sum() == 0
    assert {image: result.f1 for image, result in per_image(met(truth, [])).items()} == {1: None, 2: None}
    with pytest.raises(EvaluationError, match="image id 8"):
        per_image(met(truth, [{**box(1.0), "image_id": 8, "score": 0.5}]))
    with pytest.raises(ConfigError, match="bins"):
        calibration(met(truth, []), bins=0)
