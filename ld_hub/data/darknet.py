"""YOLO without data.yaml: Darknet's obj.data (CVAT), lists of images, labels beside them, files of class names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ld_hub.errors import DataError
from ld_hub.formats.split_files import split_names
from ld_hub.formats.text import CLASSES_FILE, read_classes, read_json_file, read_lines
from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES

# Of Label Studio and labelImg, of Roboflow's Darknet export, of CVAT, of others.
NAME_FILES = (CLASSES_FILE, "_darknet.labels", "obj.names", "classes.names", "labels.txt", "names.txt")
_NOTES = "notes.json"  # of Label Studio


def read_darknet(root: Path) -> Mapping[str, Any]:
    """``obj.data`` in data.yaml's terms; empty where there is none.

    Args:
        root: The data directory.
    """
    files = sorted(root.glob("*.data"))
    if len(files) != 1:
        return {}
    pairs = [line.partition("=") for line in read_lines(files[0]) if "=" in line]
    content: dict[str, object] = {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
    names = root / Path(str(content.pop("names", "")).replace("\\", "/")).name  # written for Darknet's own directory
    return {**content, "names": read_classes(names)} if names.is_file() else content


def listed_names(root: Path, images: Path) -> list[str] | None:
    """Class names where no description gives them; None where no file does.

    Args:
        root: The data directory.
        images: Directory of an image.

    Raises:
        DataError: If such a file has none, or one twice.
    """
    for folder in (root, root / "labels"):
        for name in NAME_FILES:
            if (folder / name).is_file():
                return read_classes(folder / name)
    darknets = list(root.glob("*.names"))
    if len(darknets) == 1:
        return read_classes(darknets[0])
    own = _names_of_parts(root, images)
    if own is not None:
        return own
    if (root / _NOTES).is_file():
        notes = read_json_file(root / _NOTES)
        rows = notes.get("categories") if isinstance(notes, dict) else None
        if isinstance(rows, list) and all(isinstance(row, dict) and "name" in row for row in rows):
            return [str(row["name"]) for row in rows] or None
    return None


def _names_of_parts(root: Path, images: Path) -> list[str] | None:
    """The class names that lie beside the images or labels of each part, as labelImg leaves them."""
    parts = {name for each in ("train", "val", "test") for name in split_names(each)}
    folders = [images, *(folder for pattern in ("*", "labels/*", "*/labels") for folder in sorted(root.glob(pattern)))]
    files = [
        folder / name
        for folder in dict.fromkeys(folders)
        for name in NAME_FILES
        if (folder == images or {folder.name.lower(), folder.parent.name.lower()} & parts) and (folder / name).is_file()
    ]
    for file in files[1:]:
        if read_classes(file) != read_classes(files[0]):
            raise DataError(
                f"{files[0]} and {file} have other class names, or another order, so that a number means two classes. "
                f"If the labels of both go by one of them, move that to {root / CLASSES_FILE}, and delete the others."
            )
    return read_classes(files[0]) if files else None


def is_list(file: Path) -> bool:
    """Whether a text file lists images.

    Args:
        file: It may be missing.
    """
    if not file.is_file():
        return False
    try:
        first = next((line.strip() for line in read_lines(file) if line.strip()), "")
    except DataError:
        return False
    return first.lower().endswith(IMAGE_SUFFIXES)


def labels_beside(folder: Path) -> bool:
    """Whether a directory has an image and, beside it, a text file of the same name.

    Args:
        folder: It may be missing.
    """
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        names = {e.name for e in entries}
    texts = {name[:-4] for name in names if name.endswith(".txt")}
    return any(os.path.splitext(n)[0] in texts for n in names if n.lower().endswith(IMAGE_SUFFIXES))
