"""The choice of boxes from rows, in NumPy: what `ld_hub.layers.postprocess` does with torch.

Shapes: A rows and C classes of one image, L levels, K candidates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ld_hub.runtime.exported_files import Choice, ExportedError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def choose(
    boxes: Floats, scores: Floats, quality: Floats, level_sizes: Ints, choice: Choice
) -> tuple[Floats, Floats, Ints]:
    """Filter, suppress and cap the rows of one image.

    Args:
        boxes: ``(A, 4)`` xyxy px.
        scores: ``(A, C)`` class scores, 0 where a row takes no part.
        quality: ``(A,)`` what a chosen box's score is multiplied by.
        level_sizes: ``(L,)`` rows of each level.
        choice: Settings.

    Returns:
        Boxes ``(D, 4)``, scores and labels ``(D,)``, best first.

    Raises:
        ExportedError: If the settings ask for another NMS than the greedy one.
    """
    if choice.nms != "hard":
        raise ExportedError(f"nms is {choice.nms!r}; without torch there is 'hard' alone. Use ld_hub itself for it.")
    pair = choice.prefilter == "pair"
    ranking = scores.max(axis=1) * (1 if pair else quality)
    rows, labels, start = [], [], 0
    for count in level_sizes.tolist():
        best = np.argsort(-ranking[start : start + count], kind="stable")[: choice.nms_pre] + start
        place, label = np.nonzero(scores[best] > choice.score_threshold)
        if pair:
            order = np.argsort(-scores[best[place], label], kind="stable")[: choice.nms_pre]
            place, label = place[order], label[order]
        rows.append(best[place])
        labels.append(label)
        start += count
    row, label = np.concatenate(rows), np.concatenate(labels)
    score = scores[row, label] * quality[row]
    kept = suppress(boxes[row], score, label, choice.nms_iou)[: choice.max_detections]
    return boxes[row][kept], score[kept], label[kept]


def suppress(boxes: Floats, scores: Floats, labels: Ints, threshold: float) -> Ints:
    """Greedy NMS within each class: indices of the kept boxes, best score first."""
    order = np.argsort(-scores, kind="stable")
    wide = boxes.astype(np.float64)
    area = (wide[:, 2] - wide[:, 0]) * (wide[:, 3] - wide[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        corner = np.maximum(wide[best, :2], wide[order, :2])
        sides = (np.minimum(wide[best, 2:], wide[order, 2:]) - corner).clip(min=0)
        shared = sides.prod(axis=1)
        union = area[best] + area[order] - shared
        over = shared > threshold * union
        order = order[~(over & (labels[order] == labels[best]))]
    return np.array(kept, np.int64)
