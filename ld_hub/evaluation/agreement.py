"""Whether two evaluations of the same model agree: numbers, and detections one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ld_hub.errors import EvaluationError
from ld_hub.evaluation.evaluator import DetectionEvaluator
from ld_hub.evaluation.metrics import DetectionMetrics
from ld_hub.hub.evidence import Numbers
from ld_hub.structures import ResultRow

Rows = Sequence[ResultRow]


@dataclass(frozen=True)
class Tolerance:
    """How far recomputed values may be from those of the artefact.

    Attributes:
        number: Of the numbers over all classes, as a fraction; 0.001 is the last digit that papers print.
        per_class: Of the AP of a class, which a single box of a rare class moves.
        box: Of box edges in px.
        score: Of scores.
        detections: Share of detections that may have no counterpart on the other side.
    """

    number: float = 0.001
    per_class: float = 0.01
    box: float = 1.0
    score: float = 0.01
    detections: float = 0.01


def differences(recorded: Numbers, metrics: Numbers, number: float, per_class: float, verb: str) -> list[str]:
    """Numbers of an artefact that differ from others by more than a tolerance, one line for each.

    Args:
        recorded: Of an evaluation artefact.
        metrics: The others.
        number: Tolerance of the numbers over all classes, as a fraction.
        per_class: Tolerance of the AP of a class.
        verb: How the others were found, for the lines.
    """
    lines = []
    pairs = ((recorded.stats, metrics.stats, number), (recorded.per_class, metrics.per_class, per_class))
    for told, found, tolerance in pairs:
        for name in [*told, *(name for name in found if name not in told)]:
            old, new = told.get(name), found.get(name)
            if old is None and new is None:
                continue
            if old is None or new is None or abs(old - new) > tolerance:
                lines.append(f"{name}: the artefact has {_number(old)}, {verb} {_number(new)}")
    counts = {"images": (recorded.images, metrics.images), "boxes": (recorded.boxes, metrics.boxes)}
    for name, (was, now) in counts.items():
        if was != now:
            lines.append(f"{name}: the artefact has {str(was)[:200]}, {verb} {str(now)[:200]}")
    return lines


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6f}"


def unmatched(recorded: Rows, computed: Rows, allowed: Tolerance) -> list[str]:
    """Detections without a counterpart on the other side, if they are too many: how many, and some of them.

    Args:
        recorded: Rows of a results file.
        computed: Rows to compare with.
        allowed: How near a counterpart is, and how many may have none.
    """
    lost, new = _without_counterpart(recorded, computed, allowed), _without_counterpart(computed, recorded, allowed)
    limit = allowed.detections * max(len(recorded), len(computed))
    if len(lost) <= limit and len(new) <= limit:
        return []
    lines = [f"{len(lost)} of {len(recorded)} recorded detections are not found again, {len(new)} are new"]
    for title, rows in (("recorded", lost), ("new", new)):
        lines += [
            f"{title}: image {row['image_id']}, category {row['category_id']}, score {row['score']:.4f}, "
            f"box {[round(side, 1) for side in row['bbox']]}"
            for row in rows[:2]
        ]
    return lines


def _without_counterpart(rows: Rows, others: Rows, allowed: Tolerance) -> list[ResultRow]:
    table: dict[tuple[int, int], list[ResultRow]] = {}
    for row in others:
        table.setdefault((row["image_id"], row["category_id"]), []).append(row)
    values = {key: _values(group) for key, group in table.items()}
    limits = np.array([allowed.box] * 4 + [allowed.score])
    empty = np.zeros((0, 5))
    return [
        row
        for row in rows
        if not (np.abs(values.get((row["image_id"], row["category_id"]), empty) - _values([row])) <= limits)
        .all(axis=1)
        .any()
    ]


def _values(rows: Rows) -> npt.NDArray[np.float64]:
    """``(K, 5)``: edges in px and score."""
    boxes = np.array([[*row["bbox"], row["score"]] for row in rows], dtype=np.float64).reshape(-1, 5)
    boxes[:, 2:4] += boxes[:, :2]
    return boxes


def read_detections(file: Path) -> list[ResultRow]:
    """Read a COCO results file.

    Args:
        file: As `DetectionEvaluator.save_detections` writes it.

    Raises:
        EvaluationError: If it is something else, or holds a number that is not finite or a negative size.
    """
    try:
        rows = json.loads(file.read_bytes())
        if not isinstance(rows, list):
            raise ValueError(f"it holds a {type(rows).__name__}")
        for row in rows:
            if {type(row["image_id"]), type(row["category_id"])} != {int} or len(row["bbox"]) != 4:
                raise ValueError(f"a row is {str(row)[:100]}")
            row["bbox"], row["score"] = [float(side) for side in row["bbox"]], float(row["score"])
            if not np.isfinite([*row["bbox"], row["score"]]).all():
                raise ValueError("a number is not finite")
            if min(row["bbox"][2:]) < 0:
                raise ValueError(f"bbox {row['bbox']} has a negative size; it is x, y, width, height")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise EvaluationError(f"'{file}' is not a COCO results file ({str(error)[:200]}).") from None
    return rows


def score_detections(
    rows: Rows,
    annotations: str | Path,
    category_ids: Sequence[int],
    label_names: Sequence[str],
    protocol: str = "coco",
) -> DetectionMetrics:
    """Metrics of the rows of a results file; images without a row count as images without a detection.

    Args:
        rows: As of `read_detections`.
        annotations: COCO instances file.
        category_ids: C ids of the classes there.
        label_names: C names.
        protocol: As of `DetectionEvaluator`.

    Raises:
        EvaluationError: If a row names an image or category that the annotations do not have.
    """
    evaluator = DetectionEvaluator(annotations, category_ids=category_ids, label_names=label_names, protocol=protocol)
    by_image: dict[int, list[ResultRow]] = {number: [] for number in evaluator.truth.image_ids}
    labels = {number: label for label, number in enumerate(category_ids)}
    for row in rows:
        if row["image_id"] not in by_image or row["category_id"] not in labels:
            raise EvaluationError(
                f"A detection names image {row['image_id']}, category {row['category_id']}: not both are of this data."
            )
        by_image[row["image_id"]].append(row)
    ordered = [row for image_id in sorted(by_image) for row in by_image[image_id]]
    state = {
        "image_ids": np.array(sorted(by_image), dtype=np.int64),
        "counts": np.array([len(by_image[image_id]) for image_id in sorted(by_image)], dtype=np.int64),
        "boxes": np.array([row["bbox"] for row in ordered], dtype=np.float64).reshape(-1, 4),
        "scores": np.array([row["score"] for row in ordered], dtype=np.float64),
        "labels": np.array([labels[row["category_id"]] for row in ordered], dtype=np.int64),
    }
    evaluator.merge([state])
    return evaluator.compute()
