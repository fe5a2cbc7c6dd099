"""Loops and laws look at every method; these are CanKD's own laws."""

from __future__ import annotations

import pytest
import torch

from ld_hub.distillation import Recipe, get_recipe
from ld_hub.distillation.features import Level
from ld_hub.distillation.methods.cankd import CrossAttention, CrossAttentionConfig
from ld_hub.errors import ConfigError
from tests.distillation.sides import distiller_of, inputs_of, total

KIND = ("gfocal", False)


def level(student: torch.Tensor, teacher: torch.Tensor) -> Level:
    return Level(0, student, teacher, torch.ones(student.shape[:2], dtype=student.dtype), (student.shape[1], 1), 8)


def test_a_new_block_leaves_the_student_as_it_is() -> None:
    """What is left is the distance of standardised maps, twice PKD's (1 - r of each channel)."""
    inputs = inputs_of(KIND, KIND)
    pkd = total(distiller_of(get_recipe("pkd").with_terms(pkd={"weight": 1.0}), KIND, KIND), inputs).item()
    assert total(distiller_of("cankd", KIND, KIND), inputs).item() == pytest.approx(5 * 2 * pkd, rel=1e-9)


def test_the_sum_over_the_teachers_cells_is_attention_without_a_softmax() -> None:
    torch.manual_seed(0)
    block = CrossAttention(6, 3).double()
    torch.nn.init.normal_(block.out.weight)
    student, teacher = (torch.randn(2, 7, 6, dtype=torch.float64) for _ in range(2))
    shares = torch.einsum("nie,nje->nij", block.theta(student), block.phi(teacher)) / 7  # (N, P, P)
    expected = student + block.out(torch.einsum("nij,nje->nie", shares, block.g(teacher)))
    found = block(level(student, teacher))
    assert torch.allclose(found, expected, rtol=1e-12) and not torch.allclose(found, student)
    shuffled = block(level(student, teacher[:, torch.randperm(7)]))  # every cell of the teacher counts alike
    assert torch.allclose(shuffled, expected, rtol=1e-12)


def test_blocks_have_the_teachers_width_and_compare_in_a_part_of_it() -> None:
    recipe = Recipe("x", {"x": CrossAttentionConfig(reduction=2)})
    distiller = distiller_of(recipe, KIND, KIND, feature_channels=3)
    shapes = {name: tuple(p.shape) for name, p in distiller.terms["x"].blocks[4].named_parameters()}
    assert shapes["theta.weight"] == shapes["phi.weight"] == shapes["g.weight"] == (2, 5)
    assert shapes["out.weight"] == (5, 2)
    assert distiller_of(Recipe("x", {"x": CrossAttentionConfig(reduction=99)}), KIND, KIND) is not None
    with pytest.raises(ConfigError, match="reduction is 0"):
        CrossAttentionConfig(reduction=0)
