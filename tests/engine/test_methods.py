"""Methods that need more of the two networks than their predictions: adapters, maps, the teacher's own head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ld_hub.distillation import Distiller, Recipe, get_recipe
from ld_hub.engine.checkpoint import Checkpoint, RunDirectory
from ld_hub.engine.compare import train_together
from ld_hub.engine.detection_task import step_counts, total_loss
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.models.factory import create_model
from tests.engine.runs import QUICK, detector, distil, equal, sets, weights
from tests.engine.test_accumulation import images, losses_and_gradient, part
from tests.engine.test_tasks import batch

WIDE = {"fpn_channels": 24}
ADAPTED = {"fine_grained": (10, {(24, 16), (24,)}), "crossld": (2, {(24, 16)})}  # number and shapes


def last(run: Path) -> Checkpoint:
    return Checkpoint.load(RunDirectory(run).find(True) or run)


@pytest.mark.parametrize("recipe", ADAPTED)
def test_adapters_are_trained_and_continued_but_not_published(recipe: str, data: Path, tmp_path: Path) -> None:
    number, shapes = ADAPTED[recipe]
    settings = {"recipe": recipe, "steps": 4, "save_every": 2, "optimizer": "adamw", "ema": "on", "ema_decay": 0.9}
    student, trainer = distil(data, tmp_path / "whole", teacher=detector(seed=1, **WIDE), **settings)
    start = tmp_path / "whole/checkpoints/step_00000002"
    adapters = {name: tensor for name, tensor in Checkpoint.load(start).model.items() if "adapters" in name}
    assert len(adapters) == number and {t.shape for t in adapters.values()} == shapes
    end = last(tmp_path / "whole")
    assert not any(torch.equal(end.model[name], tensor) for name, tensor in adapters.items())
    trained = len(end.optimizer["param_groups"][0]["params"])
    assert trained == sum(p.requires_grad for p in student.parameters()) + len(adapters)
    moments = end.optimizer["state"]
    assert len(moments) == trained and bool(moments[trained - number]["exp_avg"].any())

    torch.manual_seed(9)  # other adapters to begin with
    distil(data, tmp_path / "other", detector(seed=5), teacher=detector(seed=1, **WIDE), resume=str(start), **settings)
    assert equal(last(tmp_path / "other").model, end.model)
    for name in ("model", "best"):
        if (tmp_path / "whole" / name).is_dir():
            assert weights(tmp_path / "whole" / name).keys() == detector().state_dict().keys()
    create_model(tmp_path / "whole/model")
    assert "adapters are trained" in trainer.describe(_plan(trainer))


def _plan(trainer):
    from ld_hub.engine.schedule import Plan

    return Plan.make(trainer.config, len(trainer.train_dataset))


def crossing(recipe: str | Recipe = "crosskd") -> DistillationTask:
    return DistillationTask(detector(norm_eval=True), detector(seed=1), Distiller(recipe)).train()


def test_the_teachers_head_runs_in_the_networks_precision_and_losses_do_not() -> None:
    # padded: on a single cell torch 2.15's bfloat16 convolution of stride 2 leaves its weights' gradient unset
    data = replace(batch(), images=F.pad(batch().images, (0, 64, 0, 64)))
    task, seen = crossing(), []
    task.teacher.head.cls.register_forward_hook(
        lambda _, inputs, out: seen.append((inputs[0].requires_grad, out.dtype))
    )
    exact = task(data)
    assert seen == [(False, torch.float32)] * 5 + [(True, torch.float32)] * 5  # levels of its own towers, the student's
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = task(data)
    assert seen == [(False, torch.bfloat16)] * 5 + [(True, torch.bfloat16)] * 5
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact[name].item(), rel=0.05), name
    total_loss(losses).backward()
    assert all(p.grad is None for p in task.teacher.parameters())
    bad = [n for n, p in task.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert bad == []
    tower = next(p for n, p in task.model.named_parameters() if n.startswith("head") and p.dim() == 4)
    assert bool(tower.grad.any())


@pytest.mark.parametrize("recipe", ["crosskd_pkd", "crossld", "fine_grained", "bckd", "cwd"])
def test_micro_batches_are_one_batch(recipe: str) -> None:
    task = crossing(recipe).double()
    task.teacher.double()
    whole = images([1, 2, 1, 0, 3, 1, 2, 1])
    terms = {f"distill_{name}" for name in task.recipe.terms}
    expected, gradient = losses_and_gradient(task, [whole], terms)
    found, split = losses_and_gradient(task, [part(whole, slice(0, 4)), part(whole, slice(4, 8))], terms)
    for name in terms:
        assert found[name] == pytest.approx(expected[name], rel=1e-9) and expected[name] > 0
    assert (gradient - split).norm() < 1e-9 * gradient.norm()


def test_a_whole_step_compiles_without_a_break() -> None:
    both = Recipe("both", {**get_recipe("crosskd").terms, **get_recipe("crossld").terms})
    task, data = crossing(both), batch()
    assignment = task.assign(data)
    counts = step_counts([assignment])

    def run(step) -> tuple[dict[str, float], torch.Tensor]:
        task.zero_grad()
        losses = step(data, assignment, counts)
        total_loss(losses).backward()
        grads = [p.grad.flatten() for p in task.parameters() if p.grad is not None]
        return {name: value.item() for name, value in losses.items()}, torch.cat(grads)

    (eager, gradient), (found, compiled) = run(task), run(torch.compile(task, backend="aot_eager", fullgraph=True))
    assert found == pytest.approx(eager, rel=1e-4)
    assert (compiled - gradient).norm() < 1e-4 * gradient.norm()


def test_students_that_share_a_teacher_get_the_maps_that_each_needs(data: Path) -> None:
    from ld_hub.engine import TrainConfig

    teacher, asked = detector(seed=1), []
    forward = teacher.forward
    teacher.forward = lambda images, **maps: asked.append(sorted(maps)) or forward(images, **maps)  # type: ignore[method-assign]
    recipes = ("ld", "crosskd", "fine_grained")
    together = {name: DistillationTask(detector(), teacher, Distiller(name)) for name in recipes}
    config = TrainConfig(**QUICK)
    train_together(together, sets(data)[0], config)
    assert asked == [["features", "towers"]] * 2
    for name in recipes:
        alone = {name: DistillationTask(detector(), detector(seed=1), Distiller(name))}
        train_together(alone, sets(data)[0], config)
        assert equal(dict(alone[name].state_dict()), dict(together[name].state_dict()))
