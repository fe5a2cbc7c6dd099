"""Where a term looks: sets of rows of a batch, made from the assignment's own overlaps.

A region returns a `Selection`; it is found once per step and shared by all terms that name it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ld_hub.assigners import atss_threshold
from ld_hub.assigners.fcos import inside
from ld_hub.distillation.inputs import Selection, TermInputs
from ld_hub.errors import ConfigError
from ld_hub.ops.boxes import area, centre_penalty
from ld_hub.registry import Registry
from ld_hub.structures import Assignment, Rows, Targets

Criterion = Literal["iof", "diou"]
RegionFunction = Callable[[TermInputs, float, Criterion], Selection]

REGIONS: Registry[RegionFunction] = Registry("region")


def select(inputs: TermInputs, region: str, gamma: float, criterion: Criterion) -> Selection:
    """The rows of a region, from this step's cache if another term asked before."""
    key = (region, gamma, criterion)
    if key not in inputs.selections:
        inputs.selections[key] = REGIONS[region](inputs, gamma, criterion)
    return inputs.selections[key]


def main(inputs: TermInputs, gamma: float, criterion: Criterion) -> Selection:
    """The positives; importance is the student's best class score (LD, arXiv 2102.12252, sec. 3.3)."""
    rows = inputs.assignment.rows
    return Selection(rows, inputs.student_scores(rows) * rows.weight)


def everywhere(inputs: TermInputs, gamma: float, criterion: Criterion) -> Selection:
    """All rows on the images; importance is the student's best class score."""
    rows = Rows.find(inputs.assignment.valid)
    return Selection(rows, inputs.student_scores(rows) * rows.weight)


def valuable_localization(inputs: TermInputs, gamma: float, criterion: Criterion) -> Selection:
    """The valuable localization region; importance is the best IoU with a ground truth it is valuable for."""
    weight = vlr_weights(inputs.assignment, inputs.targets, gamma, criterion)
    rows = Rows.find(weight > 0, dtype=weight.dtype)
    return Selection(rows, rows.gather(weight))


def valuable_background(inputs: TermInputs, gamma: float, criterion: Criterion) -> Selection:
    """The valuable localization region without the positives, as LD's RetinaNet head takes it."""
    weight = vlr_weights(inputs.assignment, inputs.targets, gamma, criterion)
    weight = torch.where(inputs.assignment.positive, 0, weight)
    rows = Rows.find(weight > 0, dtype=weight.dtype)
    return Selection(rows, rows.gather(weight))


def inside_background(inputs: TermInputs, gamma: float, criterion: Criterion) -> Selection:
    """Rows inside a box that are not positive, FCOS's VLR; importance is the student's best class score.

    Every level takes part, whatever sizes it answers for (reference SPEC 4).
    """
    assignment, targets = inputs.assignment, inputs.targets
    within = inside(assignment.priors, targets.boxes.to(assignment.priors.centers.dtype))
    within = (within & targets.usable[..., None]).any(dim=1) & assignment.valid
    rows = Rows.find(within & ~assignment.positive)
    return Selection(rows, inputs.student_scores(rows) * rows.weight)


@torch.no_grad()
def vlr_weights(assignment: Assignment, targets: Targets, gamma: float = 0.25, criterion: Criterion = "iof") -> Tensor:
    """Weight of each row in the valuable localization region (LD, Algorithm 1).

    An anchor is valuable for a ground truth g if ``gamma * t_g <= D < t_g``, t_g being the adaptive threshold of
    ATSS. The paper takes D = DIoU. Both published code bases compute ``IoF - rho^2 / c^2`` instead, with the overlap
    divided by the anchor's own area (reference SPEC 2); the published numbers were made with it.

    Args:
        assignment: Of the step; it must have kept overlaps. Thresholds are made here where it has none.
        targets: Ground truths of the same batch.
        gamma: Lower bound as a share of the threshold.
        criterion: ``"iof"`` as released or ``"diou"`` as written.

    Returns:
        ``(N, A)``, 0 outside the region.
    """
    anchors, overlaps, thresholds = assignment.priors.anchors, assignment.overlaps, assignment.thresholds
    if anchors is None or overlaps is None:
        raise ConfigError(
            "The region 'vlr' needs anchors, and this student has points. Use the region 'inside', which is what the "
            "recipe 'vlr' means for this family (Recipe.for_family), or a student of an anchor family."
        )
    boxes = targets.boxes.to(anchors.dtype)
    if thresholds is None:
        thresholds = atss_threshold(overlaps, assignment.priors, boxes, assignment.valid)
    if criterion == "iof":
        anchor_area = area(anchors)
        total = area(boxes)[..., None] + anchor_area
        quality = overlaps / (1 + overlaps) * total / anchor_area.clamp(min=1e-6)  # intersection over anchor area
    else:
        quality = overlaps.clone()
    quality -= centre_penalty(boxes, anchors)
    bound = thresholds[..., None]
    inside = (quality >= gamma * bound) & (quality < bound)
    return (overlaps * inside).amax(dim=1)  # overlaps are 0 for crowds, padding and rows off the image


REGIONS.register("main", main)
REGIONS.register("all", everywhere)
REGIONS.register("vlr", valuable_localization)
REGIONS.register("vlr_background", valuable_background)
REGIONS.register("inside", inside_background)
