"""Average precision by the rules of LVIS (Gupta, Dollár, Girshick: LVIS, CVPR 2019, section 2.2 and appendix).

LVIS is a federated data set: not every category was looked for on every image. Of a category c the images are

* positive: they have boxes of c;
* negative: somebody looked, and there is none (``neg_category_ids``);
* neither: nobody looked. Detections of c there are left out.

On a positive image where not all objects of c have boxes (``not_exhaustive_category_ids``), a detection that finds no
box is neither right nor wrong. Matching, recall levels, IoU thresholds and sizes are COCO's, crowds included; the 300
best detections of an image count, of all categories together, before any is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ld_hub.errors import EvaluationError
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.ground_truth import GroundTruth
from ld_hub.evaluation.matching import Flags, Floats, Ints, Overlaps, assign, overlaps, precision_at
from ld_hub.evaluation.metrics import MOST_OF_IMAGE, mean_found
from ld_hub.hub.evidence import LVIS_NAMES

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # these, the levels and the sizes are pycocotools' to the bit
LEVELS = np.linspace(0, 1, 101)
SIZES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))  # px²: all, small, medium, large


class LvisCurves(NamedTuple):
    """Of each IoU threshold, class and size; -1 where there is no box to find.

    Attributes:
        ap: ``(10, C, 4)``.
        recall: ``(10, C, 4)``.
    """

    ap: Floats
    recall: Floats


class _Size(NamedTuple):
    """What a range of sizes leaves of boxes and detections."""

    ignored: Flags  # (T,) boxes that are neither found nor missed
    crowd: Flags  # (T,)
    excused: Flags  # (D,) detections that are not wrong if they find nothing


def require_federated(truth: GroundTruth) -> None:
    """Refuse annotations that do not say what was looked for.

    Raises:
        EvaluationError: Naming the first image without ``neg_category_ids``.
    """
    lacking = [row["id"] for row in truth.images if "neg_category_ids" not in row]
    if lacking:
        raise EvaluationError(
            f"{truth.source}: {len(lacking)} of {len(truth.images)} images have no 'neg_category_ids' (for example "
            f"image id {lacking[0]}), the categories that were looked for and are not there. LVIS' protocol needs "
            "them; data with every object of every class marked are scored by COCO's: --protocol coco."
        )


def lvis_curves(truth: GroundTruth, found: Found, category_ids: Sequence[int]) -> LvisCurves:
    """AP and recall of each class, at each IoU threshold, for each size.

    Args:
        truth: Boxes of all images that are scored; see `require_federated`.
        found: Detections.
        category_ids: C category ids.
    """
    images = np.array([row["id"] for row in truth.images], dtype=np.int64)
    labels = {number: label for label, number in enumerate(category_ids)}

    def keys(image_ids: Ints, categories: Ints) -> Ints:
        """One number for each image and class; -1 for classes that are not scored."""
        label = np.array([labels.get(number, -1) for number in categories.tolist()], dtype=np.int64)
        return np.where(label < 0, -1, np.searchsorted(images, image_ids) * len(labels) + label)

    boxes = np.array([[row["image_id"], row["category_id"]] for row in truth.annotations], dtype=np.int64)
    positive = keys(*boxes.reshape(-1, 2).T)
    looked_for = np.concatenate([positive, keys(*_listed(truth, "neg_category_ids"))])
    found = found.best(MOST_OF_IMAGE)
    found = found.take(np.isin(keys(found.image_ids, found.category_ids), looked_for))
    near = overlaps(truth, found, category_ids, skip_ignored=True)
    found = found.take(near.det_index)
    more = np.isin(keys(found.image_ids, found.category_ids), keys(*_listed(truth, "not_exhaustive_category_ids")))
    rows = [truth.annotations[k] for k in near.box_index.tolist()]
    crowd = np.array([row["iscrowd"] for row in rows], dtype=bool)
    box_area, det_area = np.array([row["area"] for row in rows]), found.boxes[:, 2] * found.boxes[:, 3]
    curves = [
        _of_size(near, _Size(near.ignored | _outside(box_area, size), crowd, more | _outside(det_area, size)))
        for size in SIZES
    ]
    ap, recall = (np.stack(part, axis=-1) for part in zip(*curves, strict=True))
    return LvisCurves(ap, recall)


def _listed(truth: GroundTruth, key: Literal["neg_category_ids", "not_exhaustive_category_ids"]) -> tuple[Ints, Ints]:
    """Image and category ids of a list that images have."""
    lists = [row.get(key, []) for row in truth.images]
    images = np.repeat([row["id"] for row in truth.images], [len(each) for each in lists])
    return images.astype(np.int64), np.array([number for each in lists for number in each], dtype=np.int64)


def _outside(area: Floats, size: tuple[float, float]) -> Flags:
    return (area < size[0]) | (area > size[1])


def _of_size(near: Overlaps, size: _Size) -> tuple[Floats, Floats]:
    """AP and recall, ``(10, C)`` each."""
    boxes = np.bincount(near.box_label[~size.ignored], minlength=near.num_classes)
    order = np.lexsort((-near.score, near.det_label))  # stable, hence by image where scores are equal
    ends = np.cumsum(np.bincount(near.det_label, minlength=near.num_classes))
    parts = np.split(order, ends[:-1])
    ap, recall = (np.full((len(THRESHOLDS), near.num_classes), -1.0) for _ in range(2))
    for k, threshold in enumerate(THRESHOLDS.tolist()):
        right, counted = _judge(near, size, threshold)
        for label in np.flatnonzero(boxes).tolist():
            part = parts[label]
            correct = right[part][counted[part]]
            ap[k, label] = precision_at(LEVELS, correct, int(boxes[label])).mean()
            recall[k, label] = correct.sum() / boxes[label]
    return ap, recall


def _judge(near: Overlaps, size: _Size, threshold: float) -> tuple[Flags, Flags]:
    """``(D,)`` whether each detection found a box, and whether it counts at all.

    A detection that finds no box to be found may take an ignored one, each of which excuses one detection, a crowd any
    number.
    """
    pairs = near.pairs.take(near.same & (near.pairs.iou >= min(threshold, 1 - 1e-10)))
    dets, boxes, idle = len(near.score), len(near.box_label), size.ignored[pairs.box]
    right = assign(pairs.take(~idle), dets, boxes, last_of_equals=True) >= 0
    rest = pairs.take(idle & ~right[pairs.det])
    idle_found = assign(rest, dets, boxes, last_of_equals=True, shared=size.crowd) >= 0
    return right, right | ~(idle_found | size.excused)


def summarize_lvis(curves: LvisCurves, groups: Mapping[str, Flags]) -> dict[str, float | None]:
    """The 13 LVIS numbers.

    Args:
        curves: Of all classes.
        groups: ``(C,)`` which classes are rare, common, frequent: ``r``, ``c``, ``f``.
    """
    ap, recall = curves.ap, curves.recall
    parts = [ap[..., 0], ap[0, :, 0], ap[5, :, 0], ap[..., 1], ap[..., 2], ap[..., 3]]
    parts += [ap[:, groups[letter], 0] for letter in "rcf"]
    parts += [recall[..., size] for size in range(4)]
    return {name: mean_found(part) for name, part in zip(LVIS_NAMES, parts, strict=True)}


def frequency_groups(truth: GroundTruth, category_ids: Sequence[int]) -> dict[str, Flags]:
    """``(C,)`` which classes are rare, common, frequent in training, by the first letter; files without say none."""
    frequency = {row["id"]: row.get("frequency", "") for row in truth.categories}
    return {letter: np.array([frequency[number] == letter for number in category_ids]) for letter in "rcf"}
