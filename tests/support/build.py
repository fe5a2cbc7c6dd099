"""Small batches for tests of terms and detectors."""

from __future__ import annotations

import torch

from ld_hub.assigners import ATSSAssigner
from ld_hub.distillation import TermInputs
from ld_hub.layers.coders import DistributionCoder
from ld_hub.ops.priors import level_shapes, square_anchor_grid
from ld_hub.structures import DenseOutput, DetectorSpec, StepCounts, Targets

STRIDES = (8, 16, 32, 64, 128)
SIZE = (96, 128)


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


def output(
    number: int, seed: int, classes: int = 5, reg_max: int = 16, dtype: torch.dtype = torch.float64
) -> DenseOutput:
    """Random predictions with leaf tensors that ask for a gradient."""
    random = torch.Generator().manual_seed(seed)
    priors = square_anchor_grid(level_shapes(*SIZE, STRIDES), STRIDES, scale=4.0, dtype=dtype)
    cls = torch.randn(number, len(priors), classes, generator=random, dtype=dtype)
    box = torch.randn(number, len(priors), 4, reg_max + 1, generator=random, dtype=dtype) * 2
    return DenseOutput(cls.requires_grad_(), box.requires_grad_(), None, priors, DistributionCoder(reg_max))


def term_inputs(
    student: DenseOutput, teacher: DenseOutput, truth: Targets, counts: StepCounts | None = None
) -> TermInputs:
    """What a term sees of two outputs."""
    assignment = ATSSAssigner()(student.priors, truth, student.num_classes)
    return TermInputs(student, teacher, assignment, truth, counts)


def spec(name: str = "student", **changes: object) -> DetectorSpec:
    """A description of a GFocal detector with 5 classes."""
    values: dict[str, object] = {
        "name": name, "family": "gfocal", "num_classes": 5, "label_names": tuple("abcde"), "reg_max": 16,
        "strides": STRIDES, "anchors_per_cell": 1, "feature_channels": 64, "mean": (0.0,) * 3, "std": (1.0,) * 3,
    }  # fmt: skip
    return DetectorSpec(**{**values, **changes})  # type: ignore[arg-type]
