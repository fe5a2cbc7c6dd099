"""Loops and laws look at every method; these are DDF's own laws."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from ld_hub.distillation import TermInputs, get_recipe
from ld_hub.distillation.methods.ddf import DecoupledBinsKLConfig
from ld_hub.errors import ConfigError
from ld_hub.structures.targets import BACKGROUND
from tests.distillation.sides import distiller_of, inputs_of, moved, total

KIND = ("gfocal", False)


def value(inputs: TermInputs, **fields: Any) -> float:
    distiller = distiller_of(get_recipe("ddf").with_terms(ddf=fields), KIND, KIND)
    return total(distiller, inputs).item()


def test_where_the_teacher_sees_nothing_the_positives_are_left_with_their_share() -> None:
    inputs = inputs_of(KIND, KIND, number=1, objects=4)
    blind = moved(inputs, "teacher", cls_logits=torch.full_like(inputs.teacher.cls_logits, -80.0))
    owners = inputs.assignment.gt_index[inputs.assignment.weights > 0]
    matched, unmatched = int((owners > BACKGROUND).sum()), int((owners == BACKGROUND).sum())
    assert matched > 1 and unmatched > 50
    share = math.sqrt(matched) / (math.sqrt(matched) + math.sqrt(unmatched))
    assert value(blind) == pytest.approx(share * value(blind, region="main"), rel=1e-9)
    assert value(inputs) > 1.1 * value(blind)


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_positives_count_by_the_overlap_of_one_sides_boxes(side: str) -> None:
    inputs = inputs_of(KIND, KIND, number=1, objects=4)
    edges = torch.zeros_like(getattr(inputs, side).box)
    edges[..., 0] = 50.0  # every edge lies on the row's centre: a box without area
    empty = moved(inputs, side, box=edges)
    other = "student" if side == "teacher" else "teacher"
    assert value(empty, region="main", iou=side) == pytest.approx(0, abs=1e-9)
    assert value(empty, region="main", iou=other) > 0.1


def test_on_perfect_boxes_the_positives_are_a_mean_of_lds_kls() -> None:
    """LD's own term weighs rows by the student's scores: 1 where these are certain."""
    inputs = inputs_of(KIND, KIND, number=1, objects=4)
    inputs = moved(inputs, "student", cls_logits=torch.full_like(inputs.student.cls_logits, 60.0))
    exact = dataclasses.replace(inputs.assignment, boxes=inputs.teacher.decode())
    exact = dataclasses.replace(inputs, assignment=exact)
    bins = {"temperature": 5.0, "weight": 1.0, "normalizer": "none", "kl_divisor": 1}
    summed = total(distiller_of(get_recipe("ld").with_terms(ld=bins), KIND, KIND), exact).item()
    mean = summed / int(exact.assignment.positive.sum())
    assert value(exact, region="main", weight=1.0) == pytest.approx(mean, rel=1e-9)
    assert 0 < value(inputs, region="main", weight=1.0) < 0.9 * mean


def test_wrong_words_are_refused() -> None:
    with pytest.raises(ConfigError, match="iou is 'both'"):
        DecoupledBinsKLConfig(iou="both")  # type: ignore[arg-type]
