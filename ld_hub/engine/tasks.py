"""What one forward pass of training is: a batch in, named losses out.

A task is the module that goes under DDP, the optimizer and the checkpoint: the detector and, for distillation, the
parameters of the terms. The teacher is not part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ld_hub.distillation import Distiller, TermInputs
from ld_hub.engine.losses import gradient_shares
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.ops.dist import reduce_counts
from ld_hub.preprocessing import renormalize
from ld_hub.structures import Assignment, DenseOutput, ImageBatch, Priors, StepCounts, Targets, Towers

BOX_LOSSES = ("loss_bbox", "loss_dfl")  # what Individual LD replaces (LD paper, supplement, Table 1)


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
        height, width = batch.images.shape[-2:]
        priors = self.model.make_priors(height, width, batch.images.device, batch.images.dtype)
        return self.model.assign(priors, targets_of(batch))

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
            Weighted float32 scalars by name; the entries without ``share/`` add up to the training loss.
        """
        assignment = self.assign(batch) if assignment is None else assignment
        counts = step_counts([assignment]) if counts is None else counts
        output = self.model(batch.images)
        with full_precision(batch.images.device):
            return self.detection_losses(output, targets_of(batch), assignment, counts)

    def detection_losses(
        self, output: DenseOutput, targets: Targets, assignment: Assignment, counts: StepCounts
    ) -> dict[str, Tensor]:
        """Losses of the predictions against the ground truth."""
        return dict(self.model.loss(output, targets, assignment=assignment, counts=counts))


class DistillationTask(DetectionTask):
    """Training of a student by the ground truth and by a frozen teacher.

    The teacher stands outside the module tree: it is in no state dict, no optimizer and no DDP bucket, `train()` does
    not reach it, and it runs in eval mode without gradient, under the autocast of the caller.

    Args:
        student: The detector to be trained.
        teacher: A trained detector with the same classes.
        distiller: The terms; set up here for the two.
        individual_ld: Leave loss_bbox and loss_dfl to the teacher (LD paper, supplement, Table 1).

    Attributes:
        remarks: What `Distiller.setup` has to say to the user about the pair.

    Raises:
        ConfigError: If the teacher is the student itself, or `individual_ld` has no box term to rely on; whatever
            `Distiller.setup` raises for a pair that does not fit.
    """

    def __init__(
        self, student: DenseDetector, teacher: DenseDetector, distiller: Distiller, *, individual_ld: bool = False
    ) -> None:
        super().__init__(student)
        if teacher is student:
            raise ConfigError("Teacher and student are the same object: give the teacher as a second model.")
        self.remarks = distiller.setup(student.spec, teacher.spec)
        terms = distiller.recipe.terms
        if individual_ld and not any(term.kind.startswith("box_") for term in terms.values()):
            raise ConfigError(
                f"individual_ld replaces {' and '.join(BOX_LOSSES)} by a distillation term on boxes, but the recipe "
                f"'{distiller.recipe.name}' has none ({', '.join(terms)}): use 'ld' or 'vlr'."
            )
        self.distiller = distiller
        self.individual_ld = individual_ld
        self._outside = (teacher.eval().requires_grad_(False),)  # a tuple hides it from nn.Module

    @property
    def outside(self) -> tuple[nn.Module, ...]:
        """The teacher."""
        return (self.teacher,)

    @property
    def teacher(self) -> DenseDetector:
        """The frozen detector."""
        return self._outside[0]

    @property
    def student(self) -> DenseDetector:
        """The trained detector, also called `model`."""
        return self.model

    @torch.no_grad()
    def teach(self, batch: ImageBatch) -> DenseOutput:
        """The teacher's predictions for a batch that was normalised for the student.

        With a `teacher_scale` other than 1 it sees the student's images enlarged (bilinear), not the files again.
        """
        self.teacher.eval()
        images = renormalize(
            batch.images, batch.image_sizes, self.model.data_config, self.teacher.data_config
        )  # the images themselves where mean, std and channel order agree
        if self.distiller.teacher_scale != 1:
            images = F.interpolate(images, scale_factor=self.distiller.teacher_scale, mode="bilinear")
        output: DenseOutput = self.teacher(images, **self.maps)
        return output

    @property
    def maps(self) -> dict[str, bool]:
        """Which maps both detectors are asked for beside their predictions."""
        return {kind: True for kind in sorted(self.distiller.needs)}

    def forward(
        self,
        batch: ImageBatch,
        assignment: Assignment | None = None,
        counts: StepCounts | None = None,
        step: int = 0,
        shares: bool = False,
        taught: DenseOutput | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses and terms of a batch; see `DetectionTask.forward`.

        Args:
            batch: See `DetectionTask.forward`, also for all other arguments.
            assignment: See there.
            counts: See there.
            step: See there.
            shares: See there.
            taught: Of `teach` for this batch, where several students share a teacher; None asks the teacher here.
        """
        assignment = self.assign(batch) if assignment is None else assignment
        counts = step_counts([assignment]) if counts is None else counts
        teacher = self.teach(batch) if taught is None else taught
        student = self.model(batch.images, **self.maps)
        targets = targets_of(batch)
        inputs = TermInputs(
            student, teacher, assignment, targets, counts, teacher_head=_head_of(self.teacher, teacher.priors)
        )
        with full_precision(batch.images.device):
            losses = self.detection_losses(student, targets, assignment, counts)
            if self.individual_ld:
                losses = {name: value for name, value in losses.items() if name not in BOX_LOSSES}
            losses.update(self.distiller(inputs, step))
            if shares:
                losses.update(gradient_shares(student, losses))
        return losses


def _head_of(teacher: DenseDetector, priors: Priors) -> Callable[[Towers], DenseOutput]:
    """The head from its towers' taps on, in the precision that the networks run in where this is called."""
    device = priors.centers.device.type
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def resume(towers: Towers) -> DenseOutput:
        with torch.autocast(device, enabled=enabled, dtype=dtype):
            return teacher.resume(towers, priors)

    return resume


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
    """Sum of the losses, without the shares."""
    return torch.stack([value for name, value in losses.items() if not name.startswith("share/")]).sum()


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Losses are float32 whatever the networks run in."""
    return torch.autocast(device_type=device.type, enabled=False)
