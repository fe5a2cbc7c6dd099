"""One photograph and its objects: given as boxes, read from a data set, or what a detector finds itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ld_hub.data import DetectionSet, load_coco, load_data
from ld_hub.errors import ConfigError, DataError, MissingFileError
from ld_hub.models.detector import DenseDetector
from ld_hub.models.inference import iter_predict
from ld_hub.preprocessing import ImageSource, load_image

UNKNOWN = -1  # label of an object whose class the detector does not know
SPLITS = ("val", "train")  # where an image is looked for if nobody says in which part of the data it is


@dataclass(frozen=True, eq=False)
class Photograph:
    """An image and the objects on it.

    Attributes:
        image: RGB, upright.
        boxes: ``(G, 4)`` xyxy px of `image`.
        labels: G classes of the detector, 0..C-1, or `UNKNOWN`.
        names: What the G objects are called.
        origin: Where the objects came from, one sentence.
    """

    image: Image.Image
    boxes: npt.NDArray[np.float32]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.boxes)


def parse_box(text: str) -> tuple[tuple[float, float, float, float], str]:
    """Read ``x1,y1,x2,y2`` or ``x1,y1,x2,y2,label``.

    Raises:
        ConfigError: If it is neither, or the box has no area.
    """
    parts = [part.strip() for part in text.split(",", maxsplit=4)]
    try:
        x1, y1, x2, y2 = (float(part) for part in parts[:4])
    except ValueError:
        raise ConfigError(f"The box '{text}' is not x1,y1,x2,y2 in px, with a label behind it or not.") from None
    if not (x2 > x1 and y2 > y1 and all(np.isfinite((x1, y1, x2, y2)))):
        raise ConfigError(f"The box '{text}' has no area; expected x1,y1,x2,y2 in px with x1 < x2 and y1 < y2.")
    return (x1, y1, x2, y2), parts[4] if len(parts) > 4 else ""


def with_boxes(image: Image.Image, texts: Sequence[str], label_names: Sequence[str]) -> Photograph:
    """Objects as the user gives them.

    Args:
        image: The photograph.
        texts: As of `parse_box`; what lies beyond the image is cut off.
        label_names: Classes of the detector; a label that is none of them is kept as a word.

    Raises:
        ConfigError: If a text is no box, or a box lies off the image.
    """
    boxes, words = [], []
    for text in texts:
        (x1, y1, x2, y2), word = parse_box(text)
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, image.width), min(y2, image.height))
        if box[0] >= box[2] or box[1] >= box[3]:
            raise ConfigError(f"The box '{text}' lies off the image, which is {image.width}x{image.height} px.")
        boxes.append(box)
        words.append(word)
    labels = _labels(words, label_names)
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Photograph(image, array, labels, tuple(word or "object" for word in words), "Objects: the boxes given.")


def from_data(path: str | Path, data: str | Path, split: str | None, label_names: Sequence[str]) -> Photograph:
    """Objects as a data set has them; crowds are left out, because no row ever answers for one.

    Args:
        path: An image of the data set, or a copy of one under the same file name.
        data: Directory of the data set, or its COCO file.
        split: Part of the data in the directory; None looks through `SPLITS`.
        label_names: Classes of the detector; objects of other classes keep their word.

    Raises:
        MissingFileError: If there is no such data, or the image is not in it.
        DataError: If the data cannot be used, or has no object on the image.
    """
    dataset, row = _find(Path(path), Path(data), split)
    records = dataset.records
    part = slice(int(records.offsets[row]), int(records.offsets[row + 1]))
    keep = ~records.crowd[part]
    names = tuple(dataset.label_names[label] for label in records.labels[part][keep])
    if not names:
        raise DataError(
            f"{dataset.source} has no object on '{Path(path).name}'. Take an image with objects, or give --boxes."
        )
    height, width = dataset.sizes[row].tolist()
    image = load_image(path, size=(width, height))
    origin = f"Objects: the boxes of {Path(data).name}."
    return Photograph(image, records.boxes[part][keep], _labels(names, label_names), names, origin)


def detected(image: ImageSource, model: DenseDetector, score: float) -> Photograph:
    """What a detector finds itself, best first.

    Args:
        image: The photograph.
        model: The detector.
        score: Least score, exclusive.

    Raises:
        DataError: If it finds nothing.
    """
    picture = load_image(image)
    found = next(iter_predict(model, [picture], threshold=score))
    if not len(found):
        raise DataError(
            f"The model finds nothing with a score above {score:g}, so there is no object to look at. Lower --score, "
            "or say where objects are: --data DIR or --boxes x1,y1,x2,y2."
        )
    boxes = np.array(found.boxes.tolist(), dtype=np.float32)
    origin = f"No boxes were given, so the objects are the model's own detections with a score above {score:g}."
    return Photograph(picture, boxes, tuple(found.labels.tolist()), tuple(found.names), origin)


def _labels(words: Sequence[str], label_names: Sequence[str]) -> tuple[int, ...]:
    known = {name: label for label, name in enumerate(label_names)}
    return tuple(known.get(word, UNKNOWN) for word in words)


def _find(path: Path, data: Path, split: str | None) -> tuple[DetectionSet, int]:
    """The data set that holds an image, and its row there: the file itself, or else the one file of its name."""
    parts = _parts(data.expanduser(), split)
    named: list[tuple[DetectionSet, int]] = []
    for dataset in parts:
        for row, text in enumerate(dataset.records.paths.to_pylist()):
            if os.path.basename(text) == path.name:
                if os.path.exists(text) and path.samefile(text):
                    return dataset, row
                named.append((dataset, row))
    if len(named) == 1:
        return named[0]
    places = " and ".join(dict.fromkeys(dataset.source for dataset, _ in named) or [part.source for part in parts])
    if named:
        raise DataError(f"{places} has {len(named)} images called '{path.name}'; give the path of one, or --split.")
    raise MissingFileError(
        f"'{path.name}' is not among the images of {places}. Name the part of the data that holds it (--split), or "
        "give its objects as --boxes x1,y1,x2,y2."
    )


def _parts(data: Path, split: str | None) -> list[DetectionSet]:
    """The data set of a COCO file, of one part of a directory, or of those parts that it has."""
    if data.suffix == ".json":
        return [load_coco(images=data.parent, annotations=data, check_files=False)]
    if split is not None:
        return [load_data(data, split, check_files=False)]
    parts, missing = [], None
    for name in SPLITS:
        try:
            parts.append(load_data(data, name, check_files=False))
        except MissingFileError as error:
            missing = missing or error
    if missing is not None and not parts:
        raise missing
    return parts
