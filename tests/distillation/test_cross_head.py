"""Terms through the teacher's head, on real detectors of all families: laws, and second versions step by step."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import ld_hub
from ld_hub.distillation import Distiller, Recipe, get_recipe
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import ImageBatch, Targets

FAMILIES = {
    "gfocal": {},
    "atss": {},
    "fcos": {},
    "retinanet": {},
    "atss_bins": {"boxes": "bins"},
}


def detector(family: str, seed: int, width: int = 16, depth: int = 4, fpn_channels: int = 16) -> DenseDetector:
    torch.manual_seed(seed)
    sizes = {"fpn_channels": fpn_channels, "head_width": width, "head_depth": depth}
    name = family.removesuffix("_bins")
    model = ld_hub.create_model(name, backbone="test_resnet", num_classes=3, **sizes, **FAMILIES[family])
    for parameter in model.head.parameters():  # far from the small numbers that heads start with
        nn.init.normal_(parameter, std=0.2)
    return model.double()


def batch(number: int = 2, empty: bool = False) -> ImageBatch:
    """Images of several sizes with one object each; with `empty`, the last has none."""
    random = torch.Generator().manual_seed(0)
    images = torch.randn(number, 3, 64, 96, generator=random, dtype=torch.float64)
    sizes = torch.tensor([[64.0, 96.0], [32.0, 64.0], [64.0, 64.0], [64.0, 96.0]][:number], dtype=torch.float64)
    for image, (height, width) in zip(images, sizes.long().tolist(), strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    boxes = [torch.tensor([[4.0, 4.0, 40.0 - 4 * n, 28.0]], dtype=torch.float64) for n in range(number)]
    labels = [torch.tensor([n % 3]) for n in range(number)]
    if empty:
        boxes[-1], labels[-1] = boxes[-1][:0], labels[-1][:0]
    return ImageBatch(images, sizes, torch.ones(number, 2), sizes, Targets.pad(boxes, labels, sizes))


def task_of(student: DenseDetector, teacher: DenseDetector, recipe: str | Recipe = "crosskd") -> DistillationTask:
    return DistillationTask(student, teacher, Distiller(recipe)).double().train()


def terms(losses: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in losses.items() if name.startswith("distill_")}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_detector_has_nothing_to_teach(family: str) -> None:
    student = detector(family, 1).eval()
    losses = terms(task_of(student, copy.deepcopy(student)).eval()(batch()))
    assert set(losses) == {"distill_cross_cls", "distill_cross_box"}
    assert abs(losses["distill_cross_cls"].item()) < 1e-9
    if family in ("gfocal", "retinanet"):  # ATSS: the entropy of centerness stays; FCOS: empty boxes overlap nothing
        assert abs(losses["distill_cross_box"].item()) < 1e-9
    if family == "gfocal":  # |p - t| and the IoU have kinks at equality, the KL of bins has none
        gradients = torch.autograd.grad(losses["distill_cross_box"], list(student.parameters()), allow_unused=True)
        assert all(g is None or g.abs().max() < 1e-7 for g in gradients)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_reaches_the_student_through_a_frozen_teacher(family: str) -> None:
    student, teacher = detector(family, 1), detector(family, 2)
    task = task_of(student, teacher)
    losses = terms(task(batch()))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    tap = student.head.cls_tower.tap
    assert tap == (2 if family == "fcos" else 3)
    assert all(p.grad is None for p in teacher.parameters())
    for tower in (student.head.cls_tower, student.head.box_tower):
        for index, block in enumerate(tower):
            gradient = block.conv.weight.grad
            assert (gradient is not None and gradient.abs().max() > 0) == (index < tap)
    assert student.head.cls.weight.grad is None and student.head.box.weight.grad is None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("over", ["image", "batch"])
def test_against_a_second_version(family: str, over: str) -> None:
    student, teacher = detector(family, 1).eval(), detector(family, 2).eval()
    images = batch(3, empty=True)
    weights = {"cross_cls": {"weight": 3.0, "over": over}, "cross_box": {"weight": 2.0, "over": over}}
    if family.startswith("atss"):
        weights["cross_box"]["quality_weight"] = 0.25
    task = task_of(student, teacher, get_recipe("crosskd").with_terms(**weights)).eval()
    found = terms(task(images))
    s, t = student(images.images, towers=True), teacher(images.images, towers=True)
    priors = t.priors
    valid = priors.valid(images.image_sizes)[:, :: priors.anchors_per_cell].numpy()
    towers, start = [], 0
    for (s_cls, s_box), (t_cls, t_box) in zip(s.towers or (), t.towers or (), strict=True):
        size = s_cls.shape[2] * s_cls.shape[3]
        cells = valid[:, start : start + size]
        start += size
        towers.append(tuple(torch.tensor(_moved(a, b, cells, over)) for a, b in ((s_cls, t_cls), (s_box, t_box))))
    crossed = teacher.resume(tuple(towers), priors)
    rows = priors.valid(images.image_sizes).numpy()
    p, q = (o.cls_logits.detach().sigmoid().numpy() for o in (crossed, t))
    entropy = -(q * np.log(p) + (1 - q) * np.log(1 - p))
    assignment = student.assign(s.priors, images.targets)
    cls = (np.abs(p - q) * entropy).sum(axis=2)[rows].sum() / assignment.positive.sum().item()
    if t.coder.reg_max is not None:
        a, b = (o.box.detach().softmax(-1).numpy() for o in (crossed, t))
        distance = (b * np.log(b / a)).sum(axis=(2, 3))
    else:
        a, b = ((o.decode().detach() / o.priors.strides[:, None]).numpy() for o in (crossed, t))
        distance = 1 - (_iou(a, b) if family == "fcos" else _giou(a, b))
    weight = q.max(axis=2) * rows
    box = _mean(distance, weight, over)
    if family.startswith("atss"):
        p, q = (o.quality.detach().sigmoid().numpy() for o in (crossed, t))  # type: ignore[union-attr]
        entropy = -(q * np.log(p) + (1 - q) * np.log(1 - p))
        box += 0.25 * _mean(entropy, weight, over)
    assert found["distill_cross_cls"].item() == pytest.approx(3 * cls, rel=1e-6)
    assert found["distill_cross_box"].item() == pytest.approx(2 * box, rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_weights(family: str) -> None:
    terms = get_recipe("crosskd_pkd").for_family(family.removesuffix("_bins")).terms
    found = [terms[name].weight for name in ("cross_cls", "cross_box", "cross_pkd")]
    assert found == {"gfocal": [1, 1, 6], "fcos": [0.4, 0.75, 2], "retinanet": [1, 1, 2]}.get(family, [1, 1, 1])
    assert terms["cross_box"].quality_weight == family.startswith("atss")


def _mean(values: np.ndarray, weight: np.ndarray, over: str) -> float:
    if over == "batch":
        return float((values * weight).sum() / weight.sum())
    return float(np.mean([(v * w).sum() / w.sum() for v, w in zip(values, weight, strict=True)]))


def _moved(student: torch.Tensor, teacher: torch.Tensor, cells: np.ndarray, over: str) -> np.ndarray:
    out = student.detach().clone().numpy()
    if over == "batch":  # all cells, padding too
        s, t = (m.detach().numpy() for m in (student, teacher))
        mean, std, new, wide = (getattr(m, f)(axis=(0, 2, 3), keepdims=True) for m in (s, t) for f in ("mean", "std"))
        return np.asarray((s - mean) / np.maximum(std, 1e-6) * np.maximum(wide, 1e-6) + new)
    for n in range(out.shape[0]):
        inside = cells[n].reshape(out.shape[2:]).astype(bool)
        for c in range(out.shape[1]):
            a, b = student[n, c].detach().numpy()[inside], teacher[n, c].detach().numpy()[inside]
            out[n, c] = (out[n, c] - a.mean()) / max(a.std(), 1e-6) * max(b.std(), 1e-6) + b.mean()
    return out


def _parts(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    intersection = np.clip(high - low, 0, None).prod(-1)
    union = sum((x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b)) - intersection
    hull = np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])
    return intersection, union, np.clip(hull, 0, None).prod(-1)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    intersection, union, _ = _parts(a, b)
    return intersection / np.maximum(union, 1e-6)


def _giou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    _, union, hull = _parts(a, b)
    return _iou(a, b) - (hull - np.maximum(union, 1e-6)) / np.maximum(hull, 1e-6)


@pytest.mark.parametrize("recipe", ["crosskd", "crossld"])
def test_towers_of_other_widths_are_adapted(recipe: str) -> None:
    tasks = []
    for seed in (1, 2):  # adapters begin the same, and leave the stream of random numbers as it was
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        tasks.append(Distiller(recipe))
        remarks = tasks[-1].setup(
            detector("gfocal", 1, width=8).spec, replace(detector("gfocal", 2).spec, name="teacher")
        )
        torch.manual_seed(seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert "The head's towers have 8 channels and the teacher's 16: adapters are trained with them." in remarks
    first, second = (task.state_dict() for task in tasks)
    assert set(first) == {f"cross_head.adapters.{branch}.weight" for branch in ("cls", "box")}
    assert all(torch.equal(first[name], second[name]) for name in first)
    task = task_of(detector("gfocal", 1, width=8), detector("gfocal", 2), recipe)
    losses = terms(task(batch()))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in task.distiller.parameters())
    assert all(p.grad is None for p in task.teacher.parameters())


def test_other_strides_do_not_fit() -> None:
    student, teacher = detector("gfocal", 1), detector("gfocal", 2)
    for recipe in ("crosskd", "crossld"):
        with pytest.raises(ConfigError, match=r"strides is .*teacher_scale=1.*Recipes that fit this pair: .*'?bckd"):
            DistillationTask(student, teacher, Distiller(recipe, teacher_scale=2))


def test_heads_of_different_families_cross() -> None:
    student, teacher = detector("retinanet", 1), detector("gfocal", 2)
    losses = terms(task_of(student, teacher)(batch()))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


def test_towers_without_a_convolution_before_the_tap_are_as_wide_as_the_pyramid() -> None:
    teacher = detector("gfocal", 2, width=16)
    for family, depth, wide in (("fcos", 2, False), ("fcos", 3, True), ("gfocal", 1, False), ("gfocal", 2, True)):
        student = detector(family, 1, width=16, depth=depth, fpn_channels=8)
        towers = student(batch().images, towers=True).towers
        assert towers is not None and {m.shape[1] for pair in towers for m in pair} == {16 if wide else 8}
        assert student.spec.tower_channels == (16 if wide else 8)
        task = task_of(student, teacher)
        assert bool(task.distiller.cross_head.adapters) == (not wide)
        assert all(loss > 0 for loss in terms(task(batch())).values())


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_short_towers(depth: int) -> None:
    student, teacher = detector("fcos", 1, depth=depth), detector("fcos", 2, depth=depth)
    losses = terms(task_of(student, teacher)(batch()))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
