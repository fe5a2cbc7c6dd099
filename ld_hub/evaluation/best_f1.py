"""From which score on detections are worth most: the score of best F1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ld_hub.evaluation.matching import Flags, Floats, Overlaps, match


def best_f1_scores(found: Overlaps, iou: float = 0.5, *, per_class: bool = False) -> tuple[Floats, Floats]:
    """The score at which to cut detections off so that F1, ``2 right / (right + wrong + boxes)``, is best.

    A detection is right as COCO counts it (`match`); those on ignored boxes are left out.

    Args:
        found: Detections and boxes.
        iou: Least overlap of a right detection.
        per_class: A score for each class, instead of one for all.

    Returns:
        ``(C,)`` scores, those of the last detection that is kept, and ``(C,)`` the F1 reached; 1 and 0 for classes
        of which nothing right was found.
    """
    matches = match(found, iou)
    kept = ~matches.excused
    groups = [found.det_label == label for label in range(found.num_classes)] if per_class else [np.ones_like(kept)]
    scores, reached = zip(
        *(
            _best(found.score[kept & group], (matches.box >= 0)[kept & group], boxes)
            for group, boxes in zip(groups, found.boxes if per_class else [found.boxes.sum()], strict=True)
        ),
        strict=True,
    )
    repeat = 1 if per_class else found.num_classes
    return np.repeat(scores, repeat), np.repeat(reached, repeat)


def _best(score: Floats, right: Flags, boxes: int) -> tuple[float, float]:
    """Of one group: the cut-off and its F1."""
    order = np.argsort(-score, kind="stable")
    count = np.arange(1, len(score) + 1)
    f1: npt.NDArray[np.float64] = 2 * np.cumsum(right[order]) / (count + boxes)
    last = np.append(np.diff(score[order]) != 0, True)[: len(score)]  # a cut-off keeps all detections of its score
    f1 = np.where(last, f1, 0.0)
    if not len(f1) or f1.max() == 0:
        return 1.0, 0.0
    best = int(f1.argmax())
    return float(score[order][best]), float(f1[best])
