"""GFL and LD heads: losses and gradients, through the criterion and the terms that the trainer uses."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ld_hub.assigners import ATSSAssigner
from ld_hub.distillation import Distiller, TermInputs
from ld_hub.models.gfocal import GFocalCriterion
from ld_hub.structures import Assignment
from tests.support import golden

OURS = {"distill_ld": "loss_ld", "distill_ld_vlr": "loss_ld_vlr", "distill_kd": "loss_kd"}
# head_BCKD_bckd*: the terms of BCKD; head_*_ldgfl_*: the imitation term loss_im enters neither class nor box gradients
CASES = [s for pattern in ("head_*_gfl_*", "head_LD_ldgfl_*") for s in golden.find(pattern)]


def assign(case: SimpleNamespace) -> Assignment:
    return ATSSAssigner()(case.student.priors, case.targets, case.info["num_classes"])


def losses_of(case: SimpleNamespace, reference: str | None) -> dict[str, Tensor]:
    """Detection and distillation losses, in a reading of a code base or (None) in the sound default."""
    distilling = case.info["kind"] == "ldgfl"
    kind = case.info["head_cfg"]["loss_bbox"]["type"].removesuffix("Loss").lower()
    assignment = assign(case)
    if reference is None:
        criterion = GFocalCriterion(case.coder, box_loss=kind)
    else:
        criterion = GFocalCriterion.published(case.coder, reference, distilling=distilling, box_loss=kind)
    losses = criterion(case.student, assignment)
    if distilling:
        inputs = TermInputs(case.student, case.teacher, assignment, case.targets)
        losses |= Distiller("vlr", reference=reference)(inputs)
    return losses


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("stem", [s for s in CASES if not golden.load(s)[0]["errors"]])
def test_losses_and_gradients(stem: str, precision: str) -> None:
    case = golden.head_case(stem, precision)
    tolerance = golden.TOLERANCE[precision]
    losses = losses_of(case, case.info["fork"].lower())
    for name, loss in losses.items():
        levels = case.info["losses"][precision][OURS.get(name, name)]
        assert golden.error(loss.detach(), sum(levels)) <= tolerance, name
    sum(losses.values()).backward()
    for kind, leaves in (("cls", case.cls), ("reg", case.box)):
        for level, leaf in enumerate(leaves):
            grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            key = f"{precision}/grad_{kind}{level}"
            if key in case.arrays.files:
                expected = case.arrays[key]
                if math.isfinite(abs(expected).sum()) and not abs(expected).max() > 0:
                    assert grad.abs().max() <= tolerance, key
                else:
                    assert golden.error(grad, expected) <= tolerance, key
            key = f"{precision}/gradsum_{kind}{level}"
            if key in case.arrays.files:
                assert golden.sums_error(grad, case.arrays[key]) <= tolerance, key


@pytest.mark.parametrize("stem", [s for s in CASES if "tgt/labels0" in golden.load(s)[1].files])
def test_targets(stem: str) -> None:
    case = golden.head_case(stem, "f32")
    assignment = assign(case)
    start = 0
    for level, size in enumerate(assignment.priors.level_sizes):
        part = slice(start, start + size)
        start += size
        stored = {
            k: torch.as_tensor(case.arrays[f"tgt/{k}{level}"]) for k in ("labels", "label_weights", "bbox_targets")
        }
        assert torch.equal(assignment.labels[:, part], stored["labels"].long())
        assert torch.equal(assignment.weights[:, part], stored["label_weights"].float())
        assert golden.error(assignment.boxes[:, part], stored["bbox_targets"]) <= 1e-6


@pytest.mark.parametrize("stem", [s for s in CASES if s in {"head_LD_ldgfl_n_emptyimg", "head_LD_gfl_z"}])
def test_sound_where_the_official_code_is_not(stem: str) -> None:
    """An image without objects, a batch without positives: the official code raises or gives NaN."""
    case = golden.head_case(stem, "f32")
    assert case.info["errors"] or math.isnan(case.info["losses"]["f32"]["total"])
    losses = losses_of(case, None)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(leaf.grad.isfinite().all() for leaf in case.cls + case.box if leaf.grad is not None)
    assert losses["loss_cls"].item() > 0
