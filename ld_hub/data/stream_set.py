"""A data set that is read while it is trained on: rows of the Hub that never lie on disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ld_hub.data.hub_places import (
    class_values,
    encoded_image,
    find_part,
    is_hub_place,
    open_place,
    open_rows,
    require_hub_place,
)
from ld_hub.data.source import tracked
from ld_hub.errors import ConfigError, DataError
from ld_hub.formats.object_schema import ObjectSchema, find_form, parse_columns
from ld_hub.preprocessing.loading import read_size

if TYPE_CHECKING:
    from ld_hub.data.detection_set import DetectionSet

BUFFER = 1000  # rows that are shuffled among each other
SAMPLE = 100  # first images, whose boxes say which form they have


@dataclass(frozen=True, eq=False)
class StreamSet:
    """Rows of the Hub in their order there; `ld_hub.data.stream_order` shuffles them and deals them out to ranks.

    Attributes:
        rows: `datasets.IterableDataset`; images are bytes or paths.
        schema: Which columns are meant.
        classes: Label 0..C-1 by the value that rows have for a class.
        label_names: C names.
        images: Number of rows.
        source: What messages call it.
        buffer: Rows that are shuffled among each other: encoded, up to twice as many are in memory on each rank.
        with_objects: Pass over rows without a box.
    """

    rows: Any
    schema: ObjectSchema
    classes: Mapping[Any, int]
    label_names: tuple[str, ...]
    images: int
    source: str
    buffer: int = BUFFER
    with_objects: bool = False

    def __len__(self) -> int:
        return self.images

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.label_names)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Those that a `DetectionSet` of the same rows has."""
        return tuple(range(1, len(self.label_names) + 1))

    @property
    def annotation_file(self) -> str:
        """There is none: where the rows come from."""
        return self.source

    def without_empty(self) -> StreamSet:
        """The rows that have at least one box."""
        return replace(self, with_objects=True)


TrainingSet: TypeAlias = "DetectionSet | StreamSet"


def load_stream(
    place: str | Path,
    split: str = "train",
    *,
    columns: str | None = None,
    buffer: int = BUFFER,
) -> StreamSet:
    """Open rows of the Hub (or of a directory of parquet or arrow files) to be read while they are trained on.

    Boxes that cannot be trained on are left out as on other data, row by row and without being counted. Images are
    decoded in 8 bit.

    Args:
        place: ``hf:org/name@revision:config`` or a directory.
        split: Name of the part.
        columns: See `ld_hub.formats.object_schema.parse_columns`.
        buffer: See `StreamSet`.

    Raises:
        ConfigError: If the place is neither, or `buffer` is below 1.
        HubError: If it cannot be had.
        DataError: If its columns are not understood, or it is empty.
        MissingFileError: If there is no such part.
    """
    require_stream(place, columns, buffer)
    opened = open_place(str(place), streaming=True)
    part = find_part(opened, split)
    rows, schema = open_rows(opened, part, columns)
    where = f"{opened.where}, {part}"
    values = class_values(opened, schema)
    classes = {value: label for label, value in enumerate(values)}
    form = parse_columns(columns).get("form", "")
    schema = replace(schema, form=form or find_form(_samples(rows, schema), where))
    found = StreamSet(rows, schema, classes, tuple(values.values()), _count(rows, schema, part), where, buffer)
    if os.environ.get("RANK", "0") == "0":
        files = f"{rows.num_shards} files" if rows.num_shards > 1 else "one file"
        print(f"{where}: {schema.describe()}; streamed from {files}, {len(found)} images.", file=sys.stderr)
    return found


def require_stream(place: str | Path | None, columns: str | None = None, buffer: int = BUFFER) -> None:
    """Refuse what cannot be streamed, without asking the Hub.

    Raises:
        ConfigError: If the place is no name on the Hub nor a directory of parquet or arrow files, or a value is wrong.
    """
    if place is None or not is_hub_place(place):
        raise ConfigError(
            f"'{place}' is not streamed: that is for hf:ORG/NAME and for directories of parquet files or of datasets' "
            "save_to_disk. Other data are files already, and read as they are needed: leave --streaming out."
        )
    if buffer < 1:
        raise ConfigError(
            f"shuffle_buffer is the number of images shuffled among each other, at least 1, got {buffer}."
        )
    require_hub_place(place, columns)


def require_files(dataset: TrainingSet | None, what: str) -> DetectionSet | None:
    """The data set, if it is no stream.

    Args:
        dataset: To train on.
        what: What needs it, for the message.

    Raises:
        ConfigError: If it is a stream.
    """
    if isinstance(dataset, StreamSet):
        raise ConfigError(f"{what} needs training images that are files: leave --streaming (load_stream) out.")
    return dataset


def require_outlines(dataset: TrainingSet | None) -> None:
    """Refuse a data set that objects cannot be cut out of.

    Raises:
        ConfigError: If it has no outlines of objects.
    """
    if isinstance(dataset, StreamSet) or dataset is None or dataset.outlines is None:
        raise ConfigError(
            "copy_paste cuts objects out along their outlines, and the images to train on have none here: "
            "load_data(..., outlines=True) reads them; else leave it out."
        )


def _samples(rows: Any, schema: ObjectSchema) -> list[tuple[list[Any], int, int]]:
    """Boxes, width and height of the first rows that can be read."""
    found = []
    for row in rows.take(SAMPLE):
        try:
            boxes = schema.objects_of(row).boxes
            size = read_size(encoded_image(row[schema.image]))
        except DataError:  # told where it is trained on
            continue
        found.append((boxes, *size))
    return found


def _count(rows: Any, schema: ObjectSchema, part: str) -> int:
    """Rows: as the data set says, or else counted."""
    said = (rows.info.splits or {}).get(part)
    number = said.num_examples if said is not None and said.num_examples else 0
    column = schema.objects or schema.category
    return int(number) or sum(1 for _ in tracked(rows.select_columns([column]), "counting images"))
