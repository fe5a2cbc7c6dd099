"""What a detector found on one image, in pixels of that image."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ld_hub.drawing import draw_detections, save_picture
from ld_hub.errors import ConfigError
from ld_hub.structures.coco_rows import PipelineRow, ResultRow

if TYPE_CHECKING:
    from pandas import DataFrame

SHOWN_ROWS = 12  # rows that printing shows; the rest is counted


class FiftyOneRow(TypedDict):
    """One object as FiftyOne takes it; ``bounding_box`` is x, y, width, height as fractions of the image."""

    label: str
    bounding_box: list[float]
    confidence: float


class Detection(NamedTuple):
    """One found object: its class name, its score in 0..1, and its box ``(x1, y1, x2, y2)`` in px."""

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The objects found on one image.

    Printing shows a table, iterating yields one `Detection` per object, and slices, index lists and masks select.

    Attributes:
        boxes: ``(K, 4)`` xyxy px of the original image.
        scores: ``(K,)`` in 0..1.
        labels: ``(K,)`` int64 in 0..C-1.
        label_names: C class names.
        category_ids: C dataset category ids that `to_coco` writes; 0..C-1 where none are given.
        image: The image itself, for `draw`; None where it was not kept.

    Raises:
        ConfigError: If the shapes do not fit each other.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...] = ()
    image: Image.Image | None = field(default=None)

    def __post_init__(self) -> None:
        count = self.boxes.shape[0] if self.boxes.ndim else 0
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,) or self.labels.shape != (count,):
            raise ConfigError(
                f"Detections need boxes (K, 4), scores (K,) and labels (K,); found {tuple(self.boxes.shape)}, "
                f"{tuple(self.scores.shape)} and {tuple(self.labels.shape)}."
            )
        object.__setattr__(self, "label_names", tuple(self.label_names))
        ids = tuple(self.category_ids) or tuple(range(len(self.label_names)))
        object.__setattr__(self, "category_ids", ids)
        if len(ids) != len(self.label_names):
            raise ConfigError(
                f"Detections have {len(self.label_names)} label names but {len(ids)} category ids; "
                "give one id per name, or none for 0..C-1."
            )

    @classmethod
    def empty(cls, label_names: tuple[str, ...], category_ids: tuple[int, ...] = ()) -> Detections:
        """No objects, of these C classes."""
        none = torch.zeros(0)
        return cls(torch.zeros(0, 4), none, none.long(), label_names, category_ids)

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def __iter__(self) -> Iterator[Detection]:
        boxes, scores = self.boxes.tolist(), self.scores.tolist()
        for box, score, name in zip(boxes, scores, self.names, strict=True):
            yield Detection(name, score, tuple(box))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | list[int] | Tensor) -> Detections: ...
    def __getitem__(self, index: int | np.integer[Any] | slice | list[int] | Tensor) -> Detection | Detections:
        if not isinstance(index, (slice, list)) and getattr(index, "ndim", 0) == 0:  # also NumPy's and torch's scalars
            index = operator.index(index)
            box, label = self.boxes[index].tolist(), int(self.labels[index])
            return Detection(self.label_names[label], float(self.scores[index]), tuple(box))
        if isinstance(index, list):
            chosen = torch.tensor(index, device=self.boxes.device)
            index = chosen if chosen.dtype == torch.bool else chosen.long()
        return replace(self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index])

    def __repr__(self) -> str:
        if not len(self):
            return "Detections: no objects"
        rows = [(d.label, f"{d.score:.3f}", [f"{side:.1f}" for side in d.box]) for d in self[:SHOWN_ROWS]]
        wide = max(5, *(len(name) for name, _, _ in rows))
        lines = [
            f"Detections: {len(self)} object{'s' if len(self) > 1 else ''}, boxes in px",
            f"  {'label':<{wide}}  score  {'x1':>7} {'y1':>7} {'x2':>7} {'y2':>7}",
        ]
        lines += [f"  {name:<{wide}}  {score}  {' '.join(f'{side:>7}' for side in box)}" for name, score, box in rows]
        if len(self) > SHOWN_ROWS:
            lines.append(f"  ... and {len(self) - SHOWN_ROWS} more")
        return "\n".join(lines)

    @property
    def names(self) -> list[str]:
        """Class name of each object."""
        return [self.label_names[label] for label in self.labels.tolist()]

    def to(self, device: torch.device | str) -> Detections:
        """Return the same detections with their tensors on `device`."""
        return replace(self, boxes=self.boxes.to(device), scores=self.scores.to(device), labels=self.labels.to(device))

    def filter(self, threshold: float) -> Detections:
        """Return the detections whose score is above `threshold`."""
        return self[self.scores > threshold]

    def to_list(self) -> list[PipelineRow]:
        """Return what the Hugging Face object-detection pipeline returns.

        Returns:
            ``{"score": float, "label": str, "box": {"xmin": int, "ymin": int, "xmax": int, "ymax": int}}`` per object,
            in the order of the detections; box sides are cut to whole px, as the pipeline does.
        """
        rows = zip(self.scores.tolist(), self.names, self.boxes.int().tolist(), strict=True)
        return [
            {"score": score, "label": name, "box": {"xmin": x1, "ymin": y1, "xmax": x2, "ymax": y2}}
            for score, name, (x1, y1, x2, y2) in rows
        ]

    def to_coco(self, image_id: int) -> list[ResultRow]:
        """Return the rows of a COCO results file.

        Args:
            image_id: Id of the image in the annotation file.

        Returns:
            ``{"image_id", "category_id", "bbox": [x, y, width, height] px, "score"}`` per object.
        """
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return [
            {
                "image_id": image_id,
                "category_id": self.category_ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in rows
        ]

    def to_pandas(self) -> DataFrame:
        """Return a table with the columns ``xmin, ymin, xmax, ymax`` (px), ``score``, ``label`` (name) and ``class``.

        Raises:
            ConfigError: If pandas is not installed.
        """
        pandas = _optional("pandas", "to_pandas")
        columns = dict(zip(("xmin", "ymin", "xmax", "ymax"), self.boxes.cpu().T.numpy(), strict=True))
        rest = {"score": self.scores.cpu().numpy(), "label": self.names, "class": self.labels.cpu().numpy()}
        return pandas.DataFrame(columns | rest)

    def to_supervision(self) -> Any:
        """Return a ``supervision.Detections``: ``xyxy`` px, ``confidence``, ``class_id``, ``data["class_name"]``.

        Raises:
            ConfigError: If supervision is not installed.
        """
        supervision = _optional("supervision", "to_supervision")
        return supervision.Detections(
            xyxy=self.boxes.cpu().float().numpy().reshape(-1, 4),
            confidence=self.scores.cpu().float().numpy(),
            class_id=self.labels.cpu().numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def to_fiftyone(self, width: int | None = None, height: int | None = None) -> list[FiftyOneRow]:
        """Return what ``fiftyone.Detection(**row)`` takes.

        Args:
            width: Of the image in px; by default that of the kept image.
            height: Likewise.

        Returns:
            ``{"label", "bounding_box": [x, y, width, height] as fractions of the image, "confidence"}`` per object.

        Raises:
            ConfigError: If the size is not given and no image was kept.
        """
        if width is None or height is None:
            if self.image is None:
                raise ConfigError(
                    "to_fiftyone() needs the size of the image, which was not kept: give width and height."
                )
            width, height = self.image.size
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.names, strict=True)
        return [
            {
                "label": name,
                "bounding_box": [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
                "confidence": score,
            }
            for (x1, y1, x2, y2), score, name in rows
        ]

    def draw(self, image: Image.Image | None = None, *, scale: int | None = None) -> Image.Image:
        """Draw the detections on the image.

        Args:
            image: The picture to draw on, of the size the boxes refer to; by default the one that was detected on.
            scale: Whole factor to enlarge the picture by; by default small images grow until labels are readable.

        Returns:
            A new RGB picture.

        Raises:
            ConfigError: If no image is given and none was kept.
        """
        image = self.image if image is None else image
        if image is None:
            raise ConfigError(
                "These detections keep no image to draw on; pass one: detections.draw(PIL.Image.open(path))."
            )
        boxes, labels, scores = self.boxes.tolist(), self.labels.tolist(), self.scores.tolist()
        return draw_detections(image, boxes, labels, scores, label_names=self.label_names, scale=scale)

    def save(self, path: str | Path, image: Image.Image | None = None) -> Path:
        """Draw the detections and write the picture; the suffix chooses the format.

        Args:
            path: Where to; an existing file is replaced in one step.
            image: See `draw`.

        Returns:
            `path`.

        Raises:
            ConfigError: If there is no image to draw on, or no picture format has this suffix.
        """
        return save_picture(self.draw(image), path)


def _optional(package: str, method: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(f"Detections.{method}() needs {package}: pip install {package}.") from None
