"""Any function of images as a teacher, and what may be given as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ld_hub.errors import ConfigError, DataError
from ld_hub.teachers.box_teacher import BoxTeacher, PixelTeacher

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
            `Detections` say, or else as its attribute ``label_names``, or else as the student's, in their order. Who it
            is cannot be hashed: a run that is continued believes that it is still the same.
    """

    kind = "function"

    def __init__(self, function: Function) -> None:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        super().__init__(str(getattr(function, "name", name)), getattr(function, "label_names", ()))
        self.function = function
        self._most = 0  # labels that were seen where nothing names them

    def classes(self, label_names: Sequence[str], category_ids: Sequence[int]) -> tuple[str, ...]:
        """See `BoxTeacher.classes`.

        Raises:
            DataError: If a label is beyond the student's classes, and nothing names the function's.
        """
        if self.label_names:
            return self.label_names
        if self._most > len(label_names):
            raise DataError(
                f"Teacher '{self.name}' gave the label {self._most - 1}, and the student has {len(label_names)} "
                "classes: give the function an attribute label_names, or let it return Detections, which have names."
            )
        return tuple(label_names)

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
            self._most = max(self._most, 1 + int(labels.max()) if len(labels) else 0)
            names = self.label_names or tuple(str(k) for k in range(self._most))
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
