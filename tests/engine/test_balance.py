"""Each term pulls as hard as its share says, whatever its weight; off, nothing changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ld_hub.distillation import Distiller, Recipe, get_recipe
from ld_hub.engine.checkpoint import Checkpoint, RunDirectory
from ld_hub.engine.detection_task import step_counts, total_loss
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError
from ld_hub.optim.balance import DECAY, SHARE, GradientBalance
from ld_hub.structures import DenseOutput, ImageBatch
from tests.engine.runs import detector, distance, distil, equal, records, weights
from tests.engine.test_accumulation import images, part
from tests.engine.test_tasks import batch


def task_of(recipe: str | Recipe, **options: Any) -> DistillationTask:
    return DistillationTask(detector(), detector(seed=1), Distiller(recipe), balance="gradient", **options).train()


def steps(task: DistillationTask, number: int, rate: float = 0.01, first: int = 0) -> None:
    """Plain gradient descent on one batch."""
    data = batch()
    for step in range(first, first + number):
        task.zero_grad()
        total_loss(task(data, step=step)).backward()
        with torch.no_grad():
            for parameter in task.parameters():
                if parameter.grad is not None:
                    parameter.sub_(rate * parameter.grad)
        task.after_step()


def pulls(task: DistillationTask, data: ImageBatch, step: int, where: str) -> dict[str, float]:
    """Norms of the gradients at the head's outputs or at maps, by backward passes that go all the way."""
    seen: list[DenseOutput] = []
    hook = task.model.register_forward_hook(lambda _, __, output: seen.append(output))
    norms: dict[str, float] = {}
    names = [name for name in task(data, step=step) if name.startswith("distill_")]
    for name in [*names, "detection"]:
        seen.clear()
        losses = task(data, step=step)
        output = seen[0]
        places: list[Tensor] = {
            "outputs": [output.cls_logits, output.box],
            "towers": [part for pair in output.towers or () for part in pair],
            "features": list(output.features or ()),
        }[where]
        for place in places:
            place.retain_grad()
        wanted = losses[name] if name in losses else sum(v for k, v in losses.items() if k.startswith("loss_"))
        wanted.backward()
        norms[name] = sum(float(p.grad.square().sum()) for p in places if p.grad is not None) ** 0.5
    hook.remove()
    detection = norms.pop("detection")
    return {name: norm / detection for name, norm in norms.items()}


@pytest.mark.parametrize(("rate", "tolerance"), [(0.0, 1e-3), (1e-3, 0.25)], ids=["standing still", "training"])
@pytest.mark.parametrize(
    ("recipe", "where"), [("vlr", "outputs"), ("bckd", "outputs"), ("crosskd", "towers"), ("fine_grained", "features")]
)
def test_terms_pull_as_hard_as_their_shares(recipe: str, where: str, rate: float, tolerance: float) -> None:
    names = list(get_recipe(recipe).terms)
    first = names[0]
    task = task_of(get_recipe(recipe).with_terms(**{first: {"share": 0.8}}))
    steps(task, 31 if rate else 1, rate)
    found = pulls(task, batch(), 31, where)
    wanted = {f"distill_{name}": 0.8 if name == first else SHARE for name in names}
    assert found == pytest.approx(wanted, rel=tolerance)
    noted = task(batch(), step=31, shares=True)
    for name, share in found.items():
        assert noted[f"share/{name}"].item() == pytest.approx(share, rel=1e-3)
        assert noted[f"scale/{name}"].item() > 0
    assert total_loss(noted).item() == pytest.approx(sum(v.item() for k, v in noted.items() if "/" not in k))


def output() -> tuple[DenseOutput, Tensor, Tensor]:
    cls, box = torch.ones(1, 2, 3, requires_grad=True), torch.ones(1, 2, 4, requires_grad=True)
    return DenseOutput(cls, box, None, priors=None, coder=None), cls, box  # type: ignore[arg-type]


def test_scales_are_quotients_of_averaged_norms() -> None:
    balance = GradientBalance({"distill_a": 0.5, "distill_b": 2.0}).train()
    out, cls, box = output()

    def step(number: int, a: float, detection: float, factor: float = 1.0) -> dict[str, Tensor]:
        terms = {"distill_a": factor * a * cls.sum(), "distill_b": 0.0 * box.sum()}
        found = balance(
            out, {"loss_bbox": detection * box.sum()}, terms, lambda _: {"distill_a": factor, "distill_b": 1}, number
        )
        balance.update()
        return found

    assert [value.item() for value in step(0, 3, 4).values()] == [0, 0]  # nothing is known yet
    a, detection = 9 * 6, 16 * 8
    assert balance.scale.tolist() == pytest.approx([0.5 * (detection / a) ** 0.5, 0])  # b has no gradient at all
    value = step(1, 3, 40)["distill_a"]  # no measurement is due
    assert value.item() == pytest.approx(18 * balance.scale[0].item())
    assert balance.scale.tolist() == pytest.approx([0.5 * (detection / a) ** 0.5, 0])
    step(10, 1, 2, factor=0.25)  # of the whole term, not of what its schedule has left of it
    logarithms = [math.log(detection / a) / 2, math.log(4 * 8 / 6) / 2]
    mean = (DECAY * logarithms[0] + logarithms[1]) / (DECAY + 1)
    assert balance.scale[0].item() == pytest.approx(0.5 * math.exp(mean))
    before = balance.scale.clone()
    step(20, float("inf"), 2)  # an overflow of half precision
    assert torch.equal(balance.scale, before)
    step(30, 1, 2, factor=0.0)  # a term that is not active
    assert torch.equal(balance.scale, before)
    balance.eval()
    step(40, 7, 2)
    assert torch.equal(balance.scale, before)


def test_a_term_that_cannot_be_compared_is_refused() -> None:
    out, cls, _ = output()
    balance = GradientBalance({"distill_a": 0.5})
    elsewhere = torch.ones(2, requires_grad=True)
    with pytest.raises(ConfigError, match="'distill_a' and of the detection loss meet neither"):
        balance(out, {"loss_cls": cls.sum()}, {"distill_a": elsewhere.sum()}, lambda _: {"distill_a": 1}, 0)
    with pytest.raises(ConfigError, match="balance is 'weights'"):
        DistillationTask(detector(), detector(seed=1), Distiller("ld"), balance="weights")  # type: ignore[arg-type]


def test_a_term_counts_from_the_step_after_its_first_and_fades_by_its_schedule() -> None:
    late = {"first_step": 3, "last_step": 23, "decay": "cosine"}
    task = task_of(get_recipe("vlr").with_terms(ld=late))
    steps(task, 3)
    assert task.balance is not None
    assert [scale > 0 for scale in task.balance.scale.tolist()] == [True, False, True]
    steps(task, 1, first=3)
    assert [scale > 0 for scale in task.balance.scale.tolist()] == [True, True, True]
    data = batch()
    task.eval()  # batch norms stay as they are
    whole, half, none = (pulls(task, data, step, "outputs")["distill_ld"] for step in (3, 13, 23))
    assert half == pytest.approx(whole / 2, rel=1e-4) and none == 0


def test_weights_do_not_matter_and_shares_do(data: Path, tmp_path: Path) -> None:
    found = {}
    for name, changes in (("as", {}), ("heavy", {"weight": 25.0}), ("strong", {"share": 1.0}), ("off", {"weight": 0})):
        recipe = get_recipe("vlr").with_terms(ld=changes)  # published weight 0.25
        student, _ = distil(data, tmp_path / name, recipe=recipe, steps=5, balance="gradient")
        found[name] = dict(student.state_dict())
    assert distance(found["heavy"], found["as"]) < 1e-4 < 1e-3 < distance(found["strong"], found["as"])
    lines = records(tmp_path / "off")
    assert all(line["distill_ld"] == line["scale/distill_ld"] == 0 for line in lines)
    scales = [line["scale/distill_ld"] for line in records(tmp_path / "heavy")]
    assert scales[0] == 0 and scales[1] > 0
    assert scales[1] * 100 == pytest.approx(records(tmp_path / "as")[1]["scale/distill_ld"], rel=1e-4)


def test_resume_equals_the_uninterrupted_run(data: Path, tmp_path: Path) -> None:
    settings = {"steps": 14, "save_every": 7, "recipe": "crosskd_pkd", "balance": "gradient", "log_every": 7}
    distil(data, tmp_path / "whole", **settings)
    start = str(tmp_path / "whole/checkpoints/step_00000007")
    saved = Checkpoint.load(Path(start)).model
    assert saved["balance.scale"].min() > 0
    distil(data, tmp_path / "other", student=detector(seed=5), resume=start, **settings)
    ends = [Checkpoint.load(RunDirectory(tmp_path / name).find(True) or tmp_path) for name in ("whole", "other")]
    assert equal(ends[0].model, ends[1].model)
    assert not torch.equal(ends[0].model["balance.scale"], saved["balance.scale"])  # measured again at step 10
    assert not any("balance" in name for name in weights(tmp_path / "whole/model"))
    with pytest.raises(ConfigError, match=r"\(recipe.balance: gradient there, None now\)"):
        distil(data, tmp_path / "whole", resume=True, **{**settings, "balance": "none"})


def test_micro_batches_are_measured_as_one_batch() -> None:
    """Losses against targets alone are those of the whole batch, so their gradients' sizes are too."""
    whole = images([1, 2, 1, 0, 3, 1, 2, 1])
    scales = []
    for cut in ([slice(0, 8)], [slice(0, 4), slice(4, 8)]):
        torch.manual_seed(0)
        student, teacher = detector(norm_eval=True), detector(seed=1)
        task = DistillationTask(student, teacher, Distiller("vlr"), individual_ld=True, balance="gradient")
        task = task.double().train()
        task.teacher.double()
        parts = [part(whole, rows) for rows in cut]
        assignments = [task.assign(piece) for piece in parts]
        counts = step_counts(assignments)
        for piece, assignment in zip(parts, assignments, strict=True):
            task(piece, assignment, counts)
        task.after_step()
        assert task.balance is not None
        scales.append(task.balance.scale)
    assert scales[0].min() > 0
    assert torch.allclose(scales[0], scales[1], rtol=1e-9)


def test_off_there_is_nothing_of_it() -> None:
    plain = DistillationTask(detector(), detector(seed=1), Distiller("vlr")).train()
    assert not any("balance" in name for name in plain.state_dict())
    losses = plain(batch(), shares=True)
    assert not any(name.startswith("scale/") for name in losses)
    plain.after_step()
    shared = get_recipe("vlr").with_terms(ld={"share": 0.9})
    task = DistillationTask(detector(), detector(seed=1), Distiller(shared)).train()
    assert "The shares in the recipe count with balance='gradient' only." in task.remarks
    again = task(batch(), shares=True)
    assert all(torch.equal(again[name], losses[name]) for name in losses)
