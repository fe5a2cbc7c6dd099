"""GID: imitation at general instances, the places where teacher and student disagree most (arXiv 2103.02340, sec. 3.2).

Shapes: N images, A rows of all levels, B rows of one level, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.methods import ld
from ld_hub.distillation.methods.imitation import FeatureMSEConfig
from ld_hub.distillation.recipes import Recipe, register_recipe
from ld_hub.distillation.regions import Region, RegionConfig, register_region
from ld_hub.ops.boxes import overlap
from ld_hub.papers import Paper, register_paper
from ld_hub.structures import Rows

PAPER = register_paper(
    Paper(
        "2103.02340",
        "dai2021gid",
        "General Instance Distillation for Object Detection",
        "Dai, Xing and Jiang, Zeren and Wu, Zhao and Bao, Yiping and Wang, Zhicheng and Liu, Si and Zhou, Erjin",
        2021,
        "CVPR",
    )
)

INSTANCES, SUPPRESSION = 10, 0.3  # per level (and image); the IoU above which the weaker of two instances is dropped


def general_instances(inputs: TermInputs, config: RegionConfig) -> Region:
    """The ten rows of each level and image with the largest class disagreement, after NMS; importance is 1."""
    score, boxes = disagreement(inputs)
    return _region(inputs, score.masked_fill(~inputs.assignment.valid, -torch.inf), boxes)


def general_instances_of_batch(inputs: TermInputs, config: RegionConfig) -> Region:
    """The same as LD's code takes them (reference SPEC 2): ten of each level of this rank's whole batch.

    Boxes of different images suppress each other, and rows on the padding take part, with boxes around the origin.
    """
    score, boxes = disagreement(inputs)
    origin = inputs.student.priors.centers.repeat(1, 2)
    boxes = torch.where(inputs.assignment.valid[..., None], boxes, boxes - origin)
    return _region(inputs, score, boxes, together=True)


@torch.no_grad()
def disagreement(inputs: TermInputs) -> tuple[Tensor, Tensor]:
    """How much the class scores of a row differ, and the box of the side that is surer there.

    Returns:
        ``(N, A)`` largest difference over classes, -inf for rows without a partner; and
        ``(N, A, 4)`` xyxy px.
    """
    images = len(inputs.student.box)
    pairs = inputs.pairs(Rows.every(torch.ones_like(inputs.assignment.valid), inputs.student.box.dtype))
    student, teacher = (logits.sigmoid() for logits in pairs.classes())
    difference = teacher - student
    score, where = difference.abs().max(dim=1)
    mine, theirs = pairs.boxes()
    boxes = torch.where(difference.gather(1, where[:, None]) >= 0, theirs, mine)  # the teacher's where it is surer
    score = score.masked_fill(pairs.weight == 0, -torch.inf)
    return score.view(images, -1), boxes.view(images, -1, 4)


@torch.no_grad()
def _region(inputs: TermInputs, score: Tensor, boxes: Tensor, *, together: bool = False) -> Region:
    masks, sizes = [], inputs.student.priors.level_sizes
    for level_score, level_boxes in zip(score.split(sizes, dim=1), boxes.split(sizes, dim=1), strict=True):
        if together:
            kept = suppress(level_score.reshape(1, -1), level_boxes.reshape(1, -1, 4)).view_as(level_score)
        else:
            kept = suppress(level_score, level_boxes)
        masks.append(kept)
    mask = torch.cat(masks, dim=1)
    return Region(mask, mask.to(score.dtype))


def suppress(score: Tensor, boxes: Tensor, most: int = INSTANCES, iou: float = SUPPRESSION) -> Tensor:
    """The first rows that greedy non-maximum suppression keeps, without looking at any number on the host.

    Args:
        score: ``(N, B)``; -inf for rows that take no part.
        boxes: ``(N, B, 4)`` xyxy.
        most: Rows to keep.
        iou: Rows that overlap a kept one by more are dropped.

    Returns:
        ``(N, B)`` bool, True for at most `most` rows of each batch entry.
    """
    kept = torch.zeros_like(score, dtype=torch.bool)
    for _ in range(min(most, score.shape[1])):
        best, where = score.max(dim=1, keepdim=True)  # (N, 1)
        kept = kept.scatter(1, where, kept.gather(1, where) | (best > -torch.inf))
        chosen = boxes.gather(1, where[..., None].expand(-1, -1, 4)).expand_as(boxes)
        overlaps = overlap(chosen.reshape(-1, 4), boxes.reshape(-1, 4)).view_as(score)
        score = score.masked_fill(overlaps > iou, -torch.inf).scatter(1, where, -torch.inf)
    return kept


register_region("gi", general_instances, needs="classes")
register_region("gi_batch", general_instances_of_batch, needs="classes")
register_recipe(
    Recipe(
        "gi",
        {"feature": FeatureMSEConfig(region="gi")},
        "imitation where the two disagree most (GID)",
        paper=PAPER.address,
    )
)
register_recipe(
    Recipe(
        "vlr_gi",
        {**ld.MAIN, "feature": FeatureMSEConfig(region="gi")},
        "vlr and imitation where the two disagree most",
        paper=ld.PAPER.address,
        families=ld.FAMILIES,
    )
)
