"""Size and speed of detectors with and without bins (LD paper, arXiv 2204.05957, Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ld_hub.benchmark.profile import multiply_adds, params
from ld_hub.benchmark.steps import Workload, time_inference
from ld_hub.models.factory import create_model
from ld_hub.registry import MODELS

PUBLISHED = ("retinanet_r50", "fcos_r50_caffe", "atss_r50", "gfocal_r50")  # the rows of the paper's table
SIZE = (800, 1280)  # px at which the paper counts multiply-adds
_SUFFIX = "_bins"


@dataclass(frozen=True)
class SpeedRow:
    """One architecture.

    Attributes:
        name: Registered name.
        bins: Whether its boxes are distributions over bins.
        params: Trainable parameters, as the paper counts; frozen stages are not.
        all_params: All parameters.
        multiply_adds: Of the network at `SIZE`.
        network: Seconds per image of the network, median.
        postprocessing: Seconds per image of decoding, pre-filter and NMS, median.
    """

    name: str
    bins: bool
    params: int
    all_params: int
    multiply_adds: int
    network: float
    postprocessing: float

    @property
    def images_per_second(self) -> float:
        """Network and post-processing; reading images is left out."""
        return 1 / (self.network + self.postprocessing)


def with_and_without_bins(names: Sequence[str]) -> list[str]:
    """The architectures to compare: each one without bins and with, as far as they are registered.

    GFocal has no form without bins: they are the family's own. A distilled name stands for its student.

    Args:
        names: Registered names.

    Raises:
        UnknownNameError: If a name is unknown.
    """
    pairs: list[str] = []
    for name in names:
        entry = MODELS[name]
        plain = (entry.distilled.student if entry.distilled else name).removesuffix(_SUFFIX)
        pairs += [form for form in (plain, plain + _SUFFIX) if form in MODELS]
    return list(dict.fromkeys(pairs))


def measure(name: str, work: Workload, device: torch.device, num_classes: int = 80) -> SpeedRow:
    """Size and speed of one architecture.

    Args:
        name: Registered name.
        work: Batch, image size, boxes and repeats.
        device: Where to run.
        num_classes: C.
    """
    with torch.device("meta"):
        empty = create_model(name, num_classes=num_classes)
    count, cost = params(empty), sum(multiply_adds(empty, SIZE).values())
    model = create_model(name, num_classes=num_classes).to(device)
    if work.channels_last:
        model = model.to(memory_format=torch.channels_last)
    parts = time_inference(model, work).parts
    return SpeedRow(
        name=name,
        bins=model.coder.reg_max is not None,
        params=count.trainable,
        all_params=count.total,
        multiply_adds=cost,
        network=parts["network"].median / work.batch_size,
        postprocessing=parts["post-processing"].median / work.batch_size,
    )
