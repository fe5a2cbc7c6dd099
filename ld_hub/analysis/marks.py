"""Which detections of one image are right, which are false, and which boxes were missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ld_hub.drawing import Color
from ld_hub.evaluation import GroundTruth
from ld_hub.evaluation.found import Found
from ld_hub.evaluation.matching import match, overlaps
from ld_hub.structures import ResultRow

Kind = Literal["false", "missed", "right", "excused"]

COLORS: dict[Kind, Color] = {  # told apart with any colour vision, on most pictures
    "false": (230, 60, 20),
    "missed": (255, 214, 10),
    "right": (20, 200, 110),
    "excused": (150, 150, 150),
}


@dataclass(frozen=True)
class Mark:
    """A box to be drawn.

    Attributes:
        box: xyxy px.
        label: 0..C-1.
        kind: Of a detection: ``right``, ``false``, or ``excused`` (on a crowd or a difficult object); of a true box:
            ``missed``.
        score: Of a detection.
    """

    box: tuple[float, float, float, float]
    label: int
    kind: Kind
    score: float | None = None


def marks_of(
    image_id: int,
    truth: GroundTruth,
    rows: Sequence[ResultRow],
    category_ids: Sequence[int],
    *,
    score: float,
    iou: float = 0.5,
    skip_ignored: bool = False,
) -> list[Mark]:
    """Judge the detections of an image, as `ld_hub.evaluation.studies.per_image` counts them.

    Args:
        image_id: Which image.
        truth: Boxes.
        rows: COCO results rows, of this image and others.
        category_ids: Category id of each label.
        score: Least score, exclusive.
        iou: Overlap from which a detection finds a box.
        skip_ignored: Whether boxes marked ``ignore`` are neither found nor missed.

    Returns:
        Detections, best score first, then missed boxes.
    """
    one = truth.only([image_id])
    mine = [row for row in rows if row["image_id"] == image_id and row["score"] > score]
    found = overlaps(one, Found.of(mine), category_ids, skip_ignored=skip_ignored)
    matches = match(found, iou)
    marks = []
    columns = zip(found.det_index.tolist(), found.det_label, matches.box, matches.excused, strict=True)
    for place, label, box, excused in columns:
        row = mine[place]
        kind: Kind = "right" if box >= 0 else "excused" if excused else "false"
        marks.append(Mark(_corners(row["bbox"]), int(label), kind, float(row["score"])))
    free = set(range(len(found.box_label))) - set(matches.box.tolist())
    missed = [index for index in sorted(free) if not found.ignored[index]]
    boxes = [one.annotations[found.box_index[index]]["bbox"] for index in missed]
    labels = found.box_label[missed].tolist()
    return marks + [Mark(_corners(box), label, "missed") for box, label in zip(boxes, labels, strict=True)]


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x, y, x + width, y + height
