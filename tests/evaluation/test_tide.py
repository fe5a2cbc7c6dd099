"""TIDE: stored figures of tidecv on random problems, and cases small enough to tell by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ld_hub.errors import ConfigError, EvaluationError
from ld_hub.evaluation import read_ground_truth
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.matching import overlaps
from ld_hub.evaluation.tide import MAIN, TideErrors, tide_errors

STORED = json.loads((Path(__file__).parent / "data" / "tide.json").read_text())


def content_of(boxes, images, categories):
    """Rows ``[image, category, x, y, w, h, crowd]`` as a ground truth."""
    return read_ground_truth(
        {
            "images": [{"id": k, "width": 200, "height": 200} for k in range(1, images + 1)],
            "categories": [{"id": k, "name": f"c{k}"} for k in range(1, categories + 1)],
            "annotations": [
                {"id": k, "image_id": i, "category_id": c, "bbox": box, "iscrowd": crowd}
                for k, (i, c, *box, crowd) in enumerate(boxes, start=1)
            ],
        }
    )


def seen(truth, rows, **options):
    return overlaps(truth, Found.of(rows), [1], **options)


def rows_of(detections):
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, *box, score in detections]


def errors_of(boxes, detections, images=1, categories=2, **options):
    ids = range(1, categories + 1)
    found = overlaps(content_of(boxes, images, categories), Found.of(rows_of(detections)), ids)
    return tide_errors(found, **options)


@pytest.mark.parametrize("name", STORED)
def test_figures_are_those_of_tidecv(name):
    stored = STORED[name]
    theirs = stored["tidecv"]
    mine = errors_of(stored["boxes"], stored["detections"], stored["images"], stored["categories"])
    assert mine.counts == theirs["counts"]
    assert all(theirs["counts"].values()) and max(theirs["main"].values()) > 5  # the problem asks something
    with_boxes = {c for _, c, *_, crowd in stored["boxes"] if not crowd}
    states = {  # tidecv's own means take in classes without boxes
        state: np.mean([ap for c, ap in enumerate(aps, start=1) if c in with_boxes and ap is not None])
        for state, aps in theirs["per_class"].items()
    }
    if len(with_boxes) == stored["categories"]:
        assert states["ap"] == pytest.approx(theirs["ap"], abs=1e-10)
        gains = {**theirs["main"], **theirs["special"]}
    else:
        gains = {state: ap - states["ap"] for state, ap in states.items() if state != "ap"}
        gains.update({state: max(gains[state], 0) for state in MAIN})
    assert 100 * mine.ap50 == pytest.approx(states["ap"], abs=1e-10)
    assert {k: 100 * v for k, v in {**mine.main, **mine.special}.items()} == pytest.approx(gains, abs=1e-10)


BOX = [1, 1, 10, 10, 100, 40]  # image, category, x, y, width, height


def zero(**changed):
    return {**dict.fromkeys(MAIN, 0), **changed}


@pytest.mark.parametrize(
    "detection, kind",
    [
        ([1, 1, 40, 10, 100, 40, 0.9], None),  # IoU 70 / 130
        ([1, 1, 60, 10, 100, 40, 0.9], "Loc"),  # 50 / 150
        ([1, 2, 10, 10, 100, 40, 0.9], "Cls"),
        ([1, 2, 60, 10, 100, 40, 0.9], "Both"),
        ([1, 1, 105, 10, 100, 40, 0.9], "Bkg"),  # 5 / 195
        ([2, 1, 10, 10, 100, 40, 0.9], "Bkg"),
    ],
)
def test_one_detection_and_one_box(detection, kind):
    mine = errors_of([[*BOX, 0]], [detection], images=2)
    if kind is None:
        assert mine == TideErrors(1.0, zero(), {"FP": 0.0, "FN": 0.0}, zero())
        return
    mended_by_it = kind in {"Loc", "Cls"}
    assert mine.counts == zero(**{kind: 1, "Miss": int(not mended_by_it)})
    # A class left without boxes does not count; if it has detections, they are all wrong.
    assert mine.main == zero(**({kind: 1.0} if mended_by_it else {}))
    assert mine.ap50 == 0


def test_a_second_detection_of_a_box_is_a_duplicate_and_costs_where_boxes_are_found_after_it():
    boxes = [[*BOX, 0], [1, 1, 10, 100, 50, 50, 0]]
    found = [[1, 1, 10, 10, 100, 40, 0.9], [1, 1, 12, 10, 100, 40, 0.8], [1, 1, 10, 100, 50, 50, 0.7]]
    mine = errors_of(boxes, found)
    expected = (51 + 50 * 2 / 3) / 101  # precision 1 up to recall 0.5, then 2/3
    assert mine.ap50 == pytest.approx(expected)
    assert mine.counts == zero(Dupe=1)
    assert mine.main == pytest.approx(zero(Dupe=1 - expected))
    assert mine.special == pytest.approx({"FP": 1 - expected, "FN": 0})


OTHER = [1, 2, 10, 100, 50, 50]


@pytest.mark.parametrize(
    "boxes, detections, ap50, counts, gains",
    [
        # an IoU of exactly 0.5: right; with a box of another class, Cls
        ([[*BOX, 0]], [[1, 1, 10, 10, 100, 20, 0.9]], 1.0, {}, {}),
        ([[*BOX, 0], [*OTHER, 0]], [[1, 2, 10, 10, 100, 20, 0.9], [*OTHER, 0.8]], 0.25, {"Cls": 1}, {"Cls": 0.75}),
        # of exactly 0.1: Loc; of another class, Bkg
        ([[*BOX, 0]], [[1, 1, 10, 10, 100, 4, 0.9]], 0.0, {"Loc": 1}, {"Loc": 1.0}),
        ([[*BOX, 0], [*OTHER, 0]], [[1, 2, 10, 10, 100, 4, 0.9], [*OTHER, 0.8]], 0.25, {"Bkg": 1, "Miss": 1},
         {"Bkg": 0.25, "Miss": 0.25}),
        # a detection of which exactly a half lies on a crowd is not excused
        ([[1, 1, 10, 100, 50, 50, 0], [1, 1, 10, 10, 50, 40, 1]], [[*BOX, 0.9], [1, 1, 10, 100, 50, 50, 0.8]], 0.5,
         {"Bkg": 1}, {"Bkg": 0.5}),
        # without its missed box a class has detections left, which are all wrong
        ([[*BOX, 0], [*OTHER, 0]], [[*BOX, 0.9], [1, 2, 150, 150, 20, 20, 0.8]], 0.5, {"Bkg": 1, "Miss": 1}, {}),
    ],
)  # fmt: skip
def test_edges_are_those_of_tidecv(boxes, detections, ap50, counts, gains):
    """Figures of tidecv 1.0.1."""
    mine = errors_of(boxes, detections)
    assert mine.ap50 == pytest.approx(ap50)
    assert mine.counts == zero(**counts)
    assert mine.main == pytest.approx(zero(**gains))


def test_the_best_of_several_errors_is_the_one_mended():
    """A Loc error above a Cls error at one box: mending Cls alone drops it, and the box stays missed."""
    poor, wrong = [1, 1, 60, 10, 100, 40, 0.9], [1, 2, 10, 10, 100, 40, 0.8]
    other = [1, 2, 10, 100, 50, 50]
    mine = errors_of([[*BOX, 0], [*other, 0]], [poor, wrong, [*other, 0.7]])
    assert mine.counts == zero(Loc=1, Cls=1)
    assert mine.ap50 == pytest.approx((0 + 0.5) / 2)
    assert mine.main == pytest.approx(zero(Loc=0.5, Cls=0.25))


def test_missed_boxes_leave_the_count():
    mine = errors_of([[*BOX, 0], [1, 1, 10, 100, 50, 50, 0]], [[1, 1, 10, 10, 100, 40, 0.9]])
    assert mine.ap50 == pytest.approx(51 / 101)
    assert mine.counts == zero(Miss=1)
    assert mine.main == pytest.approx(zero(Miss=50 / 101))
    assert mine.special == pytest.approx({"FP": 0, "FN": 50 / 101})


def test_crowds_and_marked_boxes_excuse_detections():
    detections = [[*BOX, 0.9], [1, 1, 10, 100, 50, 50, 0.95]]
    assert errors_of([[*BOX, 0], [1, 1, 0, 90, 90, 90, 1]], detections).ap50 == 1.0
    truth = content_of([[*BOX, 0], [1, 1, 10, 100, 50, 50, 0]], 1, 1)
    rows, plain = rows_of(detections[:1]), tide_errors(seen(truth, rows_of(detections)))
    assert plain.ap50 == 1.0
    truth.annotations[1]["ignore"] = 1
    assert tide_errors(seen(truth, rows)).ap50 == pytest.approx(51 / 101)
    assert tide_errors(seen(truth, rows, skip_ignored=True)).ap50 == 1.0
    assert tide_errors(seen(truth, rows_of(detections), skip_ignored=True)).ap50 == 1.0


def test_nothing_found_and_nothing_to_find():
    none = errors_of([[*BOX, 0]], [])
    assert (none.ap50, none.counts) == (0.0, zero(Miss=1))
    with pytest.raises(EvaluationError, match="no box to be found"):
        errors_of([[*BOX, 1]], [[*BOX, 0.9]])


def test_bad_input():
    with pytest.raises(ConfigError, match=r"background 0\.6"):
        errors_of([[*BOX, 0]], [], background=0.6)
    with pytest.raises(EvaluationError, match="image id 7"):
        errors_of([[*BOX, 0]], [[7, 1, 0, 0, 5, 5, 0.5]])
    with pytest.raises(EvaluationError, match="category id 9"):
        errors_of([[*BOX, 0]], [[1, 9, 0, 0, 5, 5, 0.5]])
    assert json.loads(json.dumps(asdict(errors_of([[*BOX, 0]], []))))["ap50"] == 0.0
