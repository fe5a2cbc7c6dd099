"""All numbers of the report, and their form in JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ld_hub.analysis.choice import telling_images
from ld_hub.analysis.collect import Collected, Subject
from ld_hub.analysis.watchers import BoxTrace, Entropies
from ld_hub.data import DetectionSet
from ld_hub.evaluation import DetectionEvaluator, DetectionMetrics
from ld_hub.evaluation.matching import overlaps
from ld_hub.evaluation.studies import (
    Calibration,
    Confusion,
    ImageResult,
    PrecisionRecall,
    calibration,
    confusion,
    per_image,
    precision_recall,
)
from ld_hub.evaluation.tide import TideErrors, tide_errors
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import ResultRow

Floats = npt.NDArray[np.float64]
IOU_BINS = 10
TELLING = 2  # images of each kind: best, worst, gained, lost


@dataclass(frozen=True, eq=False)
class Judged:
    """One detector's results.

    Attributes:
        metrics: AP.
        tide: Errors by type.
        curves: Precision over recall.
        confusion: Classes taken for others.
        calibration: Scores against overlaps.
        images: Found, missed and false by image id.
        rows: Detections above the score, as rows of a COCO results file.
    """

    metrics: DetectionMetrics
    tide: TideErrors
    curves: PrecisionRecall
    confusion: Confusion
    calibration: Calibration
    images: Mapping[int, ImageResult]
    rows: Sequence[ResultRow]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the detections as plain JSON values."""
        return {
            "metrics": self.metrics.to_dict(),
            "tide": asdict(self.tide),
            "precision_recall": self.curves.to_dict(),
            "confusion": self.confusion.to_dict(),
            "calibration": self.calibration.to_dict(),
            "images": {str(image): result.to_dict() for image, result in sorted(self.images.items())},
        }


def judge(evaluator: DetectionEvaluator, dataset: DetectionSet, score: float, *, skip_ignored: bool) -> Judged:
    """Score one detector's detections in every way the report shows.

    Args:
        evaluator: Holds the detections of all images.
        dataset: Whose images they are.
        score: Detections above it count where single detections are counted.
        skip_ignored: Whether boxes marked ``ignore`` are neither found nor missed (VOC).
    """
    given, names = evaluator.found(), dataset.label_names
    found = overlaps(evaluator.truth, given, dataset.category_ids, skip_ignored=skip_ignored)
    return Judged(
        metrics=evaluator.compute(),
        tide=tide_errors(found),
        curves=precision_recall(found, names),
        confusion=confusion(found, names, score=score),
        calibration=calibration(found),
        images=per_image(found, score=score),
        rows=[row for row in given.rows() if row["score"] > score],
    )


@dataclass(frozen=True, eq=False)
class EntropyStudy:
    """How edge entropy goes with overlap.

    Attributes:
        entropy: ``(K,)`` mean edge entropy of each candidate, nats.
        iou: ``(K,)``.
        limit: Entropy of an even distribution over all bins, nats.
    """

    entropy: Floats
    iou: Floats
    limit: float

    @property
    def correlation(self) -> float | None:
        """Pearson's r; None where it is not defined."""
        if len(self.iou) < 2 or self.iou.std() == 0 or self.entropy.std() == 0:
            return None
        return float(np.corrcoef(self.entropy, self.iou)[0, 1])

    @property
    def by_iou(self) -> tuple[npt.NDArray[np.int64], Floats]:
        """``(10,)`` candidates and ``(10,)`` mean entropy (NaN where there are none) by IoU 0..0.1, ... 0.9..1."""
        place = np.minimum((self.iou * IOU_BINS).astype(int), IOU_BINS - 1)
        count = np.bincount(place, minlength=IOU_BINS)
        total = np.bincount(place, weights=self.entropy, minlength=IOU_BINS)
        return count, np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Correlation and means as plain JSON values."""
        count, mean = self.by_iou
        return {
            "candidates": len(self.iou),
            "correlation": self.correlation,
            "largest_entropy": self.limit,
            "by_iou": [
                {"iou": [k / IOU_BINS, (k + 1) / IOU_BINS], "candidates": int(n), "mean_entropy": plain(value)}
                for k, (n, value) in enumerate(zip(count, mean, strict=True))
            ],
        }


def entropy_study(entropies: Entropies, reg_max: int) -> EntropyStudy:
    """The candidates of one detector with bins 0..`reg_max`."""
    entropy, iou = entropies.pairs()
    return EntropyStudy(entropy, iou, float(np.log(reg_max + 1)))


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything the report shows.

    Attributes:
        names: Detectors, in the order of the report; the first is what others are compared with.
        teacher: One of them, or None.
        dataset: The images.
        data: What the data set is called, with its split.
        score: Detections above it are counted and drawn.
        judged: Results by detector.
        entropy: By detector with bins.
        collected: What the pass brought.
        sources: Where each detector came from.
        models: The detectors themselves, by name.
        skip_ignored: Whether boxes marked ``ignore`` are neither found nor missed (VOC).
    """

    names: tuple[str, ...]
    teacher: str | None
    dataset: DetectionSet
    data: str
    score: float
    judged: Mapping[str, Judged]
    entropy: Mapping[str, EntropyStudy]
    collected: Collected
    sources: Mapping[str, str]
    models: Mapping[str, DenseDetector]
    skip_ignored: bool = False

    @property
    def pair(self) -> tuple[str, ...]:
        """The first detector and the one that is compared with it by pictures; only one where there is one."""
        return self.names[:2]

    @property
    def image_ids(self) -> dict[str, list[int]]:
        """Ids of the images on which detection went best, worst and most differently."""
        f1 = [{image: result.f1 for image, result in self.judged[name].images.items()} for name in self.pair]
        return telling_images(f1, TELLING)

    def gains(self, name: str) -> dict[str, float | None]:
        """AP of each class less the first detector's, largest first; None (last) where a class has no boxes."""
        mine, first = (self.judged[one].metrics.per_class for one in (name, self.names[0]))
        gain = {label: minus(mine[label], first[label]) for label in mine}
        return dict(sorted(gain.items(), key=lambda item: (item[1] is None, -(item[1] or 0.0), item[0])))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values; fractions 0..1, None where there was nothing to measure."""
        boxes = next(iter(self.judged.values())).metrics.boxes
        return {
            "data": {"name": self.data, "images": len(self.dataset), "boxes": sum(boxes.values())},
            "score": self.score,
            "teacher": self.teacher,
            "models": {
                name: {
                    "source": self.sources[name],
                    **self.judged[name].to_dict(),
                    "nms": self.collected.crowding[name].to_dict(),
                    "entropy": self.entropy[name].to_dict() if name in self.entropy else None,
                }
                for name in self.names
            },
            "gains": {name: self.gains(name) for name in self.names[1:]},
            "score_errors": {name: errors.to_dict() for name, errors in self.collected.score_errors.items()},
            "edges": [_trace(trace, self.dataset.label_names) for trace in self.collected.traces],
            "pictures": self.image_ids,
            "left_out": self.collected.left_out,
        }


def analyse(
    collected: Collected,
    subjects: Sequence[Subject],
    dataset: DetectionSet,
    *,
    teacher: str | None,
    data: str,
    score: float,
    advance: Callable[[], None],
) -> Analysis:
    """From what was collected to all numbers.

    Args:
        collected: Of the pass.
        subjects: The detectors.
        dataset: The images.
        teacher: Name of a detector, or None.
        data: What the data set is called.
        score: See `judge`.
        advance: Called after each detector.
    """
    judged, skip_ignored = {}, dataset.protocol != "coco"
    sources = {one.name: one.source for one in subjects}
    bins = {one.name: one.model.coder.reg_max for one in subjects if one.model.coder.reg_max is not None}
    for name, evaluator in collected.evaluators.items():
        judged[name] = judge(evaluator, dataset, score, skip_ignored=skip_ignored)
        advance()
    entropy = {name: entropy_study(found, bins[name]) for name, found in collected.entropies.items()}
    models = {one.name: one.model for one in subjects}
    names = tuple(judged)
    return Analysis(names, teacher, dataset, data, score, judged, entropy, collected, sources, models, skip_ignored)


def _trace(trace: BoxTrace, label_names: Sequence[str]) -> dict[str, Any]:
    return {
        "image_id": trace.image_id,
        "label": label_names[trace.label],
        "box": trace.box.tolist(),
        "stride": trace.stride,
        "true_distance": trace.distance.tolist(),
        "detectors": {
            name: {
                "bins": edge.bins.tolist(),
                "distance": edge.distance.tolist(),
                "box": edge.box.tolist(),
                "iou": edge.iou,
                "score": edge.score,
                "entropy": edge.entropy,
            }
            for name, edge in trace.edges.items()
        },
    }


def plain(value: float) -> float | None:
    """A number for JSON: None for NaN."""
    return None if np.isnan(value) else float(value)


def minus(one: float | None, other: float | None) -> float | None:
    """A difference of two numbers; None where one of them is not known."""
    return None if one is None or other is None else one - other
