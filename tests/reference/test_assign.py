"""ATSS assignment and the valuable localization region against the official code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ld_hub.assigners import ATSSAssigner
from ld_hub.distillation.regions import vlr_weights
from ld_hub.structures import Targets
from tests.support import golden


def _cases() -> list[tuple[str, str]]:
    return [(s, n) for s in golden.find("assign_*") for n in golden.load(s)[0]["cases"]]


@pytest.mark.parametrize(("stem", "name"), _cases())
def test_atss_and_vlr(stem: str, name: str) -> None:
    info, arrays = golden.load(stem)
    case = info["cases"][name]
    boxes, labels = torch.as_tensor(arrays[f"{name}/gt"]).reshape(-1, 4), torch.as_tensor(arrays[f"{name}/labels"])
    size = torch.tensor([case["size"]], dtype=torch.float32)
    priors = golden.priors_of(case["feature_sizes"], torch.float32)
    targets = Targets.pad([boxes], [labels], size)
    assignment = ATSSAssigner()(priors, targets, num_classes=7)
    expected = torch.as_tensor(arrays[f"{name}/atss_gt_inds"].astype(np.int64)) - 1
    different = (assignment.gt_index[0] != expected).sum().item()
    ties = case.get("topk_boundary_ties", 0)
    # where candidates tie at rank 9 the official result depends on the order inside torch.topk
    assert different <= 4 * ties, different
    if ties:
        return
    assert torch.equal(assignment.gt_index[0], expected)
    if f"{name}/vlr" in arrays.files:
        weights = vlr_weights(assignment, targets, gamma=0.25, criterion="iof")[0]
        expected_vlr = torch.as_tensor(arrays[f"{name}/vlr"])
        assert torch.equal(weights > 0, expected_vlr > 0)
        assert golden.error(weights, expected_vlr) <= 1e-5


def test_ties_are_few() -> None:
    ties = [golden.load(s)[0]["cases"][n].get("topk_boundary_ties", 0) for s, n in _cases()]
    assert len(ties) >= 9
    assert sum(t == 0 for t in ties) >= 7
