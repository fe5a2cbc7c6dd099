"""Where detections are right and wrong: curves, confusions, calibration, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ld_hub.errors import ConfigError
from ld_hub.evaluation.matching import MOST, Floats, Overlaps, assign, best_pairs, match, precision_at

RIGHT = 0.5  # IoU from which calibration calls a detection right


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision over recall, as COCO's AP averages it; fractions 0..1.

    Attributes:
        recall: ``(101,)`` 0, 0.01 ... 1.
        precision: By IoU threshold, ``(101,)`` mean over the classes with boxes; None where no class has any.
        per_class: By class name and IoU threshold, the AP; None for a class without boxes.
    """

    recall: Floats
    precision: Mapping[float, Floats | None]
    per_class: Mapping[str, Mapping[float, float | None]]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; thresholds are text such as ``"0.5"``."""
        return {
            "recall": self.recall.tolist(),
            "precision": {f"{iou:g}": None if p is None else p.tolist() for iou, p in self.precision.items()},
            "per_class": {
                name: {f"{iou:g}": ap for iou, ap in values.items()} for name, values in self.per_class.items()
            },
        }


@dataclass(frozen=True, eq=False)
class Confusion:
    """Which class was taken for which.

    Attributes:
        counts: ``(C + 1, C + 1)``; row: class of the box, column: class of the detection; the last of both is
            background: a row of false detections, a column of missed boxes.
        label_names: C names.
        iou: Overlap from which a detection may belong to a box.
        score: Detections with a score above this took part.
    """

    counts: npt.NDArray[np.int64]
    label_names: tuple[str, ...]
    iou: float
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "counts": self.counts.tolist(),
            "label_names": list(self.label_names),
            "iou": self.iou,
            "score": self.score,
        }


@dataclass(frozen=True, eq=False)
class Calibration:
    """Whether scores tell how well boxes fit. B bins of equal width from score 0 to 1.

    Attributes:
        edges: ``(B + 1,)`` scores.
        count: ``(B,)`` detections.
        score: ``(B,)`` their mean score; NaN (in JSON None) in an empty bin, as below.
        iou: ``(B,)`` mean IoU of each detection with the best box of its class.
        share: ``(B,)`` share of detections with an IoU of at least 0.5.
    """

    edges: Floats
    count: npt.NDArray[np.int64]
    score: Floats
    iou: Floats
    share: Floats

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; None in empty bins."""
        return {
            "edges": self.edges.tolist(),
            "count": self.count.tolist(),
            **{name: [None if np.isnan(v) else float(v) for v in getattr(self, name)]
               for name in ("score", "iou", "share")},
        }  # fmt: skip


@dataclass(frozen=True)
class ImageResult:
    """How detection went on one image.

    Attributes:
        found: Boxes with a detection.
        missed: Boxes without.
        false: Detections without a box.
        f1: 2 found / (2 found + missed + false); None where there was nothing and nothing was detected.
    """

    found: int
    missed: int
    false: int

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        total = 2 * self.found + self.missed + self.false
        return 2 * self.found / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {"found": self.found, "missed": self.missed, "false": self.false, "f1": self.f1}


def precision_recall(
    found: Overlaps,
    label_names: Sequence[str],
    *,
    ious: Sequence[float] = (0.5, 0.75, 0.9),
) -> PrecisionRecall:
    """Precision at 101 levels of recall, by IoU threshold; the APs are pycocotools' (all sizes, 100 detections).

    Args:
        found: Boxes and detections, of `ld_hub.evaluation.matching.overlaps`.
        label_names: C class names.
        ious: IoU thresholds.
    """
    best = found.rank(by_class=True) < MOST
    boxes = found.boxes
    by_label = np.lexsort((-found.score, found.det_label))
    ends = np.searchsorted(found.det_label[by_label], np.arange(len(boxes) + 1))
    recall = np.linspace(0.0, 1.0, 101)
    precision: dict[float, Floats | None] = {}
    per_class: dict[str, dict[float, float | None]] = {name: {} for name in label_names}
    for iou in ious:
        matches = match(found, iou, best)
        counted, correct = best & ~matches.excused, matches.box >= 0
        curves: list[Floats] = []
        for label, name in enumerate(label_names):
            order = by_label[ends[label] : ends[label + 1]]
            curve = precision_at(recall, correct[order[counted[order]]], int(boxes[label])) if boxes[label] else None
            curves += [] if curve is None else [curve]
            per_class[name][iou] = None if curve is None else float(curve.mean())
        precision[iou] = np.mean(curves, axis=0) if curves else None
    return PrecisionRecall(recall, precision, per_class)


def confusion(
    found: Overlaps,
    label_names: Sequence[str],
    *,
    iou: float = 0.5,
    score: float = 0.3,
) -> Confusion:
    """Count which classes are taken for which.

    First detections find boxes of their own class, as for AP; then what is left over finds boxes of any class. A false
    detection on a crowd of its class is not counted.

    Args:
        found: Boxes and detections, of `ld_hub.evaluation.matching.overlaps`.
        label_names: C class names.
        iou: Overlap from which a detection may belong to a box.
        score: Least score, exclusive.
    """
    above = found.score > score
    matches = match(found, iou, above)
    free_det, free_box = above & (matches.box < 0) & ~matches.excused, ~found.ignored
    free_box[matches.box[matches.box >= 0]] = False
    pairs, background = found.pairs, len(label_names)
    rest = pairs.take((pairs.iou >= iou) & free_det[pairs.det] & free_box[pairs.box])
    other = assign(rest, len(found.score), len(found.box_label), last_of_equals=True)
    box = np.where(matches.box >= 0, matches.box, other)
    shown, hit = above & ~matches.excused, box >= 0
    missed = ~found.ignored
    missed[box[hit]] = False
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    np.add.at(counts, (found.box_label[box[hit]], found.det_label[hit]), 1)
    np.add.at(counts[background], found.det_label[shown & ~hit], 1)
    np.add.at(counts[:, background], found.box_label[missed], 1)
    return Confusion(counts, tuple(label_names), iou, score)


def calibration(
    found: Overlaps,
    *,
    bins: int = 10,
) -> Calibration:
    """Compare the score of each detection with its IoU with the best box of its class (0 without one).

    A box may be the best of several detections: it is the fit of boxes that is looked at, not duplicates. Detections
    that lie on a crowd of their class, and on no box of it, by an IoU of 0.5 are left out.

    Args:
        found: Boxes and detections, of `ld_hub.evaluation.matching.overlaps`.
        bins: B; a score belongs to the bin ``[edge, next edge)``, 1 to the last.

    Raises:
        ConfigError: If `bins` is not at least 1.
    """
    if bins < 1:
        raise ConfigError(f"bins is {bins}; expected at least 1.")
    _, iou = best_pairs(found.pairs.take(found.same & found.wanted), len(found.score))
    on_crowd = np.zeros(len(iou), dtype=bool)
    on_crowd[found.pairs.det[found.same & ~found.wanted & (found.pairs.iou >= RIGHT)]] = True
    counted = ~on_crowd | (iou >= RIGHT)
    score, iou = found.score[counted], iou[counted]
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = (np.searchsorted(edges, score, side="right") - 1).clip(0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights, minlength=bins) for weights in (score, iou, (iou >= RIGHT).astype(float)))
    means = [np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums]
    return Calibration(edges, count, *means)


def per_image(
    found: Overlaps,
    *,
    iou: float = 0.5,
    score: float = 0.3,
) -> dict[int, ImageResult]:
    """Count found and missed boxes and false detections of every image, by image id.

    Args:
        found: Boxes and detections, of `ld_hub.evaluation.matching.overlaps`.
        iou: Overlap from which a detection finds a box.
        score: Least score, exclusive.
    """
    above = found.score > score
    matches = match(found, iou, above)
    right = matches.box >= 0
    images = len(found.image_ids)
    hits = np.bincount(found.det_image[right], minlength=images)
    false = np.bincount(found.det_image[above & ~right & ~matches.excused], minlength=images)
    boxes = np.bincount(found.box_image[~found.ignored], minlength=images)
    numbers = zip(found.image_ids.tolist(), hits.tolist(), (boxes - hits).tolist(), false.tolist(), strict=True)
    return {image: ImageResult(*counts) for image, *counts in numbers}
