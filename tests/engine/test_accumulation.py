"""Micro-batches are one batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ld_hub.distillation import Distiller
from ld_hub.engine.detection_task import step_counts, total_loss
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.structures import ImageBatch, Targets
from tests.engine.runs import detector, distance, distil, records, train


class TargetOnly:
    """A criterion whose normalisers depend on the targets alone, so that a split batch must give the same gradient.

    GFocal's box losses are divided by a mean of predicted scores, which covers the micro-step only; see below.
    """

    def __init__(self, criterion):
        self.criterion = criterion

    def __call__(self, output, assignment, counts):
        box = (output.box.float().square().mean(dim=(2, 3)) * assignment.positive).sum()
        return {
            "loss_cls": self.criterion(output, assignment, counts)["loss_cls"],
            "loss_bbox": box / counts.samples,
        }


@pytest.mark.parametrize("recipe", ["vlr", None])
def test_accumulation_of_2x4_equals_a_batch_of_8(data, tmp_path, recipe):
    found = {}
    for name, split in (("one", (8, 1)), ("two", (4, 2)), ("four", (2, 4))):
        student = detector(norm_eval=True)  # batch statistics would depend on the split
        student.criterion = TargetOnly(student.criterion)
        sizes = {"batch_size": split[0], "accumulation": split[1], "steps": 3}
        if recipe:
            distil(data, tmp_path / name, student, recipe=recipe, **sizes)
        else:
            train(data, tmp_path / name, student, **sizes)
        found[name] = (dict(student.state_dict()), records(tmp_path / name))
    start = dict(detector(norm_eval=True).state_dict())
    assert distance(start, found["one"][0]) > 1e-2  # the weights did move
    for name in ("two", "four"):
        assert distance(found[name][0], found["one"][0]) < 1e-5
        for one, other in zip(found["one"][1], found[name][1], strict=True):
            for key in ("loss", "lr", "epoch", "grad_norm"):
                assert other[key] == pytest.approx(one[key], rel=1e-4)


def images(boxes_per_image: list[int]) -> ImageBatch:
    """64 x 64 noise in float64."""
    random = torch.Generator().manual_seed(sum(boxes_per_image))
    number = len(boxes_per_image)
    boxes, labels = [], []
    for many in boxes_per_image:
        corner = torch.rand(many, 2, generator=random, dtype=torch.float64) * 24
        boxes.append(torch.cat([corner, corner + 12 + torch.rand(many, 2, generator=random) * 26], dim=1))
        labels.append(torch.randint(0, 3, (many,), generator=random))
    sizes = torch.full((number, 2), 64.0, dtype=torch.float64)
    return ImageBatch(
        images=torch.randn(number, 3, 64, 64, generator=random, dtype=torch.float64),
        image_sizes=sizes,
        scale_factors=torch.ones_like(sizes),
        original_sizes=sizes,
        targets=Targets.pad(boxes, labels, sizes),
        image_ids=tuple(range(number)),
    )


def part(batch: ImageBatch, rows: slice) -> ImageBatch:
    targets = batch.targets
    assert targets is not None
    names = ("boxes", "labels", "valid", "crowd", "image_sizes")
    changes = {name: getattr(batch, name)[rows] for name in ("images", "image_sizes", "scale_factors")}
    return replace(
        batch,
        **changes,
        original_sizes=batch.original_sizes[rows],
        targets=Targets(**{name: getattr(targets, name)[rows] for name in names}),
        image_ids=batch.image_ids[rows],
    )


def losses_and_gradient(
    task: DistillationTask, parts: list[ImageBatch], exact: set[str]
) -> tuple[dict[str, float], torch.Tensor]:
    """Mean losses over micro-batches as the loop takes them, and the gradient of the losses named in `exact`."""
    assignments = [task.assign(batch) for batch in parts]
    counts = step_counts(assignments)
    task.zero_grad()
    found: dict[str, float] = {}
    for batch, assignment in zip(parts, assignments, strict=True):
        losses = task(batch, assignment, counts)
        for name, value in losses.items():
            found[name] = found.get(name, 0.0) + value.item() / len(parts)
        (total_loss({name: losses[name] for name in exact}) / len(parts)).backward()
    return found, torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None])


@pytest.mark.parametrize("boxes", [[1, 2, 1, 0, 3, 1, 2, 1], [2, 1, 3, 1, 0, 0, 0, 0]], ids=["mixed", "half without"])
def test_the_real_losses_of_2x4_are_those_of_8(boxes):
    """Everything normalised by targets agrees to rounding.

    The box losses are divided by the mean predicted score of the positives. A micro-step knows that of its own
    positives only, the other batches' predictions are yet to come: it differs from the mean over all by as much as
    the scores of two halves do, a few percent in a fresh detector. How many positives there are is known beforehand,
    so a micro-batch without any changes nothing (one that was divided by its own sum would count twice).
    """
    task = DistillationTask(detector(norm_eval=True), detector(seed=1), Distiller("vlr")).double().train()
    task.teacher.double()
    batch = images(boxes)
    exact = {"loss_cls", "distill_kd", "distill_ld", "distill_ld_vlr"}
    whole, expected = losses_and_gradient(task, [batch], exact)
    split, gradient = losses_and_gradient(task, [part(batch, slice(0, 4)), part(batch, slice(4, 8))], exact)
    assert set(whole) == exact | {"loss_bbox", "loss_dfl"}
    for name in exact:
        assert split[name] == pytest.approx(whole[name], rel=1e-9), name
        assert whole[name] > 0
    assert (gradient - expected).norm() < 1e-9 * expected.norm()
    for name in ("loss_bbox", "loss_dfl"):
        assert split[name] == pytest.approx(whole[name], rel=0.04), name
        if boxes[4:] == [0, 0, 0, 0]:  # all positives are in one micro-batch, which then knows every score
            assert split[name] == pytest.approx(whole[name], rel=1e-6), name
