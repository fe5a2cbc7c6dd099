"""Detections and boxes of a whole data set as arrays, and which detection finds which box.

Shapes: D detections, T boxes, P pairs of a detection and a box of the same image that overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ld_hub.errors import EvaluationError
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.ground_truth import GroundTruth
from ld_hub.structures import AnnotationRow

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MOST = 100  # detections that COCO and TIDE look at: COCO per image and class, TIDE per image
_CHUNK = 1 << 20  # pairs whose overlap is computed at a time


@dataclass(frozen=True, eq=False)
class Pairs:
    """Overlapping detections and boxes.

    Attributes:
        det: ``(P,)`` index into D.
        box: ``(P,)`` index into T.
        iou: ``(P,)`` above 0; for a crowd the share of the detection that lies in it, as COCO defines it.
    """

    det: Ints
    box: Ints
    iou: Floats

    def take(self, chosen: Flags) -> Pairs:
        """The pairs of a mask ``(P,)``."""
        return Pairs(self.det[chosen], self.box[chosen], self.iou[chosen])


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Detections, boxes and their overlaps.

    Attributes:
        image_ids: ``(I,)`` ids of all images, rising.
        det_image: ``(D,)`` index into `image_ids`, rising; detections of an image are sorted by falling score, equal
            scores as they were given.
        det_label: ``(D,)`` 0..C-1.
        score: ``(D,)``.
        det_index: ``(D,)`` place of each detection among those given.
        box_image: ``(T,)`` as `det_image`; boxes of an image are in the order of the file.
        box_label: ``(T,)`` 0..C-1.
        ignored: ``(T,)`` crowds, and what else is neither found nor missed.
        box_index: ``(T,)`` place of each box among the annotations.
        pairs: Overlaps, of all classes.
        num_classes: C.
        source: Where the boxes came from, for messages.
    """

    image_ids: Ints
    det_image: Ints
    det_label: Ints
    score: Floats
    det_index: Ints
    box_image: Ints
    box_label: Ints
    ignored: Flags
    box_index: Ints
    pairs: Pairs
    num_classes: int
    source: str

    @property
    def same(self) -> Flags:
        """``(P,)`` whether detection and box are of one class."""
        equal: Flags = self.det_label[self.pairs.det] == self.box_label[self.pairs.box]
        return equal

    @property
    def wanted(self) -> Flags:
        """``(P,)`` whether the box is one to be found."""
        return ~self.ignored[self.pairs.box]

    @property
    def boxes(self) -> Ints:
        """``(C,)`` boxes to be found of each class."""
        return np.bincount(self.box_label[~self.ignored], minlength=self.num_classes)

    def rank(self, *, by_class: bool) -> Ints:
        """``(D,)`` place of each detection, from 0, within its image, or within its image and class."""
        group = self.det_image * (self.det_label.max(initial=0) + 1) + self.det_label if by_class else self.det_image
        order = np.argsort(group, kind="stable")
        place = np.empty_like(order)
        place[order] = _places(group[order])
        return place


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of detections.

    Attributes:
        box: ``(D,)`` the box each found, -1 for none.
        excused: ``(D,)`` found none, but lies on an ignored box of its class: neither right nor wrong.
    """

    box: Ints
    excused: Flags


def overlaps(truth: GroundTruth, found: Found, category_ids: Sequence[int], *, skip_ignored: bool = False) -> Overlaps:
    """Bring boxes and detections together.

    Args:
        truth: Boxes.
        found: Detections.
        category_ids: Category id of each of the C labels.
        skip_ignored: Whether boxes marked ``ignore`` (VOC's difficult ones) are neither found nor missed; crowds
            never are.

    Raises:
        EvaluationError: If a detection names an unknown image or category, or a box is of another category.
    """
    image_ids = np.array([image["id"] for image in truth.images], dtype=np.int64)
    known = set(category_ids)  # crowds of other categories excuse nothing
    rows = truth.annotations
    kept = [k for k, row in enumerate(rows) if row["category_id"] in known or not row["iscrowd"]]
    boxes = [rows[k] for k in kept]
    box_image = _index(image_ids, _column(boxes, "image_id"), "image", truth.source)
    det_image = _index(image_ids, found.image_ids, "image", truth.source)
    box_label, det_label = (_labels(category_ids, ids) for ids in (_column(boxes, "category_id"), found.category_ids))
    sides = np.array([row["bbox"] for row in boxes], dtype=np.float64).reshape(-1, 4)
    crowd = np.array([bool(row["iscrowd"]) for row in boxes], dtype=bool)
    marked = np.array([skip_ignored and bool(row["ignore"]) for row in boxes], dtype=bool)
    by_image, best = np.argsort(box_image, kind="stable"), np.lexsort((-found.scores, det_image))
    pairs = _overlapping(
        found.boxes[best], det_image[best], sides[by_image], box_image[by_image], crowd[by_image],
        len(image_ids),
    )  # fmt: skip
    return Overlaps(
        image_ids=image_ids,
        det_image=det_image[best],
        det_label=det_label[best],
        score=found.scores[best],
        det_index=best,
        box_image=box_image[by_image],
        box_label=box_label[by_image],
        ignored=(crowd | marked)[by_image],
        box_index=np.array(kept, dtype=np.int64)[by_image],
        pairs=pairs,
        num_classes=len(category_ids),
        source=truth.source,
    )


def match(found: Overlaps, iou: float, taking_part: Flags | None = None) -> Matches:
    """Match as COCO does: in order of score, each detection takes the free box of its class that it overlaps most.

    Args:
        found: Detections and boxes.
        iou: Least overlap.
        taking_part: ``(D,)`` detections to match; the others find nothing.
    """
    near = found.same & (found.pairs.iou >= min(iou, 1 - 1e-10))  # COCO's guard against rounding at 1
    if taking_part is not None:
        near &= taking_part[found.pairs.det]
    box = assign(found.pairs.take(near & found.wanted), len(found.score), len(found.box_label), last_of_equals=True)
    excused = np.zeros(len(found.score), dtype=bool)
    excused[found.pairs.det[near & ~found.wanted]] = True
    return Matches(box, excused & (box < 0))


def assign(pairs: Pairs, detections: int, boxes: int, *, last_of_equals: bool, shared: Flags | None = None) -> Ints:
    """Give each detection, one after the other, the free box it overlaps most.

    Args:
        pairs: Those that may be matched; detections with a lower index choose first.
        detections: D.
        boxes: T.
        last_of_equals: Which of several boxes with the same overlap is taken: pycocotools takes the last, tidecv the
            first.
        shared: ``(T,)`` boxes that are free for any number of detections (crowds).

    Returns:
        ``(D,)`` index of the box, -1 for none.
    """
    fills = [1] * boxes if shared is None else (~shared).tolist()
    order = np.lexsort((-pairs.box if last_of_equals else pairs.box, -pairs.iou, pairs.det))
    taken, result = bytearray(boxes), [-1] * detections
    for det, box in zip(pairs.det[order].tolist(), pairs.box[order].tolist(), strict=True):  # few: near pairs only
        if result[det] < 0 and not taken[box]:
            result[det], taken[box] = box, fills[box]
    return np.array(result, dtype=np.int64)


def best_pairs(pairs: Pairs, detections: int) -> tuple[Ints, Floats]:
    """Find the box that each detection overlaps most.

    Returns:
        ``(D,)`` index of the box, the first of equals, -1 for none; ``(D,)`` the overlap.
    """
    order = np.lexsort((pairs.box, -pairs.iou, pairs.det))
    det, first = np.unique(pairs.det[order], return_index=True)
    box, iou = np.full(detections, -1, dtype=np.int64), np.zeros(detections)
    box[det], iou[det] = pairs.box[order][first], pairs.iou[order][first]
    return box, iou


def precision_at(levels: Floats, correct: Flags, boxes: int) -> Floats:
    """Precision at levels of recall: the best one at that recall or a larger one, 0 where it is not reached.

    Args:
        levels: ``(L,)`` recalls, rising.
        correct: ``(K,)`` whether each detection is right, best score first.
        boxes: Boxes to be found, at least 1.

    Returns:
        ``(L,)``.
    """
    right = np.cumsum(correct)
    precision = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
    reached = np.searchsorted(right / boxes, levels, side="left")
    return np.append(precision, 0.0)[reached]


def _column(boxes: Sequence[AnnotationRow], name: Literal["image_id", "category_id"]) -> Ints:
    return np.array([row[name] for row in boxes], dtype=np.int64)


def _index(known: Ints, values: Ints, what: str, source: str) -> Ints:
    """Place of each value among the known ones, which rise."""
    place: Ints = np.searchsorted(known, values)
    if len(values):
        lost = known[place.clip(max=len(known) - 1)] != values if len(known) else np.ones(len(values), dtype=bool)
        if lost.any():
            raise EvaluationError(f"A row names {what} id {values[lost][0]}, which {source} does not have.")
    return place


def _labels(category_ids: Sequence[int], values: Ints) -> Ints:
    """Label 0..C-1 of each category id."""
    ids = np.array(category_ids, dtype=np.int64)
    order = np.argsort(ids)
    return order[_index(ids[order], values, "category", "the list of category ids")]


def _places(group: Ints) -> Ints:
    """Place within its run of equal values: 0, 1, 2, 0, 1, ..."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))


def _overlapping(dets: Floats, det_image: Ints, boxes: Floats, box_image: Ints, crowd: Flags, images: int) -> Pairs:
    """All pairs that overlap; boxes are x, y, width, height in px, sorted by image like the detections."""
    number = np.bincount(box_image, minlength=images)
    first, many = (np.cumsum(number) - number)[det_image], number[det_image]
    parts = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for part in _chunks(np.cumsum(many)):
        det = np.repeat(np.arange(part.start, part.stop), many[part])
        box = np.repeat(first[part], many[part]) + _places(det)
        iou = _iou(dets[det].T, boxes[box].T, crowd[box])
        parts.append(Pairs(det, box, iou).take(iou > 0))
    joined: list[Any] = [np.concatenate([getattr(part, name) for part in parts]) for name in ("det", "box", "iou")]
    return Pairs(*joined)


def _chunks(total: Ints) -> Iterator[slice]:
    """Slices of detections that have about `_CHUNK` pairs each; `total` is the running number of pairs."""
    start = 0
    while start < len(total):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _CHUNK, side="right")))
        yield slice(start, stop)
        start = stop


def _iou(det: Floats, box: Floats, crowd: Flags) -> Floats:
    """``(4, P)`` and ``(4, P)`` to ``(P,)``, with pycocotools' order of operations, for equal bits."""
    width = np.minimum(det[2] + det[0], box[2] + box[0]) - np.maximum(det[0], box[0])
    height = np.minimum(det[3] + det[1], box[3] + box[1]) - np.maximum(det[1], box[1])
    common = np.where((width > 0) & (height > 0), width * height, 0.0)
    area = det[2] * det[3]
    union = np.where(crowd, area, area + box[2] * box[3] - common)
    iou: Floats = np.divide(common, union, out=np.zeros_like(common), where=common > 0)
    return iou
