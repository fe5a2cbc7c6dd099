"""A method added from outside does all that the built-in ones do, in 30 lines."""

from __future__ import annotations

import ast
import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ld_hub.distillation import RECIPES, TERMS, Distiller, Recipe, get_recipe
from ld_hub.errors import ConfigError
from tests.distillation.sides import distiller_of, inputs_of, leaves, parts_of, spec, total

FILE = Path(__file__).parents[2] / "examples/own_method.py"
GFOCAL, RETINANET = ("gfocal", False), ("retinanet", False)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the example registers stays here."""
    monkeypatch.setattr(TERMS, "_entries", dict(TERMS._entries))
    monkeypatch.setattr(RECIPES, "_entries", dict(RECIPES._entries))
    monkeypatch.delitem(sys.modules, "examples.own_method", raising=False)
    importlib.import_module("examples.own_method")


def test_it_is_short() -> None:
    text = FILE.read_text()
    tree = ast.parse(text)
    own = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.Expr)][1:]  # no docstring, no imports
    lines = {line for node in own for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    code = [line for line in lines if text.splitlines()[line - 1].strip()]
    assert 15 < len(code) <= 30


def test_it_is_a_recipe_like_others() -> None:
    recipe = get_recipe("global_bins")
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert recipe.with_terms(global_bins={"temperature": 2.0}).terms["global_bins"].temperature == 2.0
    assert "global_bins" in recipe.table()
    plain = spec(("atss", True), "other")
    with pytest.raises(ConfigError, match=r"'global_bins'.*bin distributions.*'other' has none"):
        Distiller("global_bins").setup(spec(GFOCAL), plain)


def test_against_loops() -> None:
    inputs = inputs_of(GFOCAL, GFOCAL, seed=6)
    distiller = distiller_of("global_bins", GFOCAL, GFOCAL)
    assert distiller is not None
    s, t = (o.box.detach().softmax(-1).numpy() ** 0.2 for o in (inputs.student, inputs.teacher))  # temperature 5
    s, t = s / s.sum(-1, keepdims=True), t / t.sum(-1, keepdims=True)
    boxes, confidence = inputs.student.decode().detach().numpy(), inputs.teacher.cls_logits.amax(2).sigmoid().numpy()
    matched, unmatched, positives = 0.0, 0.0, 0
    for n, a in inputs.assignment.valid.nonzero().tolist():
        kl = 25 * (t[n, a] * np.log(t[n, a] / s[n, a])).sum() / 4
        truth = int(inputs.assignment.gt_index[n, a])
        if truth < 0:
            unmatched += confidence[n, a] * kl
            continue
        positives += 1
        box, other = boxes[n, a], inputs.targets.boxes[n, truth].numpy()
        both = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None).prod()
        matched += kl * both / ((box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - both)
    others = 3 * len(inputs.student.priors) - positives
    roots = math.sqrt(positives), math.sqrt(others)
    expected = (matched / positives * roots[0] + unmatched / others * roots[1]) / sum(roots)
    assert positives > 5
    assert math.isclose(total(distiller, inputs).item(), expected, rel_tol=1e-9)


def test_it_obeys_the_laws() -> None:
    distiller = distiller_of("global_bins", GFOCAL, GFOCAL)
    assert distiller is not None
    same = inputs_of(GFOCAL, GFOCAL, same=True)
    loss = total(distiller, same)
    assert abs(loss.item()) < 1e-12 and torch.autograd.grad(loss, same.student.box)[0].abs().max() < 1e-12
    inputs = inputs_of(GFOCAL, GFOCAL, number=4, objects=1)
    expected = torch.autograd.grad(total(distiller, inputs), inputs.student.box)[0]
    losses = [total(distiller, part) for part in parts_of(inputs, [[0, 2], [1], [3]])]
    assert torch.allclose(torch.autograd.grad(torch.stack(losses).mean(), inputs.student.box)[0], expected, rtol=1e-9)


def test_it_runs_between_families() -> None:
    distiller = distiller_of("global_bins", RETINANET, GFOCAL)
    assert distiller is not None
    inputs = inputs_of(RETINANET, GFOCAL)
    total(distiller, inputs).backward()
    assert [leaf.grad is not None for leaf in leaves(inputs.student)][:2] == [False, True]
