"""Rows of the Hub's data sets as a directory like others: their images are written to the cache once, byte for byte."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ld_hub.data.hub_places import (
    PREFIX,
    class_values,
    encoded_image,
    find_part,
    first_line,
    open_place,
    open_rows,
    require_hub_place,
)
from ld_hub.data.source import CocoRows, Source, canonical_source, group_faults, tracked
from ld_hub.errors import DataError, LdHubError
from ld_hub.formats.object_schema import ObjectSchema, find_form, parse_columns
from ld_hub.hub import atomic_write, cache_root, disk_errors
from ld_hub.preprocessing.loading import read_size
from ld_hub.structures import ObjectRow

SAMPLE = 200  # images whose boxes say which form they have


@dataclass(frozen=True, eq=False)
class _Kept:
    """What is kept of a row.

    Attributes:
        index: Of the row.
        file: Name of its image in the folder.
        row: All but the image.
    """

    index: int
    file: str
    row: Mapping[str, Any]


def hub_source(place: str | Path, split: str, columns: str | None = None, *, streaming: bool = False) -> Source:
    """Read a part of such a data set.

    Args:
        place: Name on the Hub or directory.
        split: ``"train"``, ``"val"`` (also ``validation``, or else ``test``) or another name.
        columns: See `parse_columns`.
        streaming: Fetch this part alone, not all of the data set.

    Raises:
        HubError: If it cannot be had.
        DataError: If its columns are not understood.
        MissingFileError: If there is no such part.
    """
    require_hub_place(place, columns)
    opened = open_place(str(place), streaming=streaming)
    name = find_part(opened, split)
    rows, schema = open_rows(opened, name, columns)
    folder = cache_root() / "datasets" / "images" / f"{_slug(opened.where)}-{name}"
    kept, faults = _write_images(rows, schema.image, folder)
    given = parse_columns(columns).get("form", "")
    schema = replace(schema, form=given or find_form(_samples(kept, schema, folder), opened.where))
    made = _coco_rows(kept, schema, folder, class_values(opened, schema), faults)
    notes = [f"{opened.where}, {name}: {schema.describe()}."]
    if split == "val" and name == "test":
        notes.append(f"{opened.where} has no part 'val': 'test' is taken for it.")
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(notes), file=sys.stderr)
    return canonical_source(
        "Hub", folder, f"{opened.where}, {name}", made, problems=group_faults(folder, faults), notes=notes
    )


def _write_images(rows: Iterable[Any], column: str, folder: Path) -> tuple[list[_Kept], list[tuple[str, str]]]:
    """Put each image into the folder; also returns what went wrong."""
    kept: list[_Kept] = []
    faults: list[tuple[str, str]] = []
    with disk_errors(folder):
        for index, row in enumerate(tracked(rows, "writing images")):
            try:
                file = _write_image(row[column], index, folder)
            except (LdHubError, UnidentifiedImageError, OSError) as error:
                faults.append(("broken images", f"row {index}: {first_line(error)}"))
                continue
            kept.append(_Kept(index, file, {name: value for name, value in row.items() if name != column}))
    return kept, faults


def _write_image(image: Mapping[str, Any] | None, index: int, folder: Path) -> str:
    content = encoded_image(image)
    with Image.open(io.BytesIO(content)) as opened:
        kind = (opened.format or "png").lower().replace("jpeg", "jpg").replace("tiff", "tif")
    name = f"{index:07d}-{hashlib.sha256(content).hexdigest()[:12]}.{kind}"
    target = folder / name
    if not target.is_file() or target.stat().st_size != len(content):
        atomic_write(target, content)
    return name


def _samples(kept: Sequence[_Kept], schema: ObjectSchema, folder: Path) -> Iterator[tuple[list[Any], int, int]]:
    for one in kept[:SAMPLE]:
        with contextlib.suppress(DataError):  # told where all rows are read
            yield (schema.objects_of(one.row).boxes, *read_size(folder / one.file))


def _coco_rows(
    kept: Sequence[_Kept],
    schema: ObjectSchema,
    folder: Path,
    labels: Mapping[Any, str],
    faults: list[tuple[str, str]],
) -> CocoRows:
    """Images, boxes and classes in COCO's form; adds to the faults."""
    made = CocoRows(categories=[{"id": number, "name": name} for number, name in enumerate(labels.values(), start=1)])
    numbers = {value: number for number, value in enumerate(labels, start=1)}
    given = [one.row[schema.image_id] for one in kept] if schema.image_id else []
    own = bool(given) and len({*given}) == len(kept) and all(type(each) is int for each in given)
    for place, one in enumerate(kept):
        number = given[place] if own else one.index + 1
        try:
            found = schema.objects_of(one.row)
            width, height = read_size(folder / one.file)
        except LdHubError as error:
            faults.append(("wrong rows", f"row {one.index}: {error}"))
            continue
        made.images.append(
            {"id": number, "file_name": one.file, "width": width, "height": height, "read_from": f"row {one.index}"}
        )
        for box, value, crowd, area in zip(*found, strict=True):
            if value not in numbers:
                faults.append(("unknown classes", f"row {one.index}: class {value!r}"))
                continue
            made.annotations.append(object_row(number, numbers[value], schema.sides(box), crowd, area))
    return made


def object_row(image_id: int, category_id: int, box: Sequence[float], crowd: bool, area: float | None) -> ObjectRow:
    """An annotation in COCO's form; the box is x, y, width, height in px, the area that of the box where None."""
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": list(box),
        "area": box[2] * box[3] if area is None else float(area),
        "iscrowd": int(crowd),
    }


def _slug(where: str) -> str:
    return re.sub(r"[^\w.-]+", "_", where.removeprefix(PREFIX)).strip("_")[-80:]
