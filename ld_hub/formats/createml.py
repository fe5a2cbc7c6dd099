"""CreateML: a JSON list of images with ``annotations``, whose ``coordinates`` are a box's middle and size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.split_files import has_marks, split_files
from ld_hub.formats.text import read_json_file


def read_createml(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of a CreateML file.

    Args:
        file: The JSON.
        name: What messages call it.

    Raises:
        DataError: If it is no JSON.
    """
    content = read_json_file(file)
    for k, row in enumerate(content if isinstance(content, list) else [None]):
        if not isinstance(row, dict) or not isinstance(row.get("annotations"), list) or not _image(row):
            yield "wrong entries", f"{name}, entry {k}: no image with a list 'annotations'"
            continue
        boxes = []
        for number, item in enumerate(row["annotations"]):
            box = _box(item)
            if box is None:
                yield (
                    "wrong entries",
                    f"{name}, entry {k} ('{_image(row)}'): annotation {number} has no label, or no coordinates x, y, "
                    "width, height",
                )
            else:
                boxes.append(box)
        yield Labelled((_image(row),), name, tuple(boxes))


def _image(row: dict[str, object]) -> str:
    return str(row.get("image") or row.get("imagefilename") or row.get("filename") or "")


def _box(item: object) -> Box | None:
    if not isinstance(item, dict):
        return None
    label, place = item.get("label", item.get("class")), item.get("coordinates")
    if not isinstance(label, (str, int)) or not isinstance(place, dict):
        return None
    try:
        x, y, width, height = (float(place[key]) for key in ("x", "y", "width", "height"))
    except (KeyError, TypeError, ValueError):
        return None
    return Box(str(label), (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    def holds(file: Path) -> bool:
        return has_marks(file, b'"annotations"', b'"coordinates"', opening=b"[")

    return split_files(root, split, (".json",), holds)


register_layout("createml", Layout("CreateML", _files, read_createml, "CreateML's _annotations.createml.json"))
