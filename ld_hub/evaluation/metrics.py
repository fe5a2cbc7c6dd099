"""The numbers of one evaluation, to read and to store."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ld_hub.hub.evidence import PROTOCOLS, STAT_NAMES, TITLES, VOC_NAMES, Numbers

NONE = "–"  # shown where there was nothing to find
MOST_COUNTED = 100  # detections per class and image that COCO looks at
MOST_OF_IMAGE = 300  # detections per image that LVIS looks at


@dataclass(frozen=True)
class DetectionMetrics(Numbers):
    """Box metrics of one set of detections, as fractions 0..1.

    A number is None where nothing could be found: no ground truth of that class or size on the scored images.
    None never enters a mean. Printing shows `table`.

    Attributes:
        stats: COCO has 12: AP (mean over IoU 0.50:0.95), AP50, AP75, AP of small (< 32² px), medium and large (> 96²
            px) objects, and average recall with 1, 10, 100 detections per class and image and by size. VOC has 11:
            AP50, AP55, ..., AP95, and their mean AP. LVIS has 13: COCO's AP, also over rare, common and frequent
            classes, and average recall with 300 detections per image.
        per_class: AP of each class by name, in the order of the model's classes.
        boxes: Ground-truth boxes of each class by name, crowds aside, for VOC also difficult ones.
        images: Number of images scored.
        detections: Number of detections given.
        not_counted: How many of these the protocol leaves out: those beyond COCO's 100 best per class and image,
            or LVIS' 300 best per image.
        protocol: ``"coco"``, ``"voc07"``, ``"voc12"`` or ``"lvis"``.
    """

    def __getitem__(self, name: str) -> float | None:
        return self.stats[name]

    def __str__(self) -> str:
        return self.table()

    def table(self, per_class: bool = True) -> str:
        """Text of at most 80 columns, numbers times 100 as papers print them.

        Args:
            per_class: Whether to list the classes too, best AP first; classes without ground truth come last.
        """
        lines = [f"{TITLES[self.protocol]}, x100: {self.images} images, {self.detections} detections"]
        if self.not_counted:
            most = f"COCO counts the {MOST_COUNTED} best of each class and image"
            if self.protocol == "lvis":
                most = f"LVIS counts the {MOST_OF_IMAGE} best of each image"
            lines.append(f"{self.not_counted} detections were not counted: {most}")
        known = PROTOCOLS[self.protocol]
        for names in (known[:6], known[6:]):
            lines.append("  ".join(f"{name:>6}" for name in names))
            lines.append("  ".join(f"{_percent(self.stats.get(name)):>6}" for name in names))
        if per_class and self.per_class:
            lines += ["", *self._class_lines()]
        return "\n".join(lines)

    def _class_lines(self) -> list[str]:
        """The classes in one column, or in two where there are many."""
        ordered = sorted(self.per_class, key=self._class_key)
        columns = 2 if len(ordered) > 12 else 1
        wide = max(5, min(22 if columns == 2 else 60, max(_width(name) for name in ordered)))
        head = f"{_fit('class', wide)}  {'AP':>5}  {'boxes':>6}"
        cells = [
            f"{_fit(name, wide)}  {_percent(self.per_class[name]):>5}  {self.boxes.get(name, NONE):>6}"
            for name in ordered
        ]
        rows = -(-len(cells) // columns)
        parts = [cells[start : start + rows] for start in range(0, len(cells), rows)]
        lines = ["    ".join([head] * len(parts))]
        lines += ["    ".join(part[k] for part in parts if k < len(part)) for k in range(rows)]
        return lines

    def _class_key(self, name: str) -> tuple[bool, float, str]:
        ap = self.per_class[name]
        return ap is None, 0.0 if ap is None else -ap, name


def summarize(precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """The 12 COCO numbers from the scorer's arrays, in which -1 marks "no ground truth".

    Args:
        precision: ``(10, 101, K, 4, 3)``: IoU thresholds, recall levels, classes, sizes (all, s, m, l), 1/10/100
            detections.
        recall: ``(10, K, 4, 3)``, same axes.
    """
    ap, ar = precision[..., 2], recall
    slices = (ap[..., 0], ap[0, ..., 0], ap[5, ..., 0], ap[..., 1], ap[..., 2], ap[..., 3])
    recalls = (ar[..., 0, 0], ar[..., 0, 1], ar[..., 0, 2], ar[..., 1, 2], ar[..., 2, 2], ar[..., 3, 2])
    return {name: mean_found(part) for name, part in zip(STAT_NAMES, slices + recalls, strict=True)}


def summarize_voc(ap: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """The 11 VOC numbers from AP by IoU threshold and class ``(10, C)``, in which -1 marks "no ground truth"."""
    return {name: mean_found(part) for name, part in zip(VOC_NAMES, (ap, *ap), strict=True)}


def mean_found(values: npt.NDArray[np.float64]) -> float | None:
    """Mean of the entries that are not -1; None if there are none."""
    found = values[values > -1]
    return float(np.mean(found)) if found.size else None


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _width(text: str) -> int:
    """Terminal columns of a text; East Asian wide letters take two."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _fit(text: str, width: int) -> str:
    """Cut or fill a text to exactly `width` terminal columns."""
    if _width(text) > width:
        while _width(text) > width - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (width - _width(text))
