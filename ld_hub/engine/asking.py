"""Asking a teacher: its predictions for images that were prepared for a student."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias, overload

import torch
import torch.nn.functional as F

from ld_hub.models.detector import DenseDetector
from ld_hub.models.feature_teacher import FeatureTeacher
from ld_hub.preprocessing import renormalize
from ld_hub.structures import DenseOutput, Encoding, ImageBatch, Priors, Towers

Teacher: TypeAlias = DenseDetector | FeatureTeacher
Said: TypeAlias = DenseOutput | Encoding  # what a teacher says to a batch


class Memory(Protocol):
    """What a teacher has said before (`ld_hub.engine.teacher_cache`)."""

    def read(self, batch: ImageBatch) -> DenseOutput:
        """Its predictions for the images of a batch (`ImageBatch.contents`)."""
        ...


def maps_of(needs: Iterable[str]) -> dict[str, bool]:
    """The keywords that ask a detector for maps beside its predictions.

    Args:
        needs: ``"features"``, ``"towers"`` (`ld_hub.distillation.Distiller.needs`).
    """
    return {kind: True for kind in sorted(needs)}


@overload
def ask(
    teacher: DenseDetector,
    batch: ImageBatch,
    student: DenseDetector,
    scale: float,
    needs: Iterable[str],
    memory: Memory | None = None,
) -> DenseOutput: ...


@overload
def ask(
    teacher: Teacher,
    batch: ImageBatch,
    student: DenseDetector,
    scale: float,
    needs: Iterable[str],
    memory: Memory | None = None,
) -> Said: ...


@torch.no_grad()
def ask(
    teacher: Teacher,
    batch: ImageBatch,
    student: DenseDetector,
    scale: float,
    needs: Iterable[str],
    memory: Memory | None = None,
) -> Said:
    """What a teacher says to a batch that was normalised for a student: its predictions, or an encoder's maps.

    Args:
        teacher: Put into eval mode.
        batch: Images and their sizes.
        student: Whose input the images are.
        scale: Size of the teacher's images over the student's; it sees these enlarged (bilinear), not the files again.
        needs: Maps that a detector hands over as well: ``"features"``, ``"towers"``.
        memory: Where a detector's predictions are read from, instead of running the network.
    """
    if memory is not None:
        return memory.read(batch)
    teacher.eval()
    # the images themselves where mean, std and channel order agree
    images = renormalize(batch.images, batch.image_sizes, student.data_config, teacher.data_config)
    if scale != 1:
        images = F.interpolate(images, scale_factor=scale, mode="bilinear")
    if isinstance(teacher, FeatureTeacher):
        return Encoding(teacher(images), teacher.spec.seen_at(scale).strides)
    output: DenseOutput = teacher(images, **maps_of(needs))
    return output


def head_of(teacher: DenseDetector, priors: Priors) -> Callable[[Towers], DenseOutput]:
    """The head from its towers' taps on, in the precision that the networks run in where this is called."""
    device = priors.centers.device.type
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)

    def resume(towers: Towers) -> DenseOutput:
        with torch.autocast(device, enabled=enabled, dtype=dtype):
            return teacher.resume(towers, priors)

    return resume
