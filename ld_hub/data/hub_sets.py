"""Data sets of the Hub (``hf:org/name@revision:config``), directories of `datasets.save_to_disk`, and of parquet files.

Their images are written to the cache once, byte for byte; from there on they are a directory like others.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ld_hub.data.source import CocoRows, Source, canonical_source, group_faults, tracked
from ld_hub.errors import ConfigError, DataError, HubError, LdHubError, MissingFileError
from ld_hub.formats.object_schema import ObjectSchema, find_form, find_schema, parse_columns
from ld_hub.formats.splits import SPLITS
from ld_hub.hub import atomic_write, cache_root, disk_errors, offline
from ld_hub.hub.reach import unreachable
from ld_hub.preprocessing.loading import read_size

PREFIX = "hf:"
SAMPLE = 200  # images whose boxes say which form they have

_NAME = re.compile(r"hf:(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?(:(?P<config>[\w.-]+))?")
_PARQUET = re.compile(r"(?P<split>[a-z]+)([-_.].*)?\.parquet")


@dataclass(frozen=True)
class _Opened:
    """A data set that was opened: its parts, and the names of its classes where it says them."""

    where: str
    parts: Mapping[str, Any]


def is_hub_place(place: str | Path) -> bool:
    """Whether a data place is a name on the Hub, or a directory of arrow or parquet files."""
    if str(place).startswith(PREFIX):
        return True
    root = Path(place).expanduser()
    return (root / "dataset_dict.json").is_file() or (root / "state.json").is_file() or bool(_parquet_files(root))


def require_hub_place(place: str | Path, columns: str | None = None) -> None:
    """Refuse a name that cannot be one, without asking the Hub.

    Raises:
        ConfigError: If it is none, or `columns` is wrong.
    """
    parse_columns(columns)
    if str(place).startswith(PREFIX) and _NAME.fullmatch(str(place)) is None:
        raise ConfigError(
            f"'{place}' is no data set of the Hub; expected hf:ORG/NAME, @REVISION and :CONFIG behind it."
        )


def hub_source(place: str | Path, split: str, columns: str | None = None) -> Source:
    """Read a part of such a data set.

    Args:
        place: Name on the Hub or directory.
        split: ``"train"``, ``"val"`` (also ``validation``, or else ``test``) or another name.
        columns: See `parse_columns`.

    Raises:
        HubError: If it cannot be had.
        DataError: If its columns are not understood.
        MissingFileError: If there is no such part.
    """
    require_hub_place(place, columns)
    opened = _open(str(place))
    name = _part(opened, split)
    rows = opened.parts[name]
    schema = find_schema(_keys(rows.features), parse_columns(columns), opened.where)
    rows = _encoded(rows, schema.image)
    folder = cache_root() / "datasets" / "images" / f"{_slug(opened.where)}-{name}"
    files, faults = _write_images(rows, schema.image, folder)
    given = parse_columns(columns).get("form", "")
    schema = replace(schema, form=given or find_form(_samples(rows, schema, files, folder), opened.where))
    made = _coco_rows(rows, schema, files, folder, _labels(opened, schema), faults)
    notes = [f"{opened.where}, {name}: {schema.describe()}."]
    if split == "val" and name == "test":
        notes.append(f"{opened.where} has no part 'val': 'test' is taken for it.")
    if os.environ.get("RANK", "0") == "0":
        print("\n".join(notes), file=sys.stderr)
    return canonical_source(
        "Hub", folder, f"{opened.where}, {name}", made, problems=group_faults(folder, faults), notes=notes
    )


def _open(place: str) -> _Opened:
    """All parts of a data set."""
    import datasets

    found = _NAME.fullmatch(place)
    if found is None:
        root = Path(place).expanduser()
        if _parquet_files(root):
            files = {split: list(map(str, paths)) for split, paths in _parquet_files(root).items()}
            return _Opened(place, datasets.load_dataset("parquet", data_files=files))
        loaded = datasets.load_from_disk(str(root))
        return _Opened(place, loaded if isinstance(loaded, dict) else {"train": loaded})
    alone, usual = offline() or unreachable(), datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = usual or bool(alone)  # the one way to keep it from trying for a minute
        parts = datasets.load_dataset(found["repo"], found["config"], revision=found["revision"])
    except (OSError, ValueError, RuntimeError) as error:
        reason = f"the Hub cannot be reached ({alone})" if alone else _first_line(error)
        raise HubError(f"The data set '{place}' cannot be had: {reason}.") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = usual
    return _Opened(place, parts)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


def _part(opened: _Opened, split: str) -> str:
    wanted = (*SPLITS.get(split, (split,)), *(("test",) if split == "val" else ()))
    found = next((name for name in wanted if name in opened.parts), None)
    if found is None:
        raise MissingFileError(
            f"{opened.where} has no part '{split}' (looked for {', '.join(wanted)}). It has {', '.join(opened.parts)}."
        )
    return str(found)


def _parquet_files(root: Path) -> dict[str, list[Path]]:
    """Parquet files of a directory, or of its ``data/``, by the split that their names begin with."""
    found: dict[str, list[Path]] = {}
    for file in sorted([*root.glob("*.parquet"), *(root / "data").glob("*.parquet")]):
        match = _PARQUET.fullmatch(file.name)
        if match is not None:
            found.setdefault(match["split"], []).append(file)
    return found


def _keys(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Columns, each with the keys in it."""
    inner = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return {name: tuple(feature) if isinstance(feature, dict) else () for name, feature in inner.items()}


def _encoded(rows: Any, column: str) -> Any:
    """Rows whose images are bytes or paths, not decoded."""
    import datasets

    return rows.cast_column(column, datasets.Image(decode=False))


def _write_images(rows: Any, column: str, folder: Path) -> tuple[dict[int, str], list[tuple[str, str]]]:
    """Put each image into the folder; returns the file name of each row, and what went wrong."""
    files: dict[int, str] = {}
    faults: list[tuple[str, str]] = []
    with disk_errors(folder):
        for index in tracked(range(len(rows)), "writing images"):
            image = rows[index][column]
            try:
                files[index] = _write_image(image, index, folder)
            except (LdHubError, UnidentifiedImageError, OSError) as error:
                faults.append(("broken images", f"row {index}: {_first_line(error)}"))
    return files, faults


def _write_image(image: Mapping[str, Any] | None, index: int, folder: Path) -> str:
    if image is None or (image["bytes"] is None and not image["path"]):
        raise DataError("there is no image.")
    content: bytes = Path(image["path"]).read_bytes() if image["bytes"] is None else image["bytes"]
    with Image.open(io.BytesIO(content)) as opened:
        kind = (opened.format or "png").lower().replace("jpeg", "jpg").replace("tiff", "tif")
    name = f"{index:07d}-{hashlib.sha256(content).hexdigest()[:12]}.{kind}"
    target = folder / name
    if not target.is_file() or target.stat().st_size != len(content):
        atomic_write(target, content)
    return name


def _samples(
    rows: Any, schema: ObjectSchema, files: Mapping[int, str], folder: Path
) -> Iterator[tuple[list[Any], int, int]]:
    for index, name in list(files.items())[:SAMPLE]:
        with contextlib.suppress(DataError):  # told where all rows are read
            boxes, _, _ = schema.objects_of(rows[index])
            yield (boxes, *read_size(folder / name))


def _labels(opened: _Opened, schema: ObjectSchema) -> dict[Any, str]:
    """Names of the classes by their values, in order: those of a `ClassLabel`, else all that occur in any part."""
    names = _class_names(opened, schema)
    if names:
        return dict(enumerate(names))
    values: set[Any] = set()
    for rows in opened.parts.values():
        inner = rows.select_columns([schema.objects or schema.category])
        for row in inner:
            held = row[schema.objects] if schema.objects else row
            values.update(held[schema.category] if isinstance(held, Mapping) else [e[schema.category] for e in held])
    values.discard(None)
    return {value: str(value) for value in sorted(values, key=lambda value: (str(type(value)), value))}


def _class_names(opened: _Opened, schema: ObjectSchema) -> list[str]:
    feature: Any = next(iter(opened.parts.values())).features
    for key in (schema.objects, schema.category):
        if key:
            feature = getattr(feature, "feature", feature)[key]
    return list(getattr(getattr(feature, "feature", feature), "names", None) or [])


def _coco_rows(
    rows: Any,
    schema: ObjectSchema,
    files: Mapping[int, str],
    folder: Path,
    labels: Mapping[Any, str],
    faults: list[tuple[str, str]],
) -> CocoRows:
    """Images, boxes and classes in COCO's form; adds to the faults."""
    made = CocoRows(categories=[{"id": number, "name": name} for number, name in enumerate(labels.values(), start=1)])
    numbers = {value: number for number, value in enumerate(labels, start=1)}
    given = rows[schema.image_id] if schema.image_id else []
    ids = list(given) if len({*given}) == len(rows) and all(type(one) is int for one in given) else None
    for index, name in files.items():
        try:
            boxes, values, crowds = schema.objects_of(rows[index])
            width, height = read_size(folder / name)
        except LdHubError as error:
            faults.append(("wrong rows", f"row {index}: {error}"))
            continue
        number = index + 1 if ids is None else ids[index]
        made.images.append(
            {"id": number, "file_name": name, "width": width, "height": height, "read_from": f"row {index}"}
        )
        for box, value, crowd in zip(boxes, values, crowds, strict=True):
            if value not in numbers:
                faults.append(("unknown classes", f"row {index}: class {value!r}"))
                continue
            x, y, w, h = (float(side) for side in box)
            if schema.form == "xyxy":
                w, h = w - x, h - y
            made.annotations.append(
                {
                    "image_id": number,
                    "category_id": numbers[value],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(crowd),
                }
            )
    return made


def _slug(where: str) -> str:
    return re.sub(r"[^\w.-]+", "_", where.removeprefix(PREFIX)).strip("_")[-80:]
