"""Where a term looks: sets of rows of a batch, made from the assignment's own overlaps and the predictions.

A region is a function from a batch to a mask of rows and how much each matters. `select` applies the options that all
regions share and finds the rows, once per step for all terms that look at the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ld_hub.assigners import atss_threshold
from ld_hub.assigners.fcos_assigner import inside
from ld_hub.distillation.correspondence import require_common_classes
from ld_hub.distillation.inputs import Selection, TermInputs
from ld_hub.errors import ConfigError
from ld_hub.ops.boxes import area, centre_penalty, chunks
from ld_hub.registry import Registry
from ld_hub.structures import Assignment, DetectorSpec, Rows, StepCounts, Targets

Criterion = Literal["iof", "diou"]
Levels = Literal["all", "with_positives"]
OF_TARGETS = frozenset({"main", "vlr", "main+vlr", "inside_gt", "fine_grained"})  # regions around targets
OF_OVERLAPS: set[str] = set()  # regions made from overlaps of anchors and boxes
OF_CLASSES: set[str] = set()  # regions made from the scores of common classes
OF_TEACHER: set[str] = set()  # regions that the teacher's predictions decide


@dataclass(frozen=True)
class RegionConfig:
    """Where a term looks.

    Attributes:
        region: ``"main"`` positives; ``"vlr"`` valuable localization region (LD, Algorithm 1); ``"main+vlr"`` both;
            ``"all"`` rows on the images that the assigner does not ignore; ``"inside_gt"`` rows whose centre lies in
            a box, ``"outside_gt"`` all others; ``"fine_grained"`` rows that overlap a box nearly as well as the best
            of its rows; ``"confident"`` rows where the teacher sees an object; ``"gi"`` the ten rows of each level and
            image where the two disagree most.
        gamma: VLR only: lower bound as a share of the adaptive threshold.
        criterion: VLR only: ``"iof"`` as released, ``"diou"`` as the paper writes.
        nearly: Fine-grained only: least overlap as a share of the best row's.
        min_score: Confident only: least class score of the teacher.
        exclude_positives: Leave out the positives, in any region.
        levels: ``"with_positives"`` leaves out pyramid levels without a positive in this rank's batch, as BCKD's and
            LD's code does; the loss then depends on how a batch is split.
    """

    region: str = "main"
    gamma: float = 0.25
    criterion: Criterion = "iof"
    nearly: float = 0.5
    min_score: float = 0.5
    exclude_positives: bool = False
    levels: Levels = "all"

    def __post_init__(self) -> None:
        for name in ("gamma", "nearly", "min_score"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected a number from 0 to 1.")
        if self.criterion not in {"iof", "diou"}:
            raise ConfigError(f"criterion is {self.criterion!r}; expected 'iof' or 'diou'.")
        if self.levels not in {"all", "with_positives"}:
            raise ConfigError(f"levels is {self.levels!r}; expected 'all' or 'with_positives'.")
        REGIONS[self.region]

    @property
    def place(self) -> tuple[object, ...]:
        """The fields above: equal for terms that look at the same rows."""
        shared = (self.region, self.exclude_positives, self.levels)
        return (*shared, self.gamma, self.criterion, self.nearly, self.min_score)


class Region(NamedTuple):
    """Rows of a batch.

    Attributes:
        mask: ``(N, A)`` bool.
        importance: ``(N, A)`` how much each row matters, without gradient; None means the student's best class score
            (the w_i of GFL).
        dense: Whether nearly all rows are in it, so that picking them costs more than it saves.
    """

    mask: Tensor
    importance: Tensor | None = None
    dense: bool = False


RegionFunction = Callable[[TermInputs, RegionConfig], Region]
REGIONS: Registry[RegionFunction] = Registry("region")


def select(inputs: TermInputs, config: RegionConfig) -> Selection:
    """The rows of a region, from this step's cache if another term asked before."""
    inputs = inputs.own or inputs  # whatever a term compares, regions are of the student's own predictions
    if inputs.confident and config.region in OF_TARGETS:
        config = RegionConfig("confident", min_score=config.min_score, levels=config.levels)
    if config.place not in inputs.selections:
        inputs.selections[config.place] = _find(inputs, config)
    return inputs.selections[config.place]


@torch.no_grad()
def _find(inputs: TermInputs, config: RegionConfig) -> Selection:
    assignment = inputs.assignment
    mask, importance, dense = REGIONS[config.region](inputs, config)
    if config.exclude_positives:
        mask = mask & ~assignment.positive
    if config.levels == "with_positives":
        taking_part = StepCounts.local(assignment).positives > 0
        mask = mask & taking_part[assignment.priors.levels]
    if mask is assignment.positive:
        rows = assignment.rows  # found by the assigner, whose bound on their number is known
    elif dense:
        rows = _in_place(mask)
    else:
        rows = Rows.find(mask)
    weight = inputs.student_scores(rows) if importance is None else rows.gather(importance)
    return Selection(rows, weight * rows.weight)


def _in_place(mask: Tensor) -> Rows:
    """All rows, with weight 0 for those that are not in the mask."""
    flat = mask.flatten()
    return Rows(torch.arange(len(flat), device=flat.device), flat.float(), mask.shape[1], dense=True)


def main(inputs: TermInputs, config: RegionConfig) -> Region:
    """The positives (LD, arXiv 2102.12252, sec. 3.3)."""
    return Region(inputs.assignment.positive)


def everywhere(inputs: TermInputs, config: RegionConfig) -> Region:
    """All rows with a label weight: on the images, and not ignored by the assigner."""
    return Region(inputs.assignment.weights > 0, dense=True)


def valuable_localization(inputs: TermInputs, config: RegionConfig) -> Region:
    """The valuable localization region; importance is the best IoU with a ground truth it is valuable for."""
    weight = vlr_weights(inputs.assignment, inputs.targets, config.gamma, config.criterion)
    return Region(weight > 0, weight)


def main_and_valuable(inputs: TermInputs, config: RegionConfig) -> Region:
    """Both; a row of both counts once, with the larger of its importances."""
    valuable = vlr_weights(inputs.assignment, inputs.targets, config.gamma, config.criterion)
    positive = inputs.assignment.positive
    score = inputs.student.cls_logits.detach().amax(dim=2).sigmoid() * positive
    return Region(positive | (valuable > 0), torch.maximum(score, valuable.to(score.dtype)))


def inside_boxes(inputs: TermInputs, config: RegionConfig) -> Region:
    """Rows whose centre lies strictly inside a box, on every level, whatever sizes it answers for.

    Without the positives this is the VLR of FCOS (reference SPEC 4), with them the region of Inside-GT imitation.
    """
    assignment, targets = inputs.assignment, inputs.targets
    within = inside(assignment.priors, targets.boxes.to(assignment.priors.centers.dtype))
    return Region((within & targets.usable[..., None]).any(dim=1) & assignment.valid)


def outside_boxes(inputs: TermInputs, config: RegionConfig) -> Region:
    """Rows on the images whose centre lies in no box."""
    return Region(inputs.assignment.valid & ~inside_boxes(inputs, config).mask, dense=True)


def fine_grained(inputs: TermInputs, config: RegionConfig) -> Region:
    """Rows that overlap a box more than a share of what the best row of the image does (arXiv 1906.03609, sec. 3.1)."""
    overlaps = _overlaps(inputs.assignment, "fine_grained")  # 0 for crowds, padding, rows off the image
    best = overlaps.amax(dim=2, keepdim=True)
    return Region((overlaps > config.nearly * best).any(dim=1))


def confident(inputs: TermInputs, config: RegionConfig) -> Region:
    """Rows where the teacher's best class score is at least `min_score`; importance is that score."""
    mask = inputs.assignment.weights > 0
    pairs = inputs.pairs(_in_place(mask))
    score = pairs.partners.gather(inputs.teacher.cls_logits.amax(dim=2).sigmoid()) * pairs.weight
    score = score.view_as(mask)
    return Region(mask & (score >= config.min_score), score)


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
    overlaps, anchors = _overlaps(assignment, "vlr"), assignment.priors.anchors
    if anchors is None:
        raise AssertionError("overlaps without anchors")
    thresholds = assignment.thresholds
    boxes = targets.boxes.to(anchors.dtype)
    if thresholds is None:
        thresholds = atss_threshold(overlaps, assignment.priors, boxes, assignment.valid)
    weight = torch.zeros_like(assignment.weights, dtype=overlaps.dtype)
    for part in chunks(boxes.shape[1], assignment.valid.numel()):
        iou, bound = overlaps[:, part], thresholds[:, part, None]
        quality = _closeness(iou, boxes[:, part], anchors, criterion)
        valuable = (quality >= gamma * bound) & (quality < bound)
        weight = torch.maximum(weight, (iou * valuable).amax(dim=1))  # 0 for crowds, padding and rows off the image
    return weight


def _closeness(iou: Tensor, boxes: Tensor, anchors: Tensor, criterion: Criterion) -> Tensor:
    """The D of `vlr_weights`: ``(N, G, A)`` IoU to a new tensor of the same shape."""
    if criterion == "diou":
        return iou - centre_penalty(boxes, anchors)
    anchor_area = area(anchors)
    total = area(boxes)[..., None] + anchor_area
    over_anchor = (iou / (1 + iou)).mul_(total).div_(anchor_area.clamp(min=1e-6))  # intersection over anchor area
    return over_anchor.sub_(centre_penalty(boxes, anchors))


def require_region(config: RegionConfig, student: DetectorSpec, teacher: DetectorSpec) -> None:
    """Refuse a region that a pair has not.

    Raises:
        ConfigError: With the way out.
    """
    if student.points and config.region in OF_OVERLAPS:
        raise _no_anchors(config.region)
    if config.region in OF_CLASSES:
        require_common_classes(student, teacher)


def _no_anchors(region: str) -> ConfigError:
    return ConfigError(
        f"The region '{region}' needs anchors, and this student has points. Use the region 'inside_gt' (which "
        "without positives is what the recipe 'vlr' means for this family, see Recipe.for_family), or a student "
        "of an anchor family."
    )


def _overlaps(assignment: Assignment, region: str) -> Tensor:
    """``(N, G, A)`` IoU of anchors and boxes, or an error for students of points."""
    if assignment.overlaps is None:
        raise _no_anchors(region)
    return assignment.overlaps


def register_region(
    name: str, function: RegionFunction, *, needs: Literal["nothing", "overlaps", "teacher", "classes"] = "nothing"
) -> None:
    """Make a region available to terms.

    Args:
        name: What `RegionConfig.region` calls it.
        function: From a batch and the options to the rows.
        needs: What it is made from, so that pairs without it are refused before the first step: overlaps of anchors
            and boxes, which students of points have not; the teacher's predictions; scores of common classes, of both.
    """
    REGIONS.register(name, function)
    if needs == "overlaps":
        OF_OVERLAPS.add(name)
    if needs == "classes":
        OF_CLASSES.add(name)
    if needs in ("teacher", "classes"):
        OF_TEACHER.add(name)


register_region("main", main)
register_region("all", everywhere)
register_region("vlr", valuable_localization, needs="overlaps")
register_region("main+vlr", main_and_valuable, needs="overlaps")
register_region("inside_gt", inside_boxes)
register_region("outside_gt", outside_boxes)
register_region("fine_grained", fine_grained, needs="overlaps")
register_region("confident", confident, needs="teacher")
