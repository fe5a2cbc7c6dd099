"""GFocal's losses do not depend on how a batch is split, nor decoding on the caller's autocast."""

from __future__ import annotations

import pytest
import torch

from ld_hub.errors import ConfigError
from ld_hub.layers.coders import DistributionCoder
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.gfocal import GFocalCriterion
from ld_hub.ops.dist import reduce_counts
from ld_hub.structures import DenseOutput, StepCounts, Targets
from tests.support import build


@pytest.mark.parametrize("split", [[[0, 1], [2, 3]], [[0], [1, 2, 3]], [[1], [0, 2], [3]]])
def test_a_micro_batch_without_objects_does_not_bias_the_box_losses(split: list[list[int]]) -> None:
    """Image 0 has no objects. The class loss is exact; W of a micro-step is an estimate by its own mean score."""
    output, truth = build.output(4, 20), build.targets(4, seed=0)
    assert not truth.usable[0].any()
    criterion = GFocalCriterion(DistributionCoder(16))

    def losses(part: tuple[DenseOutput, Targets], counts: StepCounts | None) -> dict[str, torch.Tensor]:
        inputs = build.term_inputs(part[0], part[0], part[1])
        return criterion(part[0], inputs.assignment, counts)

    whole = losses((output, truth), None)
    parts = build.parts_of(output, truth, split)
    local = [StepCounts.local(build.term_inputs(p, p, t).assignment) for p, t in parts]
    split_losses = [losses(part, reduce_counts(local)) for part in parts]
    mean = {name: sum(x[name] for x in split_losses) / len(parts) for name in whole}
    assert torch.allclose(mean["loss_cls"], whole["loss_cls"], rtol=1e-12)
    for name in ("loss_bbox", "loss_dfl"):
        assert torch.allclose(mean[name], whole[name], rtol=0.05), name


def test_counts_of_this_batch_alone_change_nothing() -> None:
    output, truth = build.output(3, 21), build.targets(3, seed=2)
    assignment = build.term_inputs(output, output, truth).assignment
    criterion = GFocalCriterion(DistributionCoder(16))
    alone, given = criterion(output, assignment), criterion(output, assignment, StepCounts.local(assignment))
    for name, loss in alone.items():
        assert torch.allclose(loss, given[name], rtol=1e-14)


def test_decoding_is_float32_whatever_the_caller_runs_in() -> None:
    output = build.output(2, 22, dtype=torch.float32)
    plain = output.decode()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(output.decode(), plain)


@pytest.mark.parametrize(
    "values", [{"prefilter": "locations"}, {"nms_pre": 0}, {"score_threshold": 7.0}, {"nms_iou": -0.1}]
)
def test_inference_settings_are_checked(values: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        PostprocessConfig(**values)
