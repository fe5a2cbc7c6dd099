"""GFL and LD heads: losses and gradients, through the criterion and the terms that the trainer uses."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ld_hub.assigners import ATSSAssigner, FCOSAssigner, MaxIoUAssigner
from ld_hub.distillation import Distiller, TermInputs, get_recipe
from ld_hub.distillation.regions import RegionConfig, select
from ld_hub.models.atss import ATSSCriterion
from ld_hub.models.fcos import FCOSCriterion
from ld_hub.models.gfocal import GFocalCriterion
from ld_hub.models.retinanet import RetinaNetCriterion
from ld_hub.ops.distribution import boxes_to_distances
from ld_hub.structures import Assignment
from tests.support import golden

OURS = {  # the first that the case has
    "distill_ld": ("loss_ld",),
    "distill_ld_vlr": ("loss_ld_vlr", "loss_ld_neg"),
    "distill_kd": ("loss_kd", "loss_cls_kd"),
    "distill_bckd_cls": ("loss_kd",),
    "distill_bckd_box": ("loss_score_kd",),
}
FAMILIES: dict[str, tuple[str, Any, Any]] = {
    "gfl": ("gfocal", ATSSAssigner(), GFocalCriterion),
    "atss": ("atss", ATSSAssigner(), ATSSCriterion),
    "fcos": ("fcos", FCOSAssigner(), FCOSCriterion),
    "retina": ("retinanet", MaxIoUAssigner(), RetinaNetCriterion),
}
CASES = golden.find("head_*")  # head_*_ldgfl_*: the imitation term loss_im enters neither class nor box gradients
CRASHES = {"head_LD_ldgfl_n_emptyimg", "head_LD_gfl_z", "head_LD_ldretina_n", "head_LD_ldatss_n",
           "head_BCKD_bckd_n", "head_BCKD_bckd_basecfg_c"}  # fmt: skip


def assign(case: SimpleNamespace) -> Assignment:
    assignment: Assignment = FAMILIES[case.family][1](case.student.priors, case.targets, case.info["num_classes"])
    return assignment


def recipe_of(case: SimpleNamespace) -> str:
    """Our name of the method that the case's configuration asks for."""
    return "bckd" if case.info["head_cfg"].get("loss_kd", {}).get("type") == "NovelKDLoss" else "vlr"


def losses_of(case: SimpleNamespace, reference: str | None) -> dict[str, Tensor]:
    """Detection and distillation losses, in a reading of a code base or (None) in the sound default."""
    family, _, criterion_class = FAMILIES[case.family]
    distilling = case.info["kind"].startswith("ld")
    kind = case.info["head_cfg"]["loss_bbox"]["type"].removesuffix("Loss").lower()
    assignment = assign(case)
    if reference is None:
        criterion = criterion_class(case.coder, box_loss=kind)
    else:
        criterion = criterion_class.published(case.coder, reference, distilling=distilling, box_loss=kind)
    losses = criterion(case.student, assignment)
    if distilling:
        inputs = TermInputs(case.student, case.teacher, assignment, case.targets)
        losses |= Distiller(get_recipe(recipe_of(case)).for_family(family), reference=reference)(inputs)
    return losses


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("stem", [s for s in CASES if not golden.load(s)[0]["errors"]])
def test_losses_and_gradients(stem: str, precision: str) -> None:
    case = golden.head_case(stem, precision)
    tolerance = golden.TOLERANCE[precision]
    # the official float64 run of RetinaNet makes anchors, and what the VLR weighs by them, in float32: all its other
    # losses agree to 1e-15, the VLR's and its share of the box gradients to that rounding
    rounded = 1e-7 if case.info["kind"] == "ldretina" and precision == "f64" else tolerance
    losses = losses_of(case, case.info["fork"].lower())
    for name, loss in losses.items():
        stored = case.info["losses"][precision]
        levels = next(stored[key] for key in OURS.get(name, (name,)) if key in stored)
        assert golden.error(loss.detach(), sum(levels)) <= (rounded if name == "distill_ld_vlr" else tolerance), name
    sum(losses.values()).backward()
    for kind, leaves in (("cls", case.cls), ("reg", case.box), ("cent", case.quality or [])):
        allowed = rounded if kind == "reg" else tolerance
        for level, leaf in enumerate(leaves):
            grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            key = f"{precision}/grad_{kind}{level}"
            if key in case.arrays.files:
                expected = case.arrays[key]
                if math.isfinite(abs(expected).sum()) and not abs(expected).max() > 0:
                    assert grad.abs().max() <= allowed, key
                else:
                    assert golden.error(grad, expected) <= allowed, key
            key = f"{precision}/gradsum_{kind}{level}"
            if key in case.arrays.files:
                assert golden.sums_error(grad, case.arrays[key]) <= allowed, key


@pytest.mark.parametrize("stem", [s for s in CASES if "tgt/labels0" in golden.load(s)[1].files])
def test_targets(stem: str) -> None:
    case = golden.head_case(stem, "f32")
    assignment = assign(case)
    start = 0
    for level, size in enumerate(assignment.priors.level_sizes):
        part = slice(start, start + size)
        start += size
        stored = {
            k: torch.as_tensor(case.arrays[f"tgt/{k}{level}"])
            for k in ("labels", "label_weights", "bbox_targets", "bbox")
            if f"tgt/{k}{level}" in case.arrays.files
        }
        labels = stored["labels"].long().reshape(-1, size)
        if case.family == "fcos":  # no label weights; C + 1 marks the rows inside a box that are not positive
            marked, background = labels > case.info["num_classes"], torch.full_like(labels, case.info["num_classes"])
            assert torch.equal(assignment.labels[:, part], torch.where(marked, background, labels))
            positive = assignment.positive[:, part]
            centers, boxes = assignment.priors.centers[part].expand(len(labels), -1, 2), assignment.boxes[:, part]
            distances = boxes_to_distances(centers, boxes)[positive]
            assert golden.error(distances, stored["bbox"].reshape(*labels.shape, 4)[positive]) <= 1e-6
            if case.info["kind"] == "ldfcos":
                inputs = TermInputs(case.student, case.teacher, assignment, case.targets)
                rows = select(inputs, RegionConfig(region="inside_gt", exclude_positives=True)).rows
                found = torch.zeros(assignment.labels.numel(), dtype=torch.bool).index_fill(0, rows.index, True)
                assert torch.equal(found.view_as(assignment.labels)[:, part], marked)
            continue
        assert torch.equal(assignment.labels[:, part], labels)
        assert torch.equal(assignment.weights[:, part], stored["label_weights"].float())
        assert golden.error(assignment.boxes[:, part], stored["bbox_targets"]) <= 1e-6


@pytest.mark.parametrize("stem", [s for s in CASES if s in CRASHES])
def test_sound_where_the_official_code_is_not(stem: str) -> None:
    """An image without objects, a batch without positives: the official code raises or gives NaN."""
    case = golden.head_case(stem, "f32")
    assert case.info["errors"] or math.isnan(case.info["losses"]["f32"]["total"])
    losses = losses_of(case, None)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(leaf.grad.isfinite().all() for leaf in case.cls + case.box if leaf.grad is not None)
    assert losses["loss_cls"].item() > 0
