"""LD's imitation of features in a region (loss_im): values, and gradients on the pyramid's maps."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from ld_hub.distillation import Distiller, FeatureMSEConfig, Recipe, TermInputs, get_recipe
from tests.reference.test_heads import assign
from tests.reference.test_models import rules
from tests.support import build, golden

REGIONS = {"finegrained": "fine_grained", "gibox": "gi", "fitnet": "inside_gt", "decouple": "inside_gt"}
CASES = [
    stem
    for stem in golden.find("head_LD_ldgfl_*")
    if "imitation_method" in golden.load(stem)[0]["head_cfg"] and golden.load(stem)[0]["losses"]
]


def imitation(case: SimpleNamespace, recipe: Recipe, reference: str | None) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Loss and the student's maps, whose values both follow the rule of the golden data."""
    dtype, sides = case.student.box.dtype, []
    for seed in (1000, 2000):
        shapes = [(2, 256, *shape) for shape in case.info["feature_sizes"]]
        sides.append([torch.as_tensor(rules().hash8(seed + i, shape)).to(dtype) for i, shape in enumerate(shapes)])
    maps = [m.requires_grad_() for m in sides[0]]
    inputs = TermInputs(
        dataclasses.replace(case.student, features=tuple(maps)),
        dataclasses.replace(case.teacher, features=tuple(sides[1])),
        assign(case),
        case.targets,
    )
    distiller = Distiller(recipe, reference)
    classes = case.info["num_classes"]
    spec = build.spec(num_classes=classes, label_names=tuple(map(str, range(classes))), feature_channels=256)
    distiller.setup(spec, spec)
    return torch.stack(list(distiller(inputs).values())).sum(), maps


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("stem", CASES)
def test_losses_and_gradients(stem: str, precision: str) -> None:
    case = golden.head_case(stem, precision)
    settings, tolerance = case.info["head_cfg"], golden.TOLERANCE[precision]
    region, weight = REGIONS[settings["imitation_method"]], settings["loss_im"]["loss_weight"]
    recipe = Recipe("imitation", {"feature": FeatureMSEConfig(weight=weight, region=region)})
    loss, maps = imitation(case, recipe, "ld")
    assert golden.error(loss.detach(), sum(case.info["losses"][precision]["loss_im"])) <= tolerance
    gradients = torch.autograd.grad(loss, maps)
    for level, gradient in enumerate(gradients):
        sample = gradient.reshape(-1)[::97]
        key = f"{precision}/gradsample_x{level}"
        expected = case.arrays[key] if key in case.arrays.files else torch.zeros_like(sample)
        assert golden.error(sample, expected) <= tolerance


def test_there_are_three_regions() -> None:
    assert {golden.load(s)[0]["head_cfg"]["imitation_method"] for s in CASES} == {"finegrained", "gibox", "fitnet"}


def test_decoupled_imitation_trains_where_the_official_code_raises() -> None:
    case = golden.head_case("head_LD_ldgfl_c_decouple", "f32")
    assert "must match" in case.info["errors"]["f32"]
    loss, maps = imitation(case, get_recipe("defeat"), None)
    loss.backward()
    assert loss > 0 and all(m.grad is not None and m.grad.isfinite().all() for m in maps)
