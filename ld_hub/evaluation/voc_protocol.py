"""Average precision by the rules of PASCAL VOC.

The rules are those of the VOC development kit. The detections of a class are gone through by falling score, over all
images. Each looks at the one box of its class in its image that it overlaps most. If their IoU is at least the
threshold, it is right, unless an earlier detection has found that box already: then it is wrong, even if another box
would be free. If the box is a difficult one, the detection is neither right nor wrong. Detections of equal score come
by image id, and within an image in the order of the model.

* ``voc07``, as until 2009: the mean, over the 11 recalls 0, 0.1, ..., 1, of the largest precision at that recall or
  more.
* ``voc12``, since 2010: the area under the curve of the largest precision at each recall or more.

Boxes have continuous edges in px: a box is ``x2 - x1`` wide. The kit's pixels are inclusive and start at 1, so a box
is there ``x2 - x1 + 1`` wide. On boxes read as ``x1 - 1, y1 - 1, x2, y2``, as the reader of `ld_hub.data` does, both
say the same. Recalls and thresholds are compared exactly: 3 of 10 boxes are a recall of 0.3, an IoU of 9/10 is 0.9.
Crowds of COCO count as difficult boxes, which is how many COCO versions of VOC mark these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ld_hub.evaluation.found import Found
from ld_hub.evaluation.ground_truth import GroundTruth
from ld_hub.evaluation.matching import best_pairs, overlaps
from ld_hub.structures import AnnotationRow

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

THRESHOLDS = np.arange(10, 20) / 20  # 0.50, 0.55, ..., 0.95, each the float nearest to it


def voc_average_precision(truth: GroundTruth, found: Found, category_ids: Sequence[int], protocol: str) -> Floats:
    """AP of each class at each IoU threshold.

    Args:
        truth: Boxes of all images that are scored.
        found: Detections.
        category_ids: C category ids.
        protocol: ``"voc07"`` or ``"voc12"``.

    Returns:
        ``(10, C)`` fractions 0..1 at the IoU `THRESHOLDS`; -1 for classes without a box to find.
    """
    area = {"voc07": _eleven_points, "voc12": _area}[protocol]
    near = overlaps(_without_crowds(truth, category_ids), found, category_ids, skip_ignored=True)
    box, iou = best_pairs(near.pairs.take(near.same), len(found))
    right, wrong = _judge(box, iou, near.ignored)
    result = np.full((len(THRESHOLDS), len(category_ids)), -1.0)
    order = np.lexsort((-near.score, near.det_label))  # stable, hence by image where scores are equal
    ends = np.cumsum(np.bincount(near.det_label, minlength=len(category_ids)))
    boxes = near.boxes
    for label, part in enumerate(np.split(order, ends[:-1])):
        if boxes[label]:
            result[:, label] = _average(right[:, part], wrong[:, part], int(boxes[label]), area)
    return result


def _without_crowds(truth: GroundTruth, category_ids: Sequence[int]) -> GroundTruth:
    """Crowds of these categories as difficult boxes, and without others, which no detection can lie on."""
    known = set(category_ids)
    marked: list[AnnotationRow] = [
        {**row, "iscrowd": 0, "ignore": 1} if row["iscrowd"] else row
        for row in truth.annotations
        if row["category_id"] in known or not row["iscrowd"]
    ]
    return replace(truth, annotations=marked)


def _judge(box: npt.NDArray[np.int64], iou: Floats, ignored: Flags) -> tuple[Flags, Flags]:
    """Whether each detection is right and whether it is wrong, ``(10, D)`` each, at each threshold.

    Args:
        box: ``(D,)`` index of the box that each detection overlaps most, -1 for none; by image, best score first.
        iou: ``(D,)`` with it.
        ignored: ``(T,)`` difficult boxes.
    """
    near = np.flatnonzero(box >= 0)
    near = near[np.argsort(box[near], kind="stable")]  # those of one box together, still best first
    easy = ~ignored[box[near]]
    right = np.zeros((len(THRESHOLDS), len(box)), dtype=bool)
    wrong = np.ones_like(right)
    for k, threshold in enumerate(THRESHOLDS):
        hit = iou[near] >= threshold
        wrong[k, near[hit]] = easy[hit]
        first = near[hit & easy]
        first = first[np.flatnonzero(np.diff(box[first], prepend=-1))]  # of each box
        right[k, first], wrong[k, first] = True, False
    return right, wrong


def _average(right: Flags, wrong: Flags, boxes: int, area: Callable[[Floats, Flags, int], Floats]) -> Floats:
    """AP of one class ``(10,)`` from its K detections ``(10, K)``, best score first."""
    found = np.cumsum(right, axis=1)
    precision = found / np.maximum(found + np.cumsum(wrong, axis=1), 1)  # 0 while all were difficult
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return area(best, right, boxes)


def _eleven_points(best: Floats, right: Flags, boxes: int) -> Floats:
    """Mean of the best precision at or beyond the 11 recalls; 0 at recalls that are not reached."""
    found = np.cumsum(right, axis=1)
    padded = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    values = []
    for tenths in range(11):
        needed = -(-tenths * boxes // 10)  # boxes to be found for this recall
        reached = (found < needed).sum(axis=1, keepdims=True)
        values.append(np.take_along_axis(padded, reached, axis=1)[:, 0])
    mean: Floats = np.mean(values, axis=0)
    return mean


def _area(best: Floats, right: Flags, boxes: int) -> Floats:
    """Area under the curve: each box found raises the recall by one step of 1 / boxes."""
    total: Floats = (best * right).sum(axis=1) / boxes
    return total
