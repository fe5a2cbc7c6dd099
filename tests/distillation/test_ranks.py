"""One, two and four ranks: the same gradients of every recipe, on real detectors in float64."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

import ld_hub
from ld_hub.distillation import Distiller, get_recipe, list_recipes
from ld_hub.distillation.scored_targets import Thresholds
from ld_hub.engine.detection_task import step_counts
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.lessons import DenseLooker
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.dist import leave, sum_over_ranks, world_size
from ld_hub.structures import ImageBatch, Targets, Unlabeled

PAIRS = {"gfocal": "gfocal", "fcos": "retinanet"}  # bins; points without bins, taught by nine anchors per cell
LESSON = "unlabeled"
SPLIT = {1: [[0, 1, 2, 3]], 2: [[0, 2], [3, 1]], 4: [[2], [0], [3], [1]]}


def detector(family: str, seed: int, channels: int) -> DenseDetector:
    torch.manual_seed(seed)
    sizes = {"fpn_channels": channels, "head_width": channels, "head_depth": 3, "num_classes": 3, "norm_eval": True}
    model = ld_hub.create_model(family, backbone="test_resnet", **sizes)
    for parameter in model.head.parameters():  # far from the small numbers that heads start with
        nn.init.normal_(parameter, std=0.2)
    return model.double()


def batch() -> ImageBatch:
    """Four images of several sizes, the last without objects."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, generator=random, dtype=torch.float64)
    sizes = torch.tensor([[64.0, 64.0], [32.0, 64.0], [64.0, 32.0], [64.0, 64.0]], dtype=torch.float64)
    boxes = [torch.rand(n, 4, generator=random, dtype=torch.float64) * 24 for n in (1, 3, 2, 0)]
    boxes = [torch.cat([box[:, :2], box[:, :2] + 8 + box[:, 2:]], dim=1) for box in boxes]
    labels = [torch.arange(len(box)) % 3 for box in boxes]
    return ImageBatch(images, sizes, torch.ones(4, 2), sizes, Targets.pad(boxes, labels, sizes))


def part(whole: ImageBatch, images: list[int]) -> ImageBatch:
    targets = Targets(*(getattr(whole.targets, f.name)[images] for f in dataclasses.fields(Targets)))
    sides = (whole.images, whole.image_sizes, whole.scale_factors, whole.original_sizes)
    return ImageBatch(*(side[images] for side in sides), targets)


def tasks() -> dict[str, DistillationTask]:
    made = {}
    for student, teacher in PAIRS.items():
        students = {channels: detector(student, 1, channels) for channels in (6, 8)}
        large = detector(teacher, 2, 8)
        for name in list_recipes():
            recipe = get_recipe(name)
            if "mgd" in recipe.terms:  # random cells are the one thing in which splits differ
                recipe = recipe.with_terms(mgd={"masked": 0.0})
            small = students[8 if "fgd" in name else 6]  # adapters, but not always
            torch.manual_seed(3)
            try:
                made[f"{student} {name}"] = DistillationTask(small, large, Distiller(recipe)).double().train()
            except ld_hub.errors.ConfigError:
                bins_or_anchors = {"ld", "ddf", "vlr", "vlr_gi", "crossld", "vlr_fine_grained", "fine_grained"}
                assert student == "fcos" and name in bins_or_anchors
    return made


def without_labels() -> dict[str, DistillationTask]:
    """Tasks that learn from images without labels: scored targets, and terms on these images."""
    made = {}
    for student, teacher, recipe in (("gfocal", "gfocal", "vlr"), ("fcos", "retinanet", "bckd")):
        task = DistillationTask(
            detector(student, 1, 8), detector(teacher, 2, 8), Distiller(recipe), unlabeled=Unlabeled()
        ).double().train()  # fmt: skip
        task.looker = DenseLooker(task.teacher, task.student, Thresholds((0.8,) * 3, (0.6,) * 3))
        made[f"{LESSON} {student} {recipe}"] = task
    return made


def gradient(task: DistillationTask, images: ImageBatch) -> Tensor:
    """Of the terms alone, or of images without labels, and as DDP averages it: the mean over ranks."""
    if task.looker is None:
        counts = step_counts([task.assign(images)])
        losses = task(images, counts=counts)
        loss = torch.stack([value for name, value in losses.items() if name.startswith("distill_")]).sum()
    else:
        lesson = task.look(images)
        losses = task(None, lesson=replace(lesson, counts=step_counts([lesson.assignment])))
        assert all(name.startswith("unlabeled_") for name in losses)
        loss = torch.stack(list(losses.values())).sum()
    parameters = [p for p in task.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return sum_over_ranks(torch.cat([g.flatten() for g in found])) / world_size()


def _rank(index: int, out: Path) -> None:
    torch.set_num_threads(1)
    whole, of_recipe = batch(), tasks() | without_labels()
    alone = {name: gradient(task, whole) for name, task in of_recipe.items()} if index == 0 else {}
    errors: dict[str, list[float]] = {name: [] for name in of_recipe}
    for size in (4, 2):
        if index >= size:
            continue
        distributed.init_process_group("gloo", f"file://{out}/store{size}", rank=index, world_size=size)
        mine = part(whole, SPLIT[size][index])
        for name, task in of_recipe.items():
            found = gradient(task, mine)
            if index == 0:
                errors[name].append(((found - alone[name]).norm() / alone[name].norm()).item())  # NaN if there is none
        leave()
    if index == 0:
        (out / "errors.json").write_text(json.dumps(errors))


@pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo")
def test_the_gradient_does_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, (tmp_path,), nprocs=4)  # forked ranks would inherit thread pools, and hang
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert {name.split()[1] for name in errors if not name.startswith(LESSON)} == set(list_recipes())
    assert sum(name.startswith(LESSON) for name in errors) == 2
    for name, found in errors.items():
        assert len(found) == 2 and max(found) < 1e-9, (name, found)
