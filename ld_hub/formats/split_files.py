"""Annotation files of a split by where they lie, what they are called and what they hold, whatever tool wrote them."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ld_hub.formats.splits import SPLITS, WHOLE
from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES

# Folders that hold annotation files of all splits, and folders of images.
_SHARED = ("", "annotations", "Annotations", "labels", "vott-json-export", "vott-csv-export")
_PICTURES = ("images", "JPEGImages", "Images", "imgs", "img", "image_2", "")
_LABELS = ("", "annotations", "Annotations", "labels", "xml", "json", "annotation", "ann", "label_2")
_INNER = ("", "annotations", "labels")  # folders of annotation files in one of a split
_LISTS = ("", "ImageSets", "ImageSets/Main", "splits", "annotations")  # folders of lists of images
_MOST = 50  # files of one kind in a folder above which they are one per image
_SPLIT_WORDS = {"train", "training", "test", "testing", *SPLITS["val"], "validate"}


def split_names(split: str) -> tuple[str, ...]:
    """What a split may be called in names of files and folders, in small letters."""
    more = {"train": ("training",), "test": ("testing",)}
    return (*SPLITS.get(split, (split.lower(),)), *more.get(split, ()))


def annotation_files(root: Path, split: str, suffixes: tuple[str, ...], holds: Callable[[Path], bool]) -> list[Path]:
    """The files that describe all images of a split.

    They lie in a folder of the split, or have its name in theirs. Of data without parts (`WHOLE`) they lie in the data
    directory or a folder for annotations, and have no split's name.

    Args:
        root: The data directory.
        split: Name.
        suffixes: Of the files.
        holds: Whether a file is of the format.
    """
    found: list[Path] = []
    if split != WHOLE:
        for folder in _folders_of(root, split):
            for name in _INNER:
                found += _files(folder / name, suffixes)
    for name in _SHARED:
        for file in _files(root / name, suffixes):
            words = set(re.findall(r"[a-z]+", file.stem.lower()))
            if not words & _SPLIT_WORDS if split == WHOLE else words & set(split_names(split)):
                found.append(file)
    return [file for file in _once(found) if holds(file)]


def split_files(
    root: Path, split: str, suffixes: tuple[str, ...], holds: Callable[[Path], bool]
) -> tuple[list[Path], list[Path]]:
    """`annotation_files`, and `image_folders` of all of them; nothing where there are none."""
    files = annotation_files(root, split, suffixes, holds)
    return files, _once([folder for file in files for folder in image_folders(root, split, file)])


def label_files(root: Path, split: str, suffix: str, holds: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """The files that describe one image each, and where their images are.

    Args:
        root: The data directory.
        split: Name.
        suffix: Of the files.
        holds: Whether a file is of the format.

    Returns:
        Sorted files of each folder in which there are any, and folders of images; none where there are no images.
    """
    found: list[Path] = []
    places: list[Path] = []
    names = listed_names(root, split)
    for labels, pictures in _label_folders(root, WHOLE if names else split):
        files = [file for file in _named(labels, (suffix,)) if not names or file.stem in names]
        folders = [folder for folder in _once(pictures) if has_images(folder)] if files else []
        chosen = [file for file in files if holds(file)] if folders else []
        found += chosen
        places += folders if chosen else []
    return _once(found), _once(places)


def own_name_first(file: Path, image: str) -> tuple[str, ...]:
    """What the image of a file may be called: as the file is, then as it says; the other way round where these agree.

    They agree where folder and suffix alone differ. Whoever renames images renames the files of their labels with them,
    and seldom what stands in these.

    Args:
        file: Of labels.
        image: The name in it; it may be empty.
    """
    return tuple(filter(None, (image, file.stem) if listed_name(image) == file.stem else (file.stem, image)))


def listed_names(root: Path, split: str) -> set[str]:
    """Names of the images of a split, without folder and suffix, where a list of them lies in the data directory.

    Args:
        root: The data directory.
        split: Name.
    """
    if split == WHOLE or _folders_of(root, split):
        return set()
    files = (root / folder / f"{name}.txt" for folder in _LISTS for name in split_names(split))
    file = next((file for file in files if file.is_file()), None)
    try:
        lines = [] if file is None else file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return set()
    return {listed_name(line.strip()) for line in lines if line.strip()}


def listed_name(line: str) -> str:
    """The name of an image in a line of a list: without folders, and without suffix where it has that of an image.

    Args:
        line: ``a``, ``a.jpg``, ``JPEGImages/a.jpg``.
    """
    name = line.replace("\\", "/").rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in (*IMAGE_SUFFIXES, ".xml") else name


def image_folders(root: Path, split: str, file: Path) -> list[Path]:
    """Where images of an annotation file may lie, best first.

    Args:
        root: The data directory.
        split: Name.
        file: The annotation file.
    """
    own = [] if split == WHOLE else sorted(_folders_of(root, split), key=lambda folder: folder != file.parent)
    default = [root / "images" / "default"] if split == WHOLE and "default" in file.stem else []  # of CVAT
    near = [*default, file.parent, *(file.parent / name for name in _PICTURES)]
    shared = [root / name for name in _PICTURES]
    return _once([*own, *(folder / name for folder in own for name in ("images", "data")), *near, *shared])


def has_marks(file: Path, *marks: bytes, opening: bytes = b"") -> bool:
    """Whether all of some words are in a file, which is not read into memory.

    Args:
        file: Of any size.
        marks: The words.
        opening: What its text begins with.
    """
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            head = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
            return head.startswith(opening) and all(content.find(mark) >= 0 for mark in marks)
    except (OSError, ValueError):  # empty, or gone
        return False


def has_images(folder: Path) -> bool:
    """Whether an image lies in a folder.

    Args:
        folder: It may be missing.
    """
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(e.name.lower().endswith(IMAGE_SUFFIXES) and e.name[0] != "." for e in entries)


def _folders_of(root: Path, split: str) -> list[Path]:
    """Folders with the name of a split, in whatever case."""
    names = split_names(split)
    places = (
        root,
        root / "images",
        root / "annotations",
        root / "Annotations",
        root / "labels",
        root / "data",
        root / "JPEGImages",
    )
    return [p for place in places for p in _directories(place) if p.name.lower().rstrip("0123456789_-") in names]


def _label_folders(root: Path, split: str) -> Iterator[tuple[Path, list[Path]]]:
    """Folders of label files, each with folders of their images."""
    if split == WHOLE:
        shared = [root / name for name in _PICTURES]
        shared += [p for name in _PICTURES for p in _directories(root / name) if p.name.lower() in _SPLIT_WORDS]
        for name in _LABELS:
            yield root / name, [root / name, *shared]
        for name in _PICTURES[:-1]:
            yield root / name, [root / name]
        return
    own = _folders_of(root, split)
    for folder in own:
        for name in _LABELS:
            yield folder / name, [folder / name, *(folder / picture for picture in _PICTURES), *own]


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder, unless there are so many that they must be one per image."""
    found = _named(folder, suffixes)
    return found if len(found) <= _MOST else []


def _named(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if e.name.lower().endswith(suffixes) and e.name[0] != "."]
    return [folder / name for name in sorted(names)]


def _directories(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(folder / e.name for e in entries if e.is_dir())


def _once(paths: Sequence[Path]) -> list[Path]:
    """Each file by the first of its paths: by links to folders, or where case does not matter, it may have more."""
    folders: dict[Path, tuple[int, int] | Path] = {}
    found: dict[tuple[object, str], Path] = {}
    for path in paths:
        if path.parent not in folders:
            folders[path.parent] = _identity(path.parent)
        found.setdefault((folders[path.parent], path.name), path)
    return list(found.values())


def _identity(folder: Path) -> tuple[int, int] | Path:
    try:
        status = folder.stat()
    except OSError:
        return folder
    return status.st_dev, status.st_ino
