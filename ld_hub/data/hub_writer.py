"""Detection data written as the Hub's data sets are: parquet files with images, and objects with classes by name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ld_hub.data.writers import Part, image_path, usable_boxes
from ld_hub.errors import ConfigError

if TYPE_CHECKING:
    import datasets

Row: TypeAlias = Mapping[str, Any]

SHARD = 500_000_000  # bytes of images in a file, about
_GROUP = 100  # rows written at a time, so that memory holds few images
_SPLIT_NAMES = {"val": "validation"}  # what the Hub calls them


def write_hub(root: Path, part: Part, step: Callable[[], None]) -> None:
    """Write ``data/SPLIT-00000-of-00001.parquet``: image, image_id, width, height, and objects.

    Objects have id, area, bbox (x, y, width, height), category (a ``ClassLabel``) and iscrowd. Ignored boxes are left
    out. Images lie in the files, unless the part says that there are to be none: then their paths do.

    Args:
        root: Directory that is being made.
        part: What to write.
        step: Called after each image.

    Raises:
        ConfigError: If the split has no name that such files can have.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    split = _SPLIT_NAMES.get(part.split, part.split)
    if not re.fullmatch("[a-z]+", split):
        raise ConfigError(f"The split '{split}' cannot be written as parquet files: its name may have a to z alone.")
    schema = _features(part).arrow_schema
    drafts: list[Path] = []
    for _, groups in itertools.groupby(_groups(_rows(part, step)), key=itemgetter(0)):
        drafts.append(root / "data" / f"{split}-{len(drafts):05d}.draft")
        with pq.ParquetWriter(drafts[-1], schema) as writer:
            for _, rows in groups:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    for number, draft in enumerate(drafts):
        draft.rename(draft.with_name(f"{split}-{number:05d}-of-{len(drafts):05d}.parquet"))


def _features(part: Part) -> datasets.Features:
    from datasets import ClassLabel, Features, Image, List, Value

    objects = {
        "id": List(Value("int64")),
        "area": List(Value("float64")),
        "bbox": List(List(Value("float64"), length=4)),
        "category": List(ClassLabel(names=list(part.coco.label_names))),
        "iscrowd": List(Value("bool")),
    }
    number = Value("int64")
    return Features({"image_id": number, "image": Image(), "width": number, "height": number, "objects": objects})


def _groups(rows: Iterator[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Some rows at a time, with the number of the file that they go to."""
    size = 0
    while group := list(itertools.islice(rows, _GROUP)):
        yield size // SHARD, group
        size += sum(len(row["image"]["bytes"] or b"") for row in group)


def _rows(part: Part, step: Callable[[], None]) -> Iterator[Row]:
    coco = part.coco
    corners, usable = usable_boxes(part)
    part.told["ignored boxes left out: data sets of the Hub cannot say them"] += int((coco.ignore & usable).sum())
    usable &= ~coco.ignore
    labels, sides, inside = part.labels(), corners.tolist(), part.images != "none"
    for row, (name, indices) in enumerate(zip(part.names, part.boxes_of(), strict=True)):
        kept = [k for k in indices if usable[k]]
        path = Path(image_path(part, row))
        height, width = coco.sizes[row].tolist()
        boxes = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in (sides[k] for k in kept)]
        yield {
            "image_id": int(coco.image_ids[row]),
            "image": {"bytes": path.read_bytes(), "path": name} if inside else {"bytes": None, "path": str(path)},
            "width": width,
            "height": height,
            "objects": {
                "id": coco.ids[kept].tolist(),
                "area": coco.areas[kept].tolist(),
                "bbox": boxes,
                "category": [labels[k] for k in kept],
                "iscrowd": coco.crowd[kept].tolist(),
            },
        }
        step()
