from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ld_hub.distillation import Distiller
from ld_hub.engine.detection_task import DetectionTask, step_counts, total_loss
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.errors import ConfigError
from ld_hub.preprocessing import renormalize
from ld_hub.structures import ImageBatch, Targets
from tests.engine.runs import detector


def batch(number: int = 2, seed: int = 0, empty: bool = False) -> ImageBatch:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 1, 2, generator=generator) * 20
    boxes = [torch.cat([c, c + 30], dim=1)[: 0 if empty else 1] for c in corners]
    sizes = torch.full((number, 2), 64)
    targets = Targets.pad(boxes, [torch.zeros(len(b), dtype=torch.int64) for b in boxes], sizes)
    return ImageBatch(
        images=torch.randn(number, 3, 64, 64, generator=generator),
        image_sizes=sizes,
        scale_factors=torch.ones(number, 2),
        original_sizes=sizes,
        targets=targets,
        image_ids=tuple(range(number)),
    )


def distillation(recipe: str = "vlr", **options: bool) -> DistillationTask:
    return DistillationTask(detector(), detector(seed=1), Distiller(recipe), **options)


def test_the_teacher_is_no_part_of_the_task():
    task = distillation()
    teacher = task.teacher
    assert not any("teacher" in name for name in task.state_dict())
    ids = {id(parameter) for parameter in teacher.parameters()}
    assert not ids & {id(parameter) for parameter in task.parameters()}
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    task.train()
    assert task.model.training and not teacher.training


def test_the_teacher_runs_in_eval_mode_and_is_never_changed():
    task = distillation()
    before = {name: tensor.clone() for name, tensor in task.teacher.state_dict().items()}
    task.teacher.train()  # a careless user
    total_loss(task.train()(batch())).backward()
    after = task.teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # batch norm statistics included
    assert all(parameter.grad is None for parameter in task.teacher.parameters())


def test_the_teacher_gets_its_own_normalisation():
    task, data = distillation(), batch()
    plain = task.teach(data)["teacher"].cls_logits
    task.teacher.data_config = replace(task.teacher.data_config, mean=(0.0, 10.0, 20.0), std=(1.0, 2.0, 3.0))
    moved = renormalize(data.images, data.image_sizes, task.model.data_config, task.teacher.data_config)
    expected = task.teacher(moved).cls_logits
    assert torch.equal(task.teach(data)["teacher"].cls_logits, expected)
    assert not torch.allclose(plain, expected)


def test_losses_and_terms_of_a_step():
    losses = distillation()(batch(), shares=True)
    assert list(losses) == [
        "loss_cls", "loss_bbox", "loss_dfl", "distill_kd", "distill_ld", "distill_ld_vlr",
        "share/distill_kd", "share/distill_ld", "share/distill_ld_vlr",
    ]  # fmt: skip
    scalars = [value for name, value in losses.items() if not name.startswith("share/")]
    assert total_loss(losses).item() == pytest.approx(sum(value.item() for value in scalars))
    assert not any(value.requires_grad for name, value in losses.items() if name.startswith("share/"))


def test_a_term_waits_for_its_first_step():
    recipe = Distiller("ld").recipe.with_terms(ld={"first_step": 3})
    task = DistillationTask(detector(), detector(seed=1), Distiller(recipe))
    assert task(batch(), step=2)["distill_ld"] == 0
    assert task(batch(), step=3)["distill_ld"] > 0


def test_a_share_of_the_run_counts_once_its_length_is_known():
    recipe = Distiller("ld").recipe.with_terms(ld={"first_step": 0.5})
    task = DistillationTask(detector(), detector(seed=1), Distiller(recipe))
    with pytest.raises(ConfigError, match=r"first_step is 0\.5, a share of a run"):
        task(batch())
    task.begin(6)
    assert task(batch(), step=2)["distill_ld"] == 0
    assert task(batch(), step=3)["distill_ld"] > 0
    assert task.teaching.terms["ld"]["first_step"] == 0.5  # as it is stored with the student
    DetectionTask(detector()).begin(6)


def test_individual_ld_leaves_the_boxes_to_the_teacher():
    losses = distillation("ld", individual_ld=True)(batch())
    assert list(losses) == ["loss_cls", "distill_ld"]
    whole = distillation("ld")(batch())
    assert all(torch.equal(losses[name], whole[name]) for name in losses)
    with pytest.raises(ConfigError, match="'kd' has none"):
        distillation("kd", individual_ld=True)


def test_student_and_teacher_must_be_a_pair():
    student = detector()
    with pytest.raises(ConfigError, match="same object"):
        DistillationTask(student, student, Distiller("ld"))
    with pytest.raises(ConfigError, match=r"reg_max is 8 in student.*and 4 in teacher"):
        DistillationTask(student, detector(reg_max=4), Distiller("ld"))


def test_autocast_reaches_both_networks_but_no_loss():
    task, data = distillation(), batch()
    seen: dict[str, torch.dtype] = {}
    for name, model in (("student", task.model), ("teacher", task.teacher)):
        model.head.cls.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.dtype}))
    exact = task(data)
    criterion, inside = task.model.criterion, []

    def spy(*arguments: object) -> dict[str, torch.Tensor]:
        inside.append(torch.is_autocast_enabled("cpu"))
        return criterion(*arguments)

    task.model.criterion = spy
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = task(data)
    assert seen == {"student": torch.bfloat16, "teacher": torch.bfloat16}
    assert {value.dtype for value in losses.values()} == {torch.float32}
    assert inside == [False]
    assert total_loss(losses).item() == pytest.approx(total_loss(exact).item(), rel=0.05)


def test_counts_cover_every_micro_batch():
    task, parts = DetectionTask(detector()), [batch(2, seed=1), batch(2, seed=2), batch(1, empty=True)]
    assignments = [task.assign(part) for part in parts]
    positives = [int(assignment.positive.sum()) for assignment in assignments]
    assert min(positives[:2]) > 0 and positives[2] == 0
    counts = step_counts(assignments)
    assert float(counts.images) == pytest.approx(5 / 3)
    assert float(counts.positives.sum()) == pytest.approx(sum(positives) / 3)


def test_a_batch_without_objects_trains():
    task = distillation()
    losses = task(batch(empty=True))
    total_loss(losses).backward()
    assert torch.isfinite(total_loss(losses))
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in task.parameters())


def test_images_without_targets_are_refused():
    with pytest.raises(ConfigError, match="no targets"):
        DetectionTask(detector())(replace(batch(), targets=None))
