"""Loops and laws look at every method; these are the cosine's own laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.distillation.sides import distiller_of, inputs_of, moved, total

KIND = ("gfocal", False)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_the_size_of_a_cells_features_does_not_count(side: str) -> None:
    distiller, inputs = distiller_of("cosine", KIND, KIND), inputs_of(KIND, KIND)
    random = torch.Generator().manual_seed(3)

    def longer(maps: Tensor) -> Tensor:
        each = torch.rand(len(maps), 1, *maps.shape[2:], generator=random, dtype=maps.dtype)  # of each cell
        return maps * (10.0 ** (4 * each - 1))

    other = moved(inputs, side, features=tuple(map(longer, getattr(inputs, side).features)))
    expected = total(distiller, inputs).item()
    assert expected > 0 and total(distiller, other).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("factor", "distance"), [(1.0, 0.0), (-2.0, 2.0)])
def test_same_and_opposite_directions(factor: float, distance: float) -> None:
    inputs = inputs_of(KIND, KIND, same=True)
    other = moved(inputs, "student", features=tuple(factor * m for m in inputs.teacher.features))
    found = total(distiller_of("cosine", KIND, KIND), other).item()
    assert found == pytest.approx(distance * len(inputs.teacher.features), abs=1e-9)  # once per level
