"""What a teacher found on images without labels, as targets: boxes, classes, and its scores as their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ld_hub.errors import ConfigError
from ld_hub.structures import Detections, ScoredTargets


@dataclass(frozen=True)
class Thresholds:
    """From which score on a detection counts, by class of the student.

    Attributes:
        sure: C scores; a detection of at least this one is a target.
        unsure: C scores; one between the two is neither target nor background.

    Raises:
        ConfigError: If there are not as many, a score is not in (0, 1], or an unsure one is above the sure one.
    """

    sure: tuple[float, ...]
    unsure: tuple[float, ...]

    @classmethod
    def same(cls, sure: float, classes: int) -> Thresholds:
        """One score for all classes, with nothing between sure and unsure."""
        return cls((sure,) * classes, (sure,) * classes)

    def __post_init__(self) -> None:
        if len(self.sure) != len(self.unsure):
            raise ConfigError(f"There are {len(self.sure)} thresholds of sure and {len(self.unsure)} of unsure boxes.")
        for least, most in zip(self.unsure, self.sure, strict=True):
            if not 0 < least <= most <= 1:
                raise ConfigError(
                    f"Thresholds of scores are {least:g} (unsure) and {most:g} (sure); "
                    "expected 0 < unsure <= sure <= 1."
                )


def scored_targets(
    found: Sequence[Detections], labels: Tensor, thresholds: Thresholds, image_sizes: Tensor
) -> ScoredTargets:
    """Detections as targets.

    Args:
        found: Of each of the N images, boxes in px of the padded batch image.
        labels: ``(C',)`` int64, the student's class of each of the teacher's; -1 for those that it does not have.
        thresholds: Scores from which a detection counts.
        image_sizes: ``(N, 2)`` height, width in px before padding.

    Returns:
        Targets padded to the largest number of boxes that count.
    """
    device = image_sizes.device
    sure_at, unsure_at = (torch.tensor(values, device=device) for values in (thresholds.sure, thresholds.unsure))
    kept = []
    for each in found:  # one entry per image; what follows a NMS is per image by nature
        label = labels[each.labels]
        counts = (label >= 0) & (each.scores >= unsure_at[label.clamp(min=0)])
        kept.append((each.boxes[counts], label[counts], each.scores[counts]))
    most = max((len(label) for _, label, _ in kept), default=0)
    dtype = found[0].boxes.dtype if found else torch.float32
    shape = (len(found), most)
    boxes, scores = (torch.zeros(*shape, *rest, dtype=dtype, device=device) for rest in ((4,), ()))
    label_grid = torch.zeros(shape, dtype=torch.int64, device=device)
    valid = torch.zeros(shape, dtype=torch.bool, device=device)
    for n, (box, label, score) in enumerate(kept):
        boxes[n, : len(label)], scores[n, : len(label)] = box, score
        label_grid[n, : len(label)], valid[n, : len(label)] = label, True
    return ScoredTargets(
        boxes=boxes,
        labels=label_grid,
        valid=valid,
        crowd=torch.zeros_like(valid),
        image_sizes=image_sizes,
        scores=scores,
        sure=valid & (scores >= sure_at[label_grid]),
    )
