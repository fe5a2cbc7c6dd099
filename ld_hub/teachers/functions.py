"""Any function of images as a teacher, and what may be given as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ld_hub.errors import ConfigError, DataError
from ld_hub.teachers.box_teacher import BoxTeacher, PixelTeacher, numbers

if TYPE_CHECKING:
    from PIL import Image

    from ld_hub.models.detector import DenseDetector
    from ld_hub.structures import Detections

Said: TypeAlias = "Detections | Mapping[str, Any]"
Function: TypeAlias = "Callable[[list[Image.Image]], Sequence[Said]]"
Given: TypeAlias = "DenseDetector | Mapping[str, DenseDetector] | BoxTeacher | Function"


class FunctionTeacher(PixelTeacher):
    """A function of images.

    Args:
        function: RGB images to one `Detections` for each, or mappings with ``boxes`` ``(K, 4)`` xyxy px, ``labels``
            ``(K,)`` from 0 on and ``scores`` ``(K,)``, as tensors, arrays or lists. Classes are called as the
            `Detections` say, or else as its attribute ``label_names``, or else as the student's, in their order. It may
            have attributes ``name``, and ``version``: a text that changes when its answers would, which a cache asks
            for; without one, a run that is continued believes that it is still the same.
    """

    kind = "function"

    def __init__(self, function: Function) -> None:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        labels, version = getattr(function, "label_names", ()), str(getattr(function, "version", ""))
        super().__init__(str(getattr(function, "name", name)), labels, digest=version)
        self.function = function

    def see(self, images: Sequence[Image.Image]) -> list[Detections]:
        """See `PixelTeacher.see`.

        Raises:
            DataError: If it does not return one result for each image, or results that are no detections.
        """
        said = list(self.function(list(images)))
        if len(said) != len(images):
            raise DataError(f"Teacher '{self.name}' gave {len(said)} results for {len(images)} images.")
        return [self._detections(each) for each in said]

    def _detections(self, said: Said) -> Detections:
        import torch

        from ld_hub.structures import Detections

        if isinstance(said, Detections):
            if self.label_names and said.label_names != self.label_names:
                raise DataError(f"Teacher '{self.name}' calls its classes {said.label_names} and {self.label_names}.")
            self.label_names = said.label_names
            return said
        try:
            boxes, scores, labels = (torch.as_tensor(said[key]) for key in ("boxes", "scores", "labels"))
            labels = labels.long().reshape(-1)
            names = self.label_names or numbers(labels)
            return Detections(boxes.reshape(-1, 4), scores.reshape(-1), labels, names)
        except (TypeError, KeyError, ValueError, RuntimeError, ConfigError) as error:
            raise DataError(
                f"Teacher '{self.name}' gave {type(said).__name__}; expected Detections, or a mapping with boxes "
                f"(K, 4), labels (K,) and scores (K,) ({error})."
            ) from None


def settled(teacher: Given) -> DenseDetector | Mapping[str, DenseDetector] | BoxTeacher:
    """What teaches: detectors of this library as they are, a function as the teacher that it is.

    Args:
        teacher: As given to `DistillationTrainer`.

    Raises:
        ConfigError: If it is a network of another library, or no teacher.
    """
    from torch import nn

    from ld_hub.models.detector import DenseDetector

    if isinstance(teacher, (BoxTeacher, DenseDetector, Mapping)):
        return teacher
    if isinstance(teacher, nn.Module) or not callable(teacher):
        raise ConfigError(
            f"The teacher is a {type(teacher).__name__}, whose outputs are not known here. Give a detector of this "
            "library, a function that takes PIL images and returns Detections, or what ld_hub.teachers.load_teacher "
            "makes: of 'hf:ORG/NAME', 'torchvision:NAME', 'boxes.json'."
        )
    return FunctionTeacher(teacher)
