"""Golden data: inputs, outputs and gradients of the official LD and BCKD code, found by file name."""

from __future__ import annotations

import fnmatch
import json
import os
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ld_hub.layers.coders import DistributionCoder
from ld_hub.ops.grids import multi_anchor_grid, point_grid, square_anchor_grid
from ld_hub.structures import DenseOutput, Priors, Targets

DIRECTORY = Path(os.environ.get("LD_HUB_REFERENCE_DATA") or Path(__file__).parents[1] / "golden")
DTYPES = {"f32": torch.float32, "f64": torch.float64}
TOLERANCE = {"f32": 1e-5, "f64": 1e-9}
STRIDES = (8, 16, 32, 64, 128)


@lru_cache(maxsize=1)
def _packed() -> dict[str, bytes]:
    """The descriptions by stem; this repository keeps them in one archive, the reference directory as files."""
    if not (DIRECTORY / "descriptions.zip").is_file():
        return {path.stem: path.read_bytes() for path in DIRECTORY.glob("*.json")}
    with zipfile.ZipFile(DIRECTORY / "descriptions.zip") as archive:
        return {name.removesuffix(".json"): archive.read(name) for name in archive.namelist()}


def find(pattern: str) -> list[str]:
    """Stems of the golden cases that match a wildcard."""
    return sorted(fnmatch.filter(_packed(), pattern))


def load(stem: str) -> tuple[dict[str, Any], Any]:
    """The description and the arrays of a case (no arrays for key lists)."""
    info = json.loads(_packed()[stem])
    arrays = DIRECTORY / f"{stem}.npz"
    return info, np.load(arrays) if arrays.exists() else {}


def error(actual: Any, expected: Any) -> float:
    """``|a - b| / |b|`` of whole tensors; NaN equals NaN.

    A stored tensor whose norm is below 1e-6 (the gradient of a divergence between equal distributions) holds rounding
    noise only; it is compared as if its norm were 1e-6.
    """
    a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    if np.isnan(b).any():
        assert np.array_equal(np.isnan(a), np.isnan(b))
        a, b = np.nan_to_num(a), np.nan_to_num(b)
    size = np.linalg.norm(b)
    return float(np.linalg.norm(a - b) / max(size, 1e-6))


def sums_error(actual: Tensor, expected: Any) -> float:
    """Worst deviation of stored [sum, abs sum, square sum], relative to the abs sum (square sum: to itself)."""
    a = actual.detach().double()
    mine = np.array([float(a.sum()), float(a.abs().sum()), float(a.square().sum())])
    expected = np.asarray(expected[:3], np.float64)
    if np.isnan(expected).any():
        assert np.array_equal(np.isnan(mine), np.isnan(expected))
        return 0.0
    scale = np.array([expected[1], expected[1], expected[2]])
    return float(np.max(np.abs(mine - expected) / np.where(scale == 0, 1.0, scale)))


GRIDS: dict[str, Callable[..., Priors]] = {
    "gfl": square_anchor_grid,
    "atss": square_anchor_grid,
    "fcos": point_grid,
    "retina": multi_anchor_grid,
}


def priors_of(shapes: Any, dtype: torch.dtype, family: str = "gfl") -> Priors:
    """The grid of a case; its padded sizes are given outright, hence the divisor of 1. Anchors are of float32."""
    return GRIDS[family]([tuple(s) for s in shapes], STRIDES, size_divisor=1).to(dtype=dtype)


def targets_of(geometry: dict[str, Any], arrays: Any, dtype: torch.dtype) -> Targets:
    """Ground truths of a head case."""
    number = len(geometry["pad"])
    boxes = [torch.as_tensor(arrays[f"gt_boxes{i}"]).reshape(-1, 4).to(dtype) for i in range(number)]
    labels = [torch.as_tensor(arrays[f"gt_labels{i}"]).reshape(-1) for i in range(number)]
    return Targets.pad(boxes, labels, torch.tensor(geometry["pad"], dtype=dtype))


def levels_of(arrays: Any, prefix: str, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor], list[Tensor] | None]:
    """Class, box and centerness maps per level of a head case."""
    number = sum(1 for k in arrays.files if k.startswith(f"{prefix}_cls"))
    cls = [torch.as_tensor(arrays[f"{prefix}_cls{i}_q16"]).to(dtype) / 2048 for i in range(number)]
    box = [torch.as_tensor(arrays[f"{prefix}_reg{i}_q8"]).to(dtype) / 16 for i in range(number)]
    if f"{prefix}_cent0_q8" not in arrays.files:
        return cls, box, None
    return cls, box, [torch.as_tensor(arrays[f"{prefix}_cent{i}_q8"]).to(dtype) / 16 for i in range(number)]


def head_case(stem: str, precision: str) -> SimpleNamespace:
    """Everything a head replay needs: leaf maps, outputs, targets."""
    info, arrays = load(stem)
    dtype = DTYPES[precision]
    family = info["kind"].removeprefix("ld").removeprefix("bckd").lstrip("_") or "gfl"
    priors = priors_of(info["feature_sizes"], dtype, family)
    coder = DistributionCoder(16)
    case = SimpleNamespace(info=info, arrays=arrays, targets=targets_of(info["geometry"], arrays, dtype), coder=coder)
    case.family = family
    if not arrays.files or "s_cls0_q16" not in arrays.files:  # the official code raised: only the geometry was stored
        number, shapes, anchors = len(info["geometry"]["pad"]), info["feature_sizes"], priors.anchors_per_cell
        random = torch.Generator().manual_seed(info["seed"])
        maps = [
            [torch.randn(number, anchors * c, *s, generator=random, dtype=dtype) for s in shapes]
            for c in (info["num_classes"], 68, 1) * 2
        ]
        case.cls, case.box, case.quality = maps[:3]
        case.teacher = DenseOutput.from_levels(*maps[3:], priors, coder)
    else:
        case.cls, case.box, case.quality = levels_of(arrays, "s", dtype)
    for leaf in (*case.cls, *case.box, *(case.quality or ())):
        leaf.requires_grad_(True)
    case.student = DenseOutput.from_levels(case.cls, case.box, case.quality, priors, coder)
    if any(k.startswith("t_cls") for k in arrays.files):
        case.teacher = DenseOutput.from_levels(*levels_of(arrays, "t", dtype), priors, coder)
    return case
