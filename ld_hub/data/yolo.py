"""YOLO directories: a text file of normalised boxes beside each image, and data.yaml with the class names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ld_hub.data.dataset import DetectionSet
from ld_hub.data.discovery import SPLITS, data_root
from ld_hub.data.source import OnBadBox, Source, canonical_source, group_faults, make_dataset, tracked
from ld_hub.data.voc import CLASSES_FILE, read_classes
from ld_hub.errors import DataError, LdHubError, MissingFileError
from ld_hub.preprocessing.loading import read_size

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_THREADS = 8  # for headers of images, where a network disk answers slowly
_DIGITS = 4  # of a pixel: what six digits of a normalised number are good for in an image of 100 px


@dataclass(frozen=True)
class YoloPart:
    """One split of a YOLO directory.

    Attributes:
        images: Image files.
        names: Class names.
        parts: Where the images are, for people.
        keypoints: Rows have keypoints behind the box, which are not read.
    """

    images: tuple[Path, ...]
    names: tuple[str, ...]
    parts: str
    keypoints: bool = False


def find_yaml(root: Path) -> Path | None:
    """The description of a YOLO directory: data.yaml, or else the only YAML file there is."""
    found = [root / name for name in YAML_NAMES if (root / name).is_file()]
    others = sorted(path for path in root.glob("*.y*ml") if path.suffix in (".yaml", ".yml"))
    return next(iter(found), others[0] if len(others) == 1 else None)


def looks_like_yolo(root: Path) -> bool:
    """Whether a directory has data.yaml or alike, or images/ and labels/."""
    pairs = [(root / "images", root / "labels"), *_folders(root, "train"), *_folders(root, "val")]
    return find_yaml(root) is not None or any(images.is_dir() and labels.is_dir() for images, labels in pairs)


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


def yolo_source(place: Path, split: str) -> Source:
    """Read the label files of a split; goes on after the first fault.

    Args:
        place: Directory, or its YAML file.
        split: Name.

    Raises:
        MissingFileError: If there is no such split.
        DataError: If the class names are missing, or no image has a label file.
    """
    root = place.parent if place.is_file() else place
    part = _find_part(root, place if place.is_file() else find_yaml(root), split)
    labels = [label_file(image, root) for image in part.images]
    there = [file.is_file() for file in labels]
    if not any(there):
        raise MissingFileError(
            f"{root}: none of the {len(labels)} images of '{split}' has a label file; looked for {labels[0]} and alike."
        )
    rows: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    rows["categories"] = [{"id": k, "name": name} for k, name in enumerate(part.names, start=1)]
    faults: list[tuple[str, str]] = []
    polygons = 0
    sizes = _sizes(part.images, f"reading {root.name} {split}")
    for image, file, exists, size in zip(part.images, labels, there, sizes, strict=True):
        if isinstance(size, LdHubError):
            kind = "missing images" if isinstance(size, MissingFileError) else "damaged images"
            faults.append((kind, str(size).rstrip(".")))
            continue
        number, name = len(rows["images"]) + 1, os.path.relpath(file, root)
        entry = {"id": number, "file_name": _below(image, root), "width": size[0], "height": size[1]}
        rows["images"].append({**entry, "read_from": Path(name).as_posix()})
        reader = _LabelFile(Path(name).as_posix(), len(part.names), size, part.keypoints)
        for label, box in reader.read(file) if exists else ():
            common = {"image_id": number, "category_id": label + 1, "bbox": box, "area": round(box[2] * box[3], 4)}
            rows["annotations"].append({**common, "iscrowd": 0})
        faults += reader.faults
        polygons += reader.polygons
    notes = [f"rows that are polygons: {polygons}. The boxes around them are used."] if polygons else []
    return canonical_source("YOLO", root, part.parts, rows, problems=group_faults(root, faults), notes=notes)


def label_file(image: Path, root: Path) -> Path:
    """The label file of an image: its last directory ``images`` becomes ``labels``; beside it where there is none.

    Args:
        image: The image.
        root: The data directory; of an image in it, the directories above play no part.
    """
    parts = list(image.with_suffix(".txt").parts)
    above = len(root.parts) if image.is_relative_to(root) else 0
    for k in reversed(range(above, len(parts) - 1)):
        if parts[k] == "images":
            parts[k] = "labels"
            break
    return Path(*parts)


class _LabelFile:
    """Reads one label file; collects what is wrong with it."""

    def __init__(self, name: str, classes: int, size: tuple[int, int], keypoints: bool) -> None:
        self.name, self.classes, self.size, self.keypoints = name, classes, size, keypoints
        self.faults: list[tuple[str, str]] = []
        self.polygons = 0

    def read(self, file: Path) -> Iterator[tuple[int, list[float]]]:
        """Label and x, y, width, height in px of each good row."""
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            self.faults.append(("broken label files", f"{self.name} is not text"))
            return
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield self._row(line.split())
            except ValueError as error:
                self.faults.append(("wrong rows", f"{self.name}, line {number}: {error}"))

    def _row(self, words: list[str]) -> tuple[int, list[float]]:
        try:
            label, values = float(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise ValueError(f"{' '.join(words)[:60]!r} are not numbers") from None
        if not (label.is_integer() and 0 <= label < self.classes):
            raise ValueError(f"class {words[0]}, but there are {self.classes} classes, numbered from 0")
        count = len(values)
        if self.keypoints and count > 4:
            values = values[:4]
        elif count < 4 or (count > 4 and (count < 6 or count % 2)):
            raise ValueError(f"{count + 1} numbers; expected class, cx, cy, width, height, or a class and a polygon")
        if not all(0 <= value <= 1 for value in values):  # NaN too
            raise ValueError(f"{' '.join(words[1:])[:60]} are not fractions of the image, 0 to 1")
        if len(values) > 4:
            self.polygons += 1
            left, top, right, bottom = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
            values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        return int(label), self._box(*values)

    def _box(self, cx: float, cy: float, w: float, h: float) -> list[float]:
        width, height = self.size
        box = [(cx - w / 2) * width, (cy - h / 2) * height, w * width, h * height]
        rounded = [round(value, _DIGITS) + 0.0 for value in box]
        return [int(value) if value.is_integer() else value for value in rounded]


def _sizes(images: Sequence[Path], what: str) -> Iterator[tuple[int, int] | LdHubError]:
    """Width and height of each image, or why it has none."""

    def size(image: Path) -> tuple[int, int] | LdHubError:
        try:
            return read_size(image)
        except LdHubError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        for _, found in zip(tracked(images, what), pool.map(size, images), strict=True):
            yield found


def _find_part(root: Path, yaml_file: Path | None, split: str) -> YoloPart:
    content = {} if yaml_file is None else _read_yaml(yaml_file)
    given = next((content[name] for name in SPLITS.get(split, (split,)) if content.get(name)), None)
    if given is None:
        pairs = [images for images, labels in _folders(root, split) if images.is_dir() and labels.is_dir()]
        if not pairs:
            told = "" if yaml_file is None else f"{yaml_file} has no '{split}', and "
            looked = ", ".join(f"{_below(images, root)}/ with {_below(labels, root)}/" for images, labels in
                               _folders(root, split))  # fmt: skip
            raise MissingFileError(f"No images of the split '{split}' in {root}: {told}none of these exist: {looked}.")
        places = pairs[:1]
    else:
        places = [
            _resolve(root, content, str(one), yaml_file) for one in (given if isinstance(given, list) else [given])
        ]
    images = tuple(image for place in places for image in _images_of(place))
    if not images:
        raise MissingFileError(f"There are no images in {', '.join(map(str, places))}.")
    names = _names(content["names"], yaml_file) if "names" in content else _listed_names(root, yaml_file)
    shown = ", ".join(_below(place, root) for place in places)
    return YoloPart(images, tuple(names), shown, "kpt_shape" in content)


def _folders(root: Path, split: str) -> list[tuple[Path, Path]]:
    """Where images and labels of a split are usually laid."""
    names = [f"{name}{year}" for name in SPLITS.get(split, (split,)) for year in ("", "2017")]
    inner = [(root / "images" / name, root / "labels" / name) for name in names]
    return inner + [(root / name / "images", root / name / "labels") for name in names]


def _read_yaml(file: Path) -> Mapping[str, Any]:
    """data.yaml with every value as text: ``no`` and ``1`` are class names, too."""
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506  # makes only texts
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{file} is not YAML ({' '.join(str(error).split())[:200]}).") from None
    if not isinstance(content, dict):
        raise DataError(f"{file} is no YAML mapping with train, val and names.")
    return content


def _resolve(root: Path, content: Mapping[str, Any], given: str, yaml_file: Path | None) -> Path:
    """A directory or list that data.yaml names; some tools write it relative to elsewhere."""
    base = Path(str(content.get("path") or ""))
    plain = Path(*[part for part in Path(given).parts if part != ".."]) if not Path(given).is_absolute() else None
    places = [root / base / given, root / given, *([root / plain] if plain else [])]
    for place in places:
        if place.exists():
            return place
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    raise MissingFileError(f"{yaml_file} names '{given}', which does not exist; looked for {looked}.")


def _images_of(place: Path) -> list[Path]:
    """The images of a directory, below it too, or of a text file that lists them."""
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{place} is neither a directory of images nor a text file that lists them.") from None
    return [place.parent / line.strip() for line in lines if line.strip()]


def _names(given: Any, file: Path | None) -> list[str]:
    """Class names from a list, or from a mapping of their numbers."""
    if isinstance(given, dict):
        if sorted(given) != sorted(str(k) for k in range(len(given))):
            raise DataError(f"{file}: 'names' has the numbers {', '.join(given)}; expected 0 to {len(given) - 1}.")
        given = [given[str(k)] for k in range(len(given))]
    if not isinstance(given, list) or not given or not all(isinstance(name, str) and name for name in given):
        raise DataError(f"{file}: 'names' is {str(given)[:60]}, expected a list of class names.")
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file}: the class '{twice}' is given twice in 'names'.")
    return given


def _listed_names(root: Path, yaml_file: Path | None) -> list[str]:
    """Class names where data.yaml does not give them."""
    places = (root / CLASSES_FILE, root / "labels" / CLASSES_FILE)
    for file in places:
        if file.is_file():
            return read_classes(file)
    told = f"{yaml_file} has no 'names'" if yaml_file is not None else f"there is no {root / YAML_NAMES[0]}"
    raise DataError(
        f"The class names of {root} are not known: {told}, nor {' or '.join(map(str, places))} with one name per line. "
        f"Write {root / YAML_NAMES[0]} with a line 'names: [NAME, NAME]', in the order of their numbers."
    )


def _below(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()
