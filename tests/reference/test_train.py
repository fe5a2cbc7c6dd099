"""A whole training step with teacher: losses, gradients of every parameter, the update of the optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import ld_hub
from ld_hub.distillation import Distiller
from ld_hub.engine.config import TrainConfig
from ld_hub.engine.optimizer import make_optimizer
from ld_hub.engine.tasks import DistillationTask
from ld_hub.models.convert import load_openmmlab_state, translate_openmmlab
from ld_hub.models.detector import DenseDetector
from ld_hub.structures import ImageBatch, Targets
from tests.reference.test_heads import OURS
from tests.reference.test_models import rules
from tests.support import golden
from tests.support.names import name_of

KEYS = {  # student and teacher; train_LD_r50_ld adds an imitation term, which changes the backbone's gradients
    "train_LD_r18_ld": ("keys_LD_gfl_r18", "keys_LD_gfl_r101"),
    "train_LD_atss_r50": ("keys_LD_atss_r50", "keys_LD_atss_r101"),
    "train_LD_fcos_r50": ("keys_LD_fcos_r50", "keys_LD_fcos_r101"),
    "train_LD_retina_r50": ("keys_LD_retina_r50", "keys_LD_retina_r101"),
}
CASES = [case for case, keys in KEYS.items() if all(golden.find(stem) for stem in (case, *keys))]


def _model(keys: str, prefix: str = "") -> DenseDetector:
    """Our model with the weights that the rule gives to the official names."""
    state = {}
    for key, entry in golden.load(keys)[0]["keys"].items():
        value = rules().weight_for(prefix + key, tuple(entry["shape"]))
        state[key] = torch.arange(17.0) if value is None else torch.as_tensor(value)
    model = ld_hub.create_model(name_of(keys))
    load_openmmlab_state(model, state)
    return model


def _batch(info: dict[str, Any]) -> ImageBatch:
    sizes = torch.tensor(info["img_shapes"])
    images = torch.as_tensor(rules().model_input(77, (2, 3, 192, 256)))
    for image, (height, width) in zip(images, info["img_shapes"], strict=True):
        image[:, height:] = 0
        image[:, :, width:] = 0
    boxes, labels = ([torch.tensor(part) for part in info[key]] for key in ("gt_boxes", "gt_labels"))
    return ImageBatch(images, sizes, torch.ones(2, 2), sizes, Targets.pad(boxes, labels, sizes))


def _step(case: str, info: dict[str, Any]) -> tuple[DenseDetector, dict[str, Tensor]]:
    student, teacher = _model(KEYS[case][0]), _model(KEYS[case][1], "teacher.")
    kind = getattr(student.config, "box_loss", "giou")
    student.criterion = student.criterion.published(student.coder, "ld", distilling=True, box_loss=kind)
    task = DistillationTask(student, teacher, Distiller("vlr", reference="ld")).train()
    losses = task(_batch(info))
    torch.stack(list(losses.values())).sum().backward()
    return student, losses


@pytest.mark.parametrize("case", CASES)
def test_losses_gradients_and_update(case: str) -> None:
    info, arrays = golden.load(case)
    student, losses = _step(case, info)
    for name, loss in losses.items():
        key = next(k for k in OURS.get(name, (name,)) if f"loss/{k}" in arrays.files)
        assert golden.error(loss.detach(), arrays[f"loss/{key}"].sum()) <= 1e-5, name
    names = {key: torch.tensor(index) for index, key in enumerate(info["grads"])}
    ours = {int(index): name for name, index in translate_openmmlab(student, names)[0].items()}
    parameters = dict(student.named_parameters())
    assert set(ours.values()) == set(parameters)
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for index, (key, stored) in enumerate(info["grads"].items()):
        grad = parameters[ours[index]].grad
        assert (grad is None) == (stored is None), key
        if grad is not None and stored[1] > 0:
            grad = grad.double()
            found = [float(grad.sum()), float(grad.abs().sum()), float(grad.norm())]
            for value, expected, scale in zip(found, stored, (stored[1], stored[1], stored[2]), strict=False):
                assert abs(value - expected) <= 1e-5 * scale, (key, found, stored)

    settings = info["optimizer"]
    if "paramwise_cfg" in settings:  # FCOS trained biases at twice the rate, without decay
        return
    config = TrainConfig(momentum=settings["momentum"], weight_decay=settings["weight_decay"])
    optimizer = make_optimizer(parameters.values(), config)
    for group in optimizer.param_groups:
        group["lr"] = settings["lr"]
    optimizer.step()
    for index, (key, expected) in enumerate(info["sgd_update_abs_sum"].items()):
        name = ours[index]
        moved = float((parameters[name].detach() - before[name]).double().abs().sum())
        rounding = before[name].numel() * float(before[name].abs().max()) * torch.finfo(torch.float32).eps
        assert abs(moved - expected) <= 1e-5 * expected + rounding, key
