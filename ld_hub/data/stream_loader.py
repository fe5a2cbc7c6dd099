"""Worker processes that decode rows of a stream and turn them into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ld_hub.data.annotations import parse_coco
from ld_hub.data.hub_places import encoded_image
from ld_hub.data.hub_sets import object_row
from ld_hub.data.loader import Failure, make_loader
from ld_hub.data.source import kept_boxes
from ld_hub.data.stream_order import StreamBatches, StreamRow
from ld_hub.data.stream_set import StreamSet
from ld_hub.errors import DataError, LdHubError
from ld_hub.preprocessing import Sample, TrainTransform, load_image
from ld_hub.preprocessing.augmenting import labelled_image
from ld_hub.preprocessing.bands import BandImage
from ld_hub.preprocessing.labelled import Labelled


@dataclass(frozen=True, eq=False)
class _Item:
    """A row, and the batch around it where others may be mixed in."""

    row: StreamRow
    others: Sequence[StreamRow] = ()


class _Items:
    """The batches of a stream; in the run's first steps images may be mixed with others of their batch.

    Args:
        batches: Of the stream.
        until: Number of the first batch in which nothing is mixed.
    """

    def __init__(self, batches: StreamBatches, until: float) -> None:
        self.batches, self.until = batches, until

    def __iter__(self) -> Iterator[list[_Item]]:
        for number, rows in enumerate(self.batches, self.batches.start.batches):
            yield [_Item(row, rows if number < self.until else ()) for row in rows]


class _Others(Sequence[Labelled]):
    """Images of a batch, decoded when they are asked for."""

    def __init__(self, rows: _StreamRows, items: Sequence[StreamRow]) -> None:
        self.rows, self.items = rows, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return labelled_image(self.rows.transform.config, *self.rows.decode(self.items[index]))


class _StreamRows(Dataset[Sample | Failure]):
    """Samples by row."""

    def __init__(self, dataset: StreamSet, transform: TrainTransform) -> None:
        # the rows stay where they are read: what goes to the workers has none
        self.dataset, self.transform = replace(dataset, rows=None), transform

    def __getitem__(self, item: _Item) -> Sample | Failure:
        row = item.row
        try:
            others = _Others(self, item.others) if item.others and self.transform.mixes else ()
            return self.transform(*self.decode(row), key=(row.epoch, row.key), others=others)
        except LdHubError as error:
            return Failure(error)

    def decode(self, row: StreamRow) -> tuple[Image.Image, Tensor, Tensor, Tensor]:
        """The image of a row, its boxes, labels and crowds.

        Raises:
            DataError: If the row makes no sense, or its image cannot be decoded; names it.
        """
        try:
            image = load_image(encoded_image(row.content[self.dataset.schema.image]))
            if isinstance(image, BandImage):
                raise DataError("it has more than 8 bits, or bands that are not RGB; leave --streaming out.")
            return image, *row_boxes(self.dataset, row, image.size)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from None


def row_boxes(dataset: StreamSet, row: StreamRow, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, labels and crowds of a row: those that are kept of other data, by the same rule.

    Args:
        dataset: The stream.
        row: Of it.
        size: Width and height of its image in px.

    Raises:
        DataError: If a box is none, or a class is not among those of the data.
    """
    schema, classes = dataset.schema, dataset.classes
    found = schema.objects_of(row.content)
    unknown = [value for value in found.values if value not in classes]
    if unknown:
        raise DataError(f"class {unknown[0]!r} is not among the {len(classes)} of the data set.")
    present = sorted({classes[value] for value in found.values}) or [0]  # one there has to be
    content = {
        "images": [{"id": 0, "file_name": "image", "width": size[0], "height": size[1]}],
        "annotations": [
            {"id": k, **object_row(0, classes[value], schema.sides(box), crowd, area)}
            for k, (box, value, crowd, area) in enumerate(zip(*found, strict=True), start=1)
        ],
        "categories": [{"id": label, "name": dataset.label_names[label]} for label in present],
    }
    coco = parse_coco(Path("its objects"), content)
    if not np.isfinite(coco.boxes).all():
        raise DataError("a box has a side that is no number.")
    kept = kept_boxes(coco)[1]
    labels = np.array(present, dtype=np.int64)[kept["labels"]]
    return torch.from_numpy(kept["boxes"]), torch.from_numpy(labels), torch.from_numpy(kept["crowd"])


def stream_loader(
    dataset: StreamSet,
    batches: StreamBatches,
    transform: TrainTransform,
    *,
    mixed_batches: float = math.inf,
    skip_broken: bool = False,
    workers: int = 2,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """Endless training batches with targets and image ids; which, `batches` says alone.

    Args:
        dataset: What to train on.
        batches: Of this rank.
        transform: What is done to images, keyed by (epoch, image). It mixes them with others of their batch.
        mixed_batches: Batches, counted from the run's start, in which it does.
        skip_broken: Leave out images that cannot be read, and say which.
        workers: Worker processes; 0 loads in this process.
        pin_memory: Copy batches to page-locked memory, for transfer to a GPU.

    Returns:
        A loader of `ImageBatch`; errors of workers are raised as they were.
    """
    rows, items = _StreamRows(dataset, transform), _Items(batches, mixed_batches)
    return make_loader(rows, items, workers, pin_memory, skip_broken=skip_broken)
