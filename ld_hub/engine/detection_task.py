"""What one forward pass of training is: a batch in, named losses out.

A task is the module that goes under DDP, the optimizer and the checkpoint: the detector and, for distillation, the
parameters of the terms. The teacher is not part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.dist import reduce_counts
from ld_hub.optim.losses import NOTES
from ld_hub.structures import Assignment, DenseOutput, ImageBatch, StepCounts, Targets


class DetectionTask(nn.Module):
    """Plain training of a detector.

    Args:
        model: The detector to be trained.
    """

    def __init__(self, model: DenseDetector) -> None:
        super().__init__()
        self.model = model

    @property
    def outside(self) -> tuple[nn.Module, ...]:
        """Networks that are used but not trained, and are no part of this module."""
        return ()

    @torch.no_grad()
    def assign(self, batch: ImageBatch) -> Assignment:
        """Match the ground truths of a batch to the rows of the head; needs no predictions."""
        return self._assign(batch, targets_of(batch))

    def _assign(self, batch: ImageBatch, targets: Targets) -> Assignment:
        height, width = batch.images.shape[-2:]
        priors = self.model.make_priors(height, width, batch.images.device, batch.images.dtype)
        return self.model.assign(priors, targets)

    def forward(
        self,
        batch: ImageBatch,
        assignment: Assignment | None = None,
        counts: StepCounts | None = None,
        step: int = 0,
        shares: bool = False,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch: Images with targets, on the model's device.
            assignment: Of `assign` for this batch; None makes it here.
            counts: Of `step_counts` for the whole optimizer step; None takes this batch over all ranks.
            step: 0-based optimizer step, which decides the terms that are active.
            shares: Add ``share/TERM`` entries (`gradient_shares`).

        Returns:
            Weighted float32 scalars by name; the entries without ``share/`` and ``scale/`` add up to the training
            loss.
        """
        assignment = self.assign(batch) if assignment is None else assignment
        counts = step_counts([assignment]) if counts is None else counts
        output = self.model(batch.images)
        with full_precision(batch.images.device):
            return self.detection_losses(output, targets_of(batch), assignment, counts)

    def begin(self, steps: int) -> None:
        """To be called once the length of the run is known, before its first step.

        Args:
            steps: Optimizer steps of the whole run, also of one that is continued.
        """

    def after_step(self) -> None:
        """To be called after each optimizer step, on every rank."""

    def detection_losses(
        self, output: DenseOutput, targets: Targets, assignment: Assignment, counts: StepCounts
    ) -> dict[str, Tensor]:
        """Losses of the predictions against the ground truth."""
        return dict(self.model.loss(output, targets, assignment=assignment, counts=counts))


def targets_of(batch: ImageBatch) -> Targets:
    """The ground truths of a training batch.

    Raises:
        ConfigError: If the batch has none.
    """
    if batch.targets is None:
        raise ConfigError("This batch has no targets: a task trains on batches of train_loader.")
    return batch.targets


def step_counts(assignments: Sequence[Assignment]) -> StepCounts:
    """Normalisers of a whole optimizer step: mean over its micro-batches and over all ranks."""
    return reduce_counts([StepCounts.local(assignment) for assignment in assignments])


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of the losses, without the notes beside them (shares, scales)."""
    return torch.stack([value for name, value in losses.items() if not name.startswith(NOTES)]).sum()


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Losses are float32 whatever the networks run in."""
    return torch.autocast(device_type=device.type, enabled=False)
