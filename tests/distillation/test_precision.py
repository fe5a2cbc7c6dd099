"""Networks in bfloat16, terms in float32: every recipe between real detectors under autocast."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import ld_hub
from ld_hub.distillation import Distiller, get_recipe, list_recipes
from ld_hub.engine.detection_task import total_loss
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.structures import ImageBatch, Targets
from tests.distillation.test_cross_head import batch, detector, terms


def in_float32(images: ImageBatch) -> ImageBatch:
    assert images.targets is not None
    targets = {f.name: getattr(images.targets, f.name) for f in dataclasses.fields(Targets)}
    targets |= {name: targets[name].float() for name in ("boxes", "image_sizes")}
    sides = {name: getattr(images, name).float() for name in ("images", "image_sizes", "original_sizes")}
    return dataclasses.replace(images, targets=Targets(**targets), **sides)


@pytest.mark.parametrize(("student", "teacher"), [("gfocal", "atss_bins"), ("fcos", "gfocal"), ("retinanet", "fcos")])
def test_bfloat16_is_near_float32(student: str, teacher: str) -> None:
    models = [detector(family, seed).float().eval() for seed, family in enumerate((student, teacher), 1)]
    images, seen = in_float32(batch()), 0
    for name in list_recipes():
        recipe = get_recipe(name)
        random = {key: {"masked": 0.0} for key, term in recipe.terms.items() if term.kind == "mgd"}
        torch.manual_seed(0)
        try:
            task = DistillationTask(*models, Distiller(recipe.with_terms(**random)))
        except ld_hub.errors.ConfigError:
            assert student != "gfocal"  # no bins, or no anchors
            continue
        task.eval()
        expected = terms(task(images))
        with torch.autocast("cpu", torch.bfloat16):
            losses = task(images)
        for term, value in terms(losses).items():
            assert value.dtype == torch.float32
            assert value.item() == pytest.approx(expected[term].item(), rel=0.05), name
        total_loss(losses).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())
        task.zero_grad()
        seen += 1
    assert seen >= 14
