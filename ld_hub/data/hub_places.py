"""Where rows with images lie: the Hub (``hf:org/name@revision:config``), `datasets.save_to_disk`, parquet files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ld_hub.errors import ConfigError, DataError, HubError, MissingFileError
from ld_hub.formats.object_schema import ObjectSchema, find_schema, parse_columns
from ld_hub.formats.splits import SPLITS
from ld_hub.hub import offline
from ld_hub.hub.reach import unreachable

PREFIX = "hf:"

_NAME = re.compile(r"hf:(?P<repo>[\w.-]+(/[\w.-]+)?)(@(?P<revision>[\w./-]+))?(:(?P<config>[\w.-]+))?")
_PARQUET = re.compile(r"(?P<split>[a-z]+)([-_.].*)?\.parquet")
_PIECES = 64  # that a directory of arrow files is streamed in, whose order is drawn anew in each epoch


@dataclass(frozen=True)
class Opened:
    """A data set that was opened.

    Attributes:
        where: What messages call it.
        parts: `datasets.Dataset` or `datasets.IterableDataset` by name.
    """

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


def open_place(place: str, *, streaming: bool = False) -> Opened:
    """All parts of a data set.

    Args:
        place: Name on the Hub or directory.
        streaming: Read rows when they are asked for, one after the other; nothing is fetched beforehand.

    Raises:
        HubError: If it cannot be had.
    """
    import datasets

    found = _NAME.fullmatch(place)
    if found is None:
        root = Path(place).expanduser()
        if _parquet_files(root):
            files = {split: list(map(str, paths)) for split, paths in _parquet_files(root).items()}
            return Opened(place, datasets.load_dataset("parquet", data_files=files, streaming=streaming))
        loaded = datasets.load_from_disk(str(root))
        parts = loaded if isinstance(loaded, dict) else {"train": loaded}
        if streaming:
            parts = {name: rows.to_iterable_dataset(min(_PIECES, max(1, len(rows)))) for name, rows in parts.items()}
        return Opened(place, parts)
    alone, usual = offline() or unreachable(), datasets.config.HF_HUB_OFFLINE
    try:
        datasets.config.HF_HUB_OFFLINE = usual or bool(alone)  # the one way to keep it from trying for a minute
        parts = datasets.load_dataset(found["repo"], found["config"], revision=found["revision"], streaming=streaming)
    except (OSError, ValueError, RuntimeError) as error:
        reason = f"the Hub cannot be reached ({alone})" if alone else first_line(error)
        raise HubError(f"The data set '{place}' cannot be had: {reason}.") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = usual
    return Opened(place, parts)


def find_part(opened: Opened, split: str) -> str:
    """Name of the part that a split is; ``test`` is taken for ``val`` where there is no other.

    Raises:
        MissingFileError: If there is none.
    """
    wanted = (*SPLITS.get(split, (split,)), *(("test",) if split == "val" else ()))
    found = next((name for name in wanted if name in opened.parts), None)
    if found is None:
        raise MissingFileError(
            f"{opened.where} has no part '{split}' (looked for {', '.join(wanted)}). It has {', '.join(opened.parts)}."
        )
    return str(found)


def open_rows(opened: Opened, part: str, columns: str | None) -> tuple[Any, ObjectSchema]:
    """Rows of a part, whose images are bytes or paths, and which columns are meant.

    Args:
        opened: The data set.
        part: Of `find_part`.
        columns: See `parse_columns`.

    Raises:
        DataError: If the columns are not understood.
    """
    import datasets

    rows = opened.parts[part]
    schema = find_schema(_keys(rows, opened.where), parse_columns(columns), opened.where)
    if rows.features is not None:
        rows = rows.cast_column(schema.image, datasets.Image(decode=False))
    return rows, schema


def class_values(opened: Opened, schema: ObjectSchema) -> dict[Any, str]:
    """Names of the classes by their values, in order: those of a `ClassLabel`, else all that occur in any part."""
    names = _class_names(opened, schema)
    if names:
        return dict(enumerate(names))
    values: set[Any] = set()
    for rows in opened.parts.values():
        for row in rows.select_columns([schema.objects or schema.category]):
            held = row[schema.objects] if schema.objects else row
            found = held[schema.category] if isinstance(held, Mapping) else [e[schema.category] for e in held or []]
            values.update(found or [])
    values.discard(None)
    return {value: str(value) for value in sorted(values, key=lambda value: (str(type(value)), value))}


def encoded_image(image: Mapping[str, Any] | None) -> bytes:
    """The encoded image of a row.

    Args:
        image: Bytes, or the path or address of a file.

    Raises:
        DataError: If there is none, or it cannot be read.
    """
    if image is None or (image.get("bytes") is None and not image.get("path")):
        raise DataError("there is no image.")
    if image.get("bytes") is not None:
        return bytes(image["bytes"])
    from datasets.utils.file_utils import xopen

    try:
        with xopen(image["path"], "rb") as file:
            return bytes(file.read())
    except OSError as error:
        raise DataError(f"{image['path']} cannot be read ({error}).") from None


def first_line(error: Exception) -> str:
    """Of an error's text, without its full stop."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


def _class_names(opened: Opened, schema: ObjectSchema) -> list[str]:
    feature: Any = next(iter(opened.parts.values())).features
    if feature is None:
        return []
    for key in (schema.objects, schema.category):
        if key:
            feature = getattr(feature, "feature", feature)[key]
    return list(getattr(getattr(feature, "feature", feature), "names", None) or [])


def _parquet_files(root: Path) -> dict[str, list[Path]]:
    """Parquet files of a directory, or of its ``data/``, by the split that their names begin with."""
    found: dict[str, list[Path]] = {}
    for file in sorted([*root.glob("*.parquet"), *(root / "data").glob("*.parquet")]):
        match = _PARQUET.fullmatch(file.name)
        if match is not None:
            found.setdefault(match["split"], []).append(file)
    return found


def _keys(rows: Any, where: str) -> dict[str, tuple[str, ...]]:
    """Columns, each with the keys in it; of streams that do not say, those of the first row."""
    if rows.features is not None:
        inner = {name: getattr(feature, "feature", feature) for name, feature in rows.features.items()}
    else:
        first = next(iter(rows), None)
        if first is None:
            raise DataError(f"{where} has no rows.")
        inner = {name: value[0] if isinstance(value, list) and value else value for name, value in first.items()}
    return {name: tuple(value) if isinstance(value, dict) else () for name, value in inner.items()}
