"""Small batches for tests of terms and detectors."""

from __future__ import annotations

import dataclasses

import torch

from ld_hub.assigners import ATSSAssigner, FCOSAssigner, MaxIoUAssigner
from ld_hub.distillation import Distiller, TermInputs, list_recipes
from ld_hub.layers.coders import DeltaCoder, DistanceCoder, DistributionCoder
from ld_hub.ops.grids import level_shapes, multi_anchor_grid, point_grid, square_anchor_grid
from ld_hub.structures import Assignment, BoxCoder, DenseOutput, DetectorSpec, Priors, StepCounts, Targets

STRIDES = (8, 16, 32, 64, 128)
SIZE = (96, 128)
PREDICTIONS = [  # recipes that look at predictions alone, not at feature maps
    name for name in list_recipes() if not Distiller(name).needs
]
FAMILIES = ("gfocal", "atss", "fcos", "retinanet")


def targets(number: int, seed: int = 0, classes: int = 5, dtype: torch.dtype = torch.float64) -> Targets:
    """Images of one size with 0 to 4 boxes each."""
    random = torch.Generator().manual_seed(seed)
    boxes, labels = [], []
    for n in range(number):
        many = (n + seed) % 5
        corner = torch.rand(many, 2, generator=random, dtype=dtype) * 60
        boxes.append(torch.cat([corner, corner + 8 + torch.rand(many, 2, generator=random, dtype=dtype) * 50], dim=1))
        labels.append(torch.randint(0, classes, (many,), generator=random))
    return Targets.pad(boxes, labels, torch.tensor([SIZE] * number, dtype=dtype))


def grid(family: str, dtype: torch.dtype = torch.float64, scale: int = 1) -> Priors:
    """A family's grid for images `scale` times as big as `SIZE`."""
    shapes = level_shapes(scale * SIZE[0], scale * SIZE[1], STRIDES)
    if family == "fcos":
        return point_grid(shapes, STRIDES, dtype=dtype)
    if family == "retinanet":
        return multi_anchor_grid(shapes, STRIDES, scale=2.0, dtype=dtype)
    return square_anchor_grid(shapes, STRIDES, scale=4.0, dtype=dtype)


def assign(priors: Priors, truth: Targets, classes: int = 5) -> Assignment:
    """By the assigner of the family whose grid this is."""
    assigner = FCOSAssigner() if priors.anchors is None else ATSSAssigner()
    return (MaxIoUAssigner() if priors.anchors_per_cell > 1 else assigner)(priors, truth, classes)


def output(
    number: int,
    seed: int,
    classes: int = 5,
    reg_max: int = 16,
    dtype: torch.dtype = torch.float64,
    family: str = "gfocal",
    plain: bool = False,
    scale: int = 1,
) -> DenseOutput:
    """Random predictions with leaf tensors that ask for a gradient; plain regression or bins, images `scale` as big."""
    random = torch.Generator().manual_seed(seed)
    priors = grid(family, dtype, scale)
    cls = torch.randn(number, len(priors), classes, generator=random, dtype=dtype)
    bins = () if plain else (reg_max + 1,)
    box = torch.randn(number, len(priors), 4, *bins, generator=random, dtype=dtype) * (0.3 if plain else 2)
    if plain and family == "fcos":
        box = box + (2 * priors.strides).log()[:, None]  # distances of some strides
    quality = None
    if family in {"atss", "fcos"}:
        quality = torch.randn(number, len(priors), generator=random, dtype=dtype).requires_grad_()
    return DenseOutput(cls.requires_grad_(), box.requires_grad_(), quality, priors, coder(family, reg_max, plain))


def coder(family: str, reg_max: int = 16, plain: bool = False) -> BoxCoder:
    """Bins, or a family's original coder."""
    if not plain:
        return DistributionCoder(reg_max)
    return DistanceCoder("exp") if family == "fcos" else DeltaCoder((0.1, 0.1, 0.2, 0.2))


def parts_of(output: DenseOutput, truth: Targets, split: list[list[int]]) -> list[tuple[DenseOutput, Targets]]:
    """The batch cut into micro-batches of these images; gradients reach the whole."""
    parts = []
    for images in split:
        rows = {k: getattr(output, k) for k in ("cls_logits", "box", "quality")}
        piece = dataclasses.replace(output, **{k: None if v is None else v[images] for k, v in rows.items()})
        changes = {f.name: getattr(truth, f.name)[images] for f in dataclasses.fields(truth)}
        parts.append((piece, dataclasses.replace(truth, **changes)))
    return parts


def term_inputs(
    student: DenseOutput, teacher: DenseOutput, truth: Targets, counts: StepCounts | None = None
) -> TermInputs:
    """What a term sees of two outputs."""
    assignment = assign(student.priors, truth, student.num_classes)
    return TermInputs(student, teacher, assignment, truth, counts)


def spec(name: str = "student", **changes: object) -> DetectorSpec:
    """A description of a GFocal detector with 5 classes."""
    values: dict[str, object] = {
        "name": name, "family": "gfocal", "num_classes": 5, "label_names": tuple("abcde"), "reg_max": 16,
        "strides": STRIDES, "anchors_per_cell": 1, "feature_channels": 64, "tower_channels": 64,
        "mean": (0.0,) * 3, "std": (1.0,) * 3,
    }  # fmt: skip
    return DetectorSpec(**{**values, **changes})  # type: ignore[arg-type]
