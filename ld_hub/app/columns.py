"""One detector of the page: it looks at an image once, and chooses boxes as often as a slider moves."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ld_hub.export.exported_model import ExportedModel
from ld_hub.models.detector import DenseDetector
from ld_hub.models.inference import evaluating, require_numbers
from ld_hub.preprocessing import Preprocessor, collate
from ld_hub.structures import DenseOutput, Detections

KEPT = 16  # images whose answers a column remembers
LOWEST = 0.01  # score that sliders reach


class Column(ABC):
    """A detector with a title.

    Args:
        title: What the page calls it.
    """

    fixed_nms = False  # whether the choice of boxes is inside, so that the slider of NMS does nothing

    def __init__(self, title: str) -> None:
        self.title = title
        self._answers: OrderedDict[str, Any] = OrderedDict()

    def detect(self, image: Image.Image, threshold: float, nms_iou: float) -> Detections:
        """Detections with a score above a threshold, on the CPU, px of the image.

        Args:
            image: RGB.
            threshold: Least score, exclusive, 0..1.
            nms_iou: Boxes of a class that overlap a better one by more are dropped.
        """
        key = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        if key not in self._answers:
            self._answers[key] = self.look(image)
            if len(self._answers) > KEPT:
                self._answers.popitem(last=False)
        self._answers.move_to_end(key)
        return replace(self.choose(self._answers[key], threshold, nms_iou), image=image)

    @abstractmethod
    def look(self, image: Image.Image) -> Any:
        """What is remembered of an image."""

    @abstractmethod
    def choose(self, answer: Any, threshold: float, nms_iou: float) -> Detections:
        """The detections of what is remembered."""


@dataclass(frozen=True)
class _Answer:
    """Rows of an image, and what brings them back to its px."""

    output: DenseOutput
    image_sizes: Tensor
    scale_factors: Tensor


class ModelColumn(Column):
    """A model of this library.

    Args:
        title: See `Column`.
        model: On its device.
    """

    def __init__(self, title: str, model: DenseDetector) -> None:
        super().__init__(title)
        self.model = model

    def look(self, image: Image.Image) -> _Answer:
        """See `Column.look`."""
        weight = next(self.model.parameters())
        batch = collate([Preprocessor(self.model.data_config)(image)]).to(weight.device)
        with evaluating(self.model):
            output = self.model(batch.images.to(weight.dtype))
        require_numbers(output, ["The image"])
        return _Answer(output, batch.image_sizes, batch.scale_factors)

    def choose(self, answer: _Answer, threshold: float, nms_iou: float) -> Detections:
        """See `Column.choose`."""
        config = replace(self.model.postprocess_config.letting_through(threshold), nms_iou=nms_iou)
        (found,) = self.model.postprocess(answer.output, answer.image_sizes, answer.scale_factors, config=config)
        return found.to("cpu").filter(threshold)


class ExportColumn(Column):
    """What `ld-hub export` wrote, whose choice of boxes is inside.

    Args:
        title: See `Column`.
        model: The export.
    """

    fixed_nms = True

    def __init__(self, title: str, model: ExportedModel) -> None:
        super().__init__(title)
        self.model = model

    def look(self, image: Image.Image) -> Detections:
        """See `Column.look`."""
        return self.model.predict([image], threshold=None)[0]

    def choose(self, answer: Detections, threshold: float, nms_iou: float) -> Detections:
        """See `Column.choose`."""
        return answer.filter(threshold)


def open_columns(names: list[str], device: torch.device, say: Callable[[str], None] = print) -> list[Column]:
    """The detectors of a page, with titles that tell them apart.

    Args:
        names: Names, directories, ``org/name``, or exports.
        device: Of the models.
        say: Is told which one is loaded.

    Raises:
        LdHubError: As `ld_hub.create_model`, and for damaged exports.
    """
    from ld_hub.export.fetching import find_export
    from ld_hub.models.factory import create_model

    columns: list[Column] = []
    for name, title in zip(names, titles(names), strict=True):
        say(f"loading {name}")
        export = find_export(name)
        if export is None:
            columns.append(ModelColumn(title, create_model(name, pretrained=True).to(device).eval()))
        else:
            columns.append(ExportColumn(title, ExportedModel(export)))
    return columns


def titles(names: list[str]) -> list[str]:
    """The last part of each name, numbered where it repeats.

    Args:
        names: Of the detectors.
    """
    short = [Path(name).name or name for name in names]
    parents = [f"{Path(name).parent.name}/{last}" if short.count(last) > 1 else last
               for name, last in zip(names, short, strict=True)]  # fmt: skip
    return [f"{each} ({parents[: k + 1].count(each)})" if parents.count(each) > 1 else each
            for k, each in enumerate(parents)]  # fmt: skip
