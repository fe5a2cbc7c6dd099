"""What torch does with any module works: copies, pickles, exported and traced programs, trees of outputs."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.structures import DenseOutput

SMALL: dict[str, Any] = {"backbone": "test_resnet", "fpn_channels": 16, "head_width": 16, "head_depth": 1}
FAMILIES = ("gfocal", "atss", "fcos", "retinanet")


def detector(family: str) -> DenseDetector:
    torch.manual_seed(0)
    return create_model(family, num_classes=3, pretrained_backbone=False, **SMALL).eval()


def images(height: int = 64, width: int = 96) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def require_equal(one: DenseOutput, other: DenseOutput) -> None:
    """Bit for bit, and decoded by an equal coder on an equal grid."""
    assert torch.equal(one.cls_logits, other.cls_logits) and torch.equal(one.box, other.box)
    assert (one.quality is None) == (other.quality is None)
    if one.quality is not None and other.quality is not None:
        assert torch.equal(one.quality, other.quality)
    assert one.coder == other.coder and one.priors.level_shapes == other.priors.level_shapes
    assert torch.equal(one.decode(), other.decode())
    assert torch.equal(one.priors.valid(torch.tensor([[40, 60]])), other.priors.valid(torch.tensor([[40, 60]])))


@pytest.mark.parametrize("family", FAMILIES)
def test_copies_and_pickles_predict_the_same(family):
    model = detector(family)
    expected = model(images())
    require_equal(copy.deepcopy(model)(images()), expected)
    require_equal(pickle.loads(pickle.dumps(model))(images()), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_exported_program_hands_over_the_same_output(family):
    model, place = detector(family), io.BytesIO()
    torch.export.save(torch.export.export(model, (images(),)), place)
    place.seek(0)
    require_equal(torch.export.load(place).module()(images()), model(images()))


@pytest.mark.filterwarnings("ignore")  # torch's own: tracing is deprecated, and sizes are constants of the trace
@pytest.mark.parametrize("family", FAMILIES)
def test_a_traced_program_hands_over_the_tensors(family):
    model = detector(family)
    traced = torch.jit.trace(model, (images(),))
    other = images() * 2
    expected = model(other)
    found = traced(other)
    kept = [each for each in (expected.cls_logits, expected.box, expected.quality) if each is not None]
    assert len(found) == len(kept)
    for one, two in zip(found, kept, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_are_trees_of_tensors(family):
    model = detector(family)
    output = model(images(), features=True, towers=True)
    leaves, form = pytree.tree_flatten(output)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    assert len(tensors) >= 2 + 5 + 10 + 3
    require_equal(pytree.tree_unflatten(leaves, form), output)
    doubled = pytree.tree_map_only(Tensor, lambda leaf: leaf.double(), output)
    assert doubled.box.dtype == torch.float64 and doubled.towers[0][0].dtype == torch.float64
    again = pytree.treespec_loads(pytree.treespec_dumps(form))
    require_equal(pytree.tree_unflatten(leaves, again), output)
