"""Single losses of both official code bases: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ld_hub.distillation.classes import binary_divergence
from ld_hub.distillation.terms import kl_divergence
from ld_hub.losses import box_loss, centerness_loss, distribution_focal_loss, focal_loss, quality_focal_loss
from tests.support import golden

BOX_KINDS = {"GIoULoss": "giou", "CIoULoss": "ciou", "DIoULoss": "diou"}
REPLAYED = {"QualityFocalLoss", "DistributionFocalLoss", "KnowledgeDistillationKLDivLoss", "FocalLoss",
            "CrossEntropyLoss", "NovelKDLoss", *BOX_KINDS}  # fmt: skip


def _cases() -> list[tuple[str, str, str]]:
    cases = []
    for stem in golden.find("losses_*"):
        info, _ = golden.load(stem)
        for name, case in info["cases"].items():
            if case["cfg"]["type"] in REPLAYED and case["outputs"]:
                cases += [(stem, name, p) for p in ("f32", "f64")]
    return cases


def _rows(kind: str, case: dict[str, Any], given: dict[str, Tensor], fork: str) -> Tensor:
    """Our loss of each row, unweighted; shape (K,) or, for distributions, (K,)."""
    pred = given["pred"]
    if kind == "QualityFocalLoss":
        return quality_focal_loss(pred, given["label"].long(), given["score"])
    if kind == "DistributionFocalLoss":
        return distribution_focal_loss(pred, given["label"])
    if kind == "FocalLoss":
        return focal_loss(pred, given["label"].long())
    if kind == "CrossEntropyLoss":
        return centerness_loss(pred, given["label"])
    if kind == "KnowledgeDistillationKLDivLoss":
        return kl_divergence(pred, given["soft_label"], case["cfg"]["T"], None)
    if kind == "NovelKDLoss":
        return binary_divergence(pred, given["soft_label"], case["kwargs"].get("beta", 1.0))
    return box_loss(pred, given["target"], BOX_KINDS[kind], reference=fork)


@pytest.mark.parametrize(("stem", "name", "precision"), _cases())
def test_value_and_gradient(stem: str, name: str, precision: str) -> None:
    info, arrays = golden.load(stem)
    case, fork = info["cases"][name], info["fork"].lower()
    dtype = golden.DTYPES[precision]
    given = {k: torch.as_tensor(arrays[f"{name}/{k}"]) for k in case["inputs"]}
    given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in given.items()}
    given["pred"].requires_grad_(True)
    kind = case["cfg"]["type"]
    rows = _rows(kind, case, given, fork)
    weight = given.get("weight", torch.ones_like(rows))
    weight = weight.mean(dim=-1) if weight.dim() > rows.dim() else weight
    rows = rows * weight
    average = case["kwargs"].get("avg_factor")
    if case["kwargs"].get("reduction_override") == "none":
        loss = rows
    elif average is None:
        loss = rows.mean() / (given["pred"].shape[1] if kind == "FocalLoss" else 1)  # a mean over classes as well
    else:
        loss = rows.sum() / (average + (torch.finfo(torch.float32).eps if fork == "bckd" else 0.0))
    loss = loss * case["cfg"].get("loss_weight", 1.0)
    loss.sum().backward()
    tolerance = golden.TOLERANCE[precision]
    assert golden.error(loss.detach(), arrays[f"{name}/loss_{precision}"]) <= tolerance
    assert golden.error(given["pred"].grad, arrays[f"{name}/grad_{precision}"]) <= tolerance


def test_cases_were_found() -> None:
    kinds = {golden.load(s)[0]["cases"][n]["cfg"]["type"] for s, n, _ in _cases()}
    assert kinds == REPLAYED
