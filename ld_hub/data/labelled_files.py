"""Layouts of labelling tools (`ld_hub.formats`) as sources.

What they have in common is done here: images are found, sizes read, classes counted over all splits, faults collected.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ld_hub.data.checks import Problem, Repair, name_some
from ld_hub.data.image_finder import ImageFinder
from ld_hub.data.readers import Reader, register_reader
from ld_hub.data.source import CocoRows, Source, canonical_source, group_faults, read_sizes, tracked
from ld_hub.errors import DataError, LdHubError, MissingFileError
from ld_hub.formats.labelled_image import Fault, Form, Labelled, Sides
from ld_hub.formats.layout import Layout, Reads, known_layouts
from ld_hub.formats.objects import are_corners
from ld_hub.formats.split_files import image_folders, listed_name, listed_names, split_names
from ld_hub.formats.splits import WHOLE
from ld_hub.formats.text import CLASSES_FILE, read_classes
from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES

_OTHERS = ("train", "val", "test", WHOLE)
_MOVED = "file names do not lead to the images as they stand, which were found all the same"
_RENAMED = "files are called as one image and name another; the images of their own names were taken"
_REPEATED = "images are described in two files alike, and taken once"
_KEPT = 1 << 26  # bytes of a file that is not read twice
_DIGITS = 6  # of a pixel: more than any tool writes, fewer than adding and taking away again leaves


def read_layout(layout: Layout, root: Path, split: str) -> Source:
    """Read a split; goes on after the first fault.

    Args:
        layout: Of the data.
        root: The data directory.
        split: Name.

    Raises:
        DataError: If there are no classes; says what was wrong with the files, if anything.
    """
    files, folders = _files(layout, root, split)
    found, faults = _read_files(layout, root, files, split)
    placed, repairs = _placed(root, folders, found, faults)
    sizes = _sizes(root, placed, faults)
    measured = [(item, size) for item, size in zip(placed, sizes, strict=True) if size is not None]
    alone = (root / CLASSES_FILE).is_file() and not any(item.form == "unsure" for item in found)
    others = [item for other in _OTHERS if other != split and not alone for item in _other_part(layout, root, other)]
    names = _label_names(root, [*found, *(item.image for item in others)], faults)
    corners = _are_corners(root, measured, others)
    rows, told = _rows(measured, names, corners, faults)
    if layout.per_image and not listed_names(root, split) and (undescribed := _undescribed(root, placed)):
        told["images that no file describes, left out"] = undescribed
    names_of_files = [_below(file, root) for file in files]
    parts = names_of_files[0] + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    remarks = [f"{root}: {what}: {count}." for what, count in told.items()]
    if len(files) > 1 and not layout.per_image:
        remarks.append(f"{root}: {name_some(names_of_files, 5)} are read as one: together they are '{split}'.")
    problems: list[Problem] = group_faults(root, faults)
    return canonical_source(
        layout.title,
        root,
        f"{layout.title}: {parts}",
        rows,
        protocol=layout.protocol,
        problems=problems,
        remarks=remarks,
        repairs=repairs,
    )


@dataclass(frozen=True)
class _Placed:
    """An image with its file, seen from the data directory."""

    image: Labelled
    path: str


def _files(layout: Layout, root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """The files of a split and the folders of their images; files of all splits where they say which image is whose."""
    files, folders = layout.files(root, split)
    if files or split == WHOLE or layout.divided is None:
        return files, folders
    files = [file for file in layout.files(root, WHOLE)[0] if layout.divided(file)]
    if not any(isinstance(item, Labelled) for file in files for item in _of_split(layout, root, file, split)):
        return [], []
    return files, list(dict.fromkeys(folder for file in files for folder in image_folders(root, split, file)))


def _of_split(layout: Layout, root: Path, file: Path, split: str) -> Iterable[Labelled | Fault]:
    """What stands in a file, without the images of other splits where it says which they are of."""
    content = _content(layout, file, _below(file, root))
    if split == WHOLE or layout.divided is None:
        return content
    own = ["", *split_names(split)] if file in layout.files(root, split)[0] else split_names(split)
    return [item for item in content if not isinstance(item, Labelled) or item.part.lower() in own]


def _read_files(layout: Layout, root: Path, files: Sequence[Path], split: str) -> tuple[list[Labelled], list[Fault]]:
    found: list[Labelled] = []
    faults: list[Fault] = []
    for file in tracked(files, f"reading {root.name}"):
        for item in _of_split(layout, root, file, split):
            if isinstance(item, Labelled):
                found.append(item)
            else:
                faults.append(item)
    return found, faults


def _content(layout: Layout, file: Path, name: str) -> Iterable[Labelled | Fault]:
    """What stands in a file; a file of many images is kept for when its split is another's neighbour."""
    try:
        status = file.stat()
    except OSError as error:
        return [("unreadable files", f"{name} cannot be read ({error.strerror})")]
    if layout.per_image or status.st_size > _KEPT:
        return _items(layout.reads, file, name)
    return _kept_items(layout.reads, file, name, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=16)
def _kept_items(reads: Reads, file: Path, name: str, state: tuple[int, int]) -> tuple[Labelled | Fault, ...]:
    """As `_items`, as long as the file has this size and time."""
    return tuple(_items(reads, file, name))


def _items(reads: Reads, file: Path, name: str) -> Iterator[Labelled | Fault]:
    try:
        yield from reads(file, name)
    except LdHubError as error:
        yield "unreadable files", str(error).rstrip(".")


def _placed(
    root: Path, folders: Sequence[Path], found: Sequence[Labelled], faults: list[Fault]
) -> tuple[list[_Placed], list[Repair]]:
    """The images whose files are there, each file once, and which of them were not where their names say."""
    finders = _finders(root, folders, found)
    placed: dict[str, _Placed] = {}
    moved: list[str] = []
    repeated: list[str] = []
    renamed: list[str] = []
    for item in found:
        finder = finders[Path(item.read_from).parent]
        path = next((p for name in item.names if (p := finder.plain(name))), None)
        renamed += _other_name(item, path, finder)
        if path is None:
            path = next((p for name in item.names if (p := finder.find(name))), None)
            if path is None:
                faults.append(("missing images", f"{item.read_from} has no image: '{item.names[0]}' does not exist"))
                continue
            moved.append(f"'{item.names[0]}' is '{path}'")
        if path in placed:
            first = placed[path].image
            if (first.boxes, first.form) == (item.boxes, item.form) and first.read_from != item.read_from:
                repeated.append(f"'{path}' in {first.read_from} and {item.read_from}")
            else:
                again = "twice" if first.read_from == item.read_from else f"otherwise than {first.read_from}"
                faults.append(
                    ("repeated images", f"{item.read_from} describes '{path}' {again}; keep one of the descriptions")
                )
            continue
        placed[path] = _Placed(item, path)
    return list(placed.values()), [
        Repair(kind, len(names), f"{root}: {len(names)} {words} ({name_some(names, 1)}).")
        for kind, names, words in (
            ("file names", moved, _MOVED),
            ("renamed images", renamed, _RENAMED),
            ("repeated images", repeated, _REPEATED),
        )
        if names
    ]


def _other_name(item: Labelled, path: str | None, finder: ImageFinder) -> list[str]:
    """What is said of a file that is called as its image and names another one, which is there, too."""
    own = Path(item.read_from).stem
    others = [name for name in item.names[1:] if listed_name(name) != own] if listed_name(item.names[0]) == own else []
    there = [name for name in others if path is not None and finder.plain(name) not in (None, path)]
    return [f"'{item.read_from}' says '{name}'" for name in there[:1]]


def _finders(root: Path, folders: Sequence[Path], found: Sequence[Labelled]) -> dict[Path, ImageFinder]:
    """Who looks for the images of the files of each folder: there first, where several folders have files."""
    parents = dict.fromkeys(Path(item.read_from).parent for item in found)
    return {p: ImageFinder(root, [root / p, *folders] if len(parents) > 1 else folders) for p in parents}


def _undescribed(root: Path, placed: Sequence[_Placed]) -> int:
    """Number of images beside those that are described."""
    known = {item.path for item in placed}
    folders = {(root / path).parent for path in known}
    beside = [file for folder in folders for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    return sum(Path(os.path.relpath(file, root)).as_posix() not in known for file in beside if file.name[0] != ".")


def _sizes(root: Path, placed: Sequence[_Placed], faults: list[Fault]) -> list[tuple[int, int] | None]:
    """Sizes as declared, or of the images; None where there is none."""
    read = read_sizes([root / item.path for item in placed if item.image.size is None], f"reading {root.name}")
    sizes: list[tuple[int, int] | None] = []
    for item in placed:
        size = item.image.size or next(read)
        if isinstance(size, LdHubError):
            kind = "missing images" if isinstance(size, MissingFileError) else "damaged images"
            faults.append((kind, str(size).rstrip(".")))
            sizes.append(None)
        else:
            sizes.append(size)
    return sizes


def _other_part(layout: Layout, root: Path, split: str) -> list[_Placed]:
    """The images of another split, faults aside: classes, and what boxes are, have to agree between splits."""
    files, folders = _files(layout, root, split)
    return _placed(root, folders, _read_files(layout, root, files, split)[0], [])[0]


def _label_names(root: Path, found: Sequence[Labelled], faults: Sequence[Fault]) -> list[str]:
    """Those of classes.txt, or all that are used in any split; where there are none, faults may be the reason."""
    if (root / CLASSES_FILE).is_file():
        return read_classes(root / CLASSES_FILE)
    names = {box.label for item in found for box in item.boxes}
    if not names and faults:
        raise DataError(group_faults(root, faults)[0].message)
    if not names:
        raise DataError(f"{root}: no class is named, and there is no {CLASSES_FILE} with one name per line.")
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def _rows(
    measured: Sequence[tuple[_Placed, tuple[int, int]]], names: Sequence[str], corners: bool, faults: list[Fault]
) -> tuple[CocoRows, Counter[str]]:
    """Images, annotations and categories in COCO's form; adds objects of unknown classes to the faults."""
    ids = {name: k for k, name in enumerate(names, start=1)}
    rows = CocoRows(categories=[{"id": number, "name": name} for name, number in ids.items()])
    told: Counter[str] = Counter()
    for number, (item, (width, height)) in enumerate(measured, start=1):
        image = item.image
        told.update(image.told)
        rows.images.append(
            {"id": number, "file_name": item.path, "width": width, "height": height, "read_from": image.read_from}
        )
        for box in image.boxes:
            if box.label not in ids:
                faults.append(
                    ("unknown classes", f"{image.read_from} has the class '{box.label}', {CLASSES_FILE} has not")
                )
                continue
            form: Form = image.form if image.form != "unsure" else "corners" if corners else "sizes"
            sides = [_plain(side) for side in _xywh(box.sides, form, width, height)]
            rows.outlines.append(box.outline)
            rows.annotations.append(
                {
                    "image_id": number,
                    "category_id": ids[box.label],
                    "bbox": sides,
                    "area": _plain(sides[2] * sides[3]),
                    "iscrowd": int(box.crowd),
                    "ignore": int(box.ignore),
                }
            )
    if any(item.image.form == "unsure" for item, _ in measured):
        told[f"boxes were read as {'corners x1, y1, x2, y2' if corners else 'x, y, width, height'}"] = len(
            rows.annotations
        )
    return rows, told


def _are_corners(root: Path, measured: Sequence[tuple[_Placed, tuple[int, int]]], others: Sequence[_Placed]) -> bool:
    """Whether boxes that may be either are corners, as far as all splits tell."""
    if not any(item.image.form == "unsure" for item, _ in measured):
        return False
    more = [(item, size) for item, size in zip(others, _sizes(root, others, []), strict=True) if size is not None]
    boxes = [(box.sides, size) for item, size in (*measured, *more) for box in item.image.boxes]
    if not boxes:
        return False
    sides, limits = (np.array(column, dtype=np.float64) for column in zip(*boxes, strict=True))
    return are_corners(sides, limits)


def _xywh(sides: Sides, form: Form, width: int, height: int) -> Sides:
    a, b, c, d = sides
    if form == "fractions":
        a, b, c, d = a * width, b * height, c * width, d * height
    return (a, b, c, d) if form == "sizes" else (a, b, c - a, d - b)


def _plain(value: float) -> float:
    rounded = round(value, _DIGITS) + 0.0
    return int(rounded) if rounded.is_integer() else rounded


def _below(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _reader(layout: Layout) -> Reader:
    return Reader(
        finds=lambda root, split: bool(_files(layout, root, split)[0]),
        read=lambda root, split: read_layout(layout, root, split),
        looked_for=lambda root, split: layout.looked_for,
        tool=True,
        read_outlined=(lambda root, split: read_layout(layout, root, split)) if layout.outlines else None,
    )


for _name, _layout in known_layouts().items():
    register_reader(_name, _reader(_layout))
