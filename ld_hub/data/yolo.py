"""YOLO directories: a text file of normalised boxes beside each image, and data.yaml with the class names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ld_hub.data.checks import Repair, name_some
from ld_hub.data.darknet import read_darknet
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.discovery import data_root
from ld_hub.data.readers import Reader, register_reader
from ld_hub.data.source import (
    CocoRows,
    OnBadBox,
    Source,
    canonical_source,
    group_faults,
    make_dataset,
    read_sizes,
)
from ld_hub.data.yolo_parts import YAML_NAMES, as_written, below, find_part, find_yaml, folders, has_texts, usual_places
from ld_hub.errors import DataError, LdHubError, MissingFileError
from ld_hub.formats.outlines import packed
from ld_hub.formats.text import read_lines

_ROUNDING = 1e-3  # by which tools that round go beyond the image, in fractions of it
_REACH = 0.51  # from the middle of the image, beyond which a box reaches out of it
_DIGITS = 4  # of a pixel: what six digits of a normalised number are good for in an image of 100 px


def looks_like_yolo(root: Path, split: str) -> bool:
    """Whether a directory has data.yaml or obj.data or alike, images/ and labels/, or labels beside the images."""
    pairs = [(as_written(root, "images"), as_written(root, "labels")), *folders(root, "train"), *folders(root, "val")]
    described = find_yaml(root) is not None or bool(read_darknet(root))
    there = (b for a, b in pairs if a.is_dir() and b.is_dir())
    return described or any(has_texts(b) for b in there) or bool(usual_places(root, split))


def load_yolo(
    data_dir: str | Path, split: str = "train", *, on_bad_box: OnBadBox = "drop", check_files: bool = True
) -> DetectionSet:
    """Read a dataset in YOLO's layout.

    The label file of ``images/train/a.jpg`` is ``labels/train/a.txt``, with a row ``class cx cy width height`` per box,
    in fractions of the image. An image without one is empty. Of a polygon (``class x1 y1 x2 y2 x3 y3 ...``) the box
    around it is taken. Category ids are YOLO's numbers plus 1.

    Args:
        data_dir: Directory with data.yaml, or with images/SPLIT/, labels/SPLIT/ and classes.txt; or a YAML file.
        split: ``"train"``, ``"val"`` or another name of data.yaml.
        on_bad_box: As for `load_coco`.
        check_files: Check that the image files exist; their sizes are read in any case.

    Raises:
        MissingFileError: If the directory or its images do not exist.
        DataError: If a label file or image cannot be read; names file and line.
    """
    place = Path(data_dir).expanduser()
    source = yolo_source(place if place.is_file() else data_root(place, split), split)
    return make_dataset(source, on_bad_box, check_files)


def yolo_source(place: Path, split: str, *, outlines: bool = False) -> Source:
    """Read the label files of a split; goes on after the first fault.

    Args:
        place: Directory, or its YAML file.
        split: Name.
        outlines: Keep the polygons.

    Raises:
        MissingFileError: If there is no such split.
        DataError: If the class names are missing, or no image has a label file.
    """
    root = place.parent if place.is_file() else place
    part = find_part(root, place if place.is_file() else find_yaml(root), split)
    labels = [label_file(image, root) for image in part.images]
    there = [file.is_file() for file in labels]
    if not any(there) and part.images[0].exists():
        raise MissingFileError(
            f"{root}: none of the {len(labels)} images of '{split}' has a label file; looked for {labels[0]} and alike."
        )
    rows = CocoRows(categories=[{"id": k, "name": name} for k, name in enumerate(part.names, start=1)])
    faults: list[tuple[str, str]] = []
    readers: list[_LabelFile] = []
    sizes = read_sizes(part.images, f"reading {root.name} {split}")
    for image, file, exists, size in zip(part.images, labels, there, sizes, strict=True):
        if isinstance(size, LdHubError):
            kind = "missing images" if isinstance(size, MissingFileError) else "damaged images"
            faults.append((kind, str(size).rstrip(".")))
            continue
        if not exists and os.path.lexists(file):
            faults.append(("broken label files", f"{below(file, root)} is no file, or a link to nothing"))
        number, name = len(rows.images) + 1, below(file, root)
        picture = below(image, root)
        rows.images.append({"id": number, "file_name": picture, "width": size[0], "height": size[1], "read_from": name})
        reader = _LabelFile(name, len(part.names), size, keypoints=part.keypoints, outlines=outlines)
        readers.append(reader)
        for label, box, outline in reader.read(file) if exists else ():
            area = round(box[2] * box[3], 4)
            rows.outlines.append(outline)
            rows.annotations.append(
                {"image_id": number, "category_id": label + 1, "bbox": box, "area": area, "iscrowd": 0}
            )
        faults += reader.faults
    faults += _corners(readers)
    polygons = sum(reader.polygons for reader in readers)
    notes = [f"rows that are polygons: {polygons}. The boxes around them are used."] if polygons else []
    shared = [below(file, root) for file, count in Counter(labels).items() if count > 1]
    if shared:
        notes.append(f"label files that belong to several images of one name (a.jpg, a.png): {name_some(shared)}.")
    problems, repairs = group_faults(root, faults), _repeated(root, readers)
    return canonical_source("YOLO", root, part.parts, rows, problems=problems, notes=notes, repairs=repairs)


def _repeated(root: Path, readers: Sequence[_LabelFile]) -> list[Repair]:
    files = [reader.name for reader in readers if reader.repeated]
    count = sum(reader.repeated for reader in readers)
    text = f"{root}: {count} rows of label files say the same as a row before them and were left out"
    return [Repair("repeated rows", count, f"{text} ({name_some(files, 3)}).")] if files else []


def _corners(readers: Sequence[_LabelFile]) -> list[tuple[str, str]]:
    """The fault of rows that are corners, by the rule of `ld_hub.ops.corners`."""
    count, out, corners = (sum(getattr(r, what) for r in readers) for what in ("boxes", "out", "corners"))
    if out < max(3, 0.2 * count) or corners < 0.99 * count:
        return []
    first = next(reader.name for reader in readers if reader.out)
    text = (
        f"{out} of {count} boxes reach out of their image when read as middle and size, as YOLO has them, but lie in "
        f"it when read as corners x1 y1 x2 y2 (for example in {first}). Write the middle and the size"
    )
    return [("corners as boxes", text)]


def label_file(image: Path, root: Path) -> Path:
    """The label file of an image: its last directory ``images``, in whatever case, becomes ``labels``; else beside it.

    Args:
        image: The image.
        root: The data directory; of an image in it, the directories above play no part.
    """
    parts = list(image.with_suffix(".txt").parts)
    above = len(root.parts) if image.is_relative_to(root) else 0
    for k in reversed(range(above, len(parts) - 1)):
        if parts[k].lower() == "images":
            spelled = ("labels", "Labels", "LABELS")
            parts[k] = next((s for s in spelled if Path(*parts[:k], s).is_dir()), spelled[0])
            break
    beside = image.with_suffix(".txt")
    return beside if not Path(*parts).exists() and beside.is_file() else Path(*parts)


class _LabelFile:
    """Reads one label file; collects what is wrong with it."""

    def __init__(self, name: str, classes: int, size: tuple[int, int], *, keypoints: bool, outlines: bool) -> None:
        self.name, self.classes, self.size = name, classes, size
        self.keypoints, self.outlines = keypoints, outlines
        self.faults: list[tuple[str, str]] = []
        self.polygons = self.repeated = 0
        self.boxes = self.out = self.corners = (
            0  # rows of four numbers; those that reach out; those that may be corners
        )

    def read(self, file: Path) -> Iterator[tuple[int, list[float], bytes]]:
        """Label, x, y, width, height in px, and the outline of each good row."""
        try:
            lines = read_lines(file)
        except DataError:
            self.faults.append(("broken label files", f"{self.name} is not text"))
            return
        seen: set[tuple[str, ...]] = set()
        for number, line in enumerate(lines, start=1):
            words = tuple(line.split())
            if not words or words in seen:
                self.repeated += bool(words)
                continue
            seen.add(words)
            try:
                yield self._row(words)
            except ValueError as error:
                self.faults.append(("wrong rows", f"{self.name}, line {number}: {error}"))

    def _row(self, words: Sequence[str]) -> tuple[int, list[float], bytes]:
        try:
            label, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            hint = "a class, as its number, and fractions of the image, with spaces between them"
            raise ValueError(f"{' '.join(words)[:60]!r} are not numbers; expected {hint}") from None
        if not (label.is_integer() and 0 <= label < self.classes):
            raise ValueError(f"class {words[0]}, but there are {self.classes} classes, numbered from 0")
        count = len(values)
        if self.keypoints and count > 4:
            values = values[:4]
        elif count < 4 or (count > 4 and (count < 6 or count % 2)):
            hint = " (the last may be a score: are these detections?)" if count == 5 else ""
            raise ValueError(
                f"{count + 1} numbers; expected class, cx, cy, width, height, or a class and a polygon{hint}"
            )
        if not all(-_ROUNDING <= value <= 1 + _ROUNDING for value in values):  # NaN too
            raise ValueError(f"{' '.join(words[1:])[:60]} are not fractions of the image, 0 to 1")
        values = [min(max(value, 0.0), 1.0) for value in values]
        outline = b""
        if len(values) > 4:
            self.polygons += 1
            if self.outlines:
                width, height = self.size
                outline = packed([[x * width, y * height] for x, y in zip(values[::2], values[1::2], strict=True)])
            left, top, right, bottom = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
            values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        else:
            a, b, c, d = values
            self.boxes += 1
            self.out += max(abs(a - 0.5) + c / 2, abs(b - 0.5) + d / 2) > _REACH
            self.corners += c >= a and d >= b
        return int(label), self._box(*values), outline

    def _box(self, cx: float, cy: float, w: float, h: float) -> list[float]:
        width, height = self.size
        box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
        rounded = [round(value, _DIGITS) + 0.0 for value in box]
        return [int(value) if value.is_integer() else value for value in rounded]


register_reader(
    "yolo",
    Reader(
        looks_like_yolo,
        yolo_source,
        lambda root, split: f"YOLO's {YAML_NAMES[0]}, or images/{split}/ with labels/{split}/",
        suffixes=(".yaml", ".yml"),
        read_outlined=lambda place, split: yolo_source(place, split, outlines=True),
    ),
)
