"""KITTI: a text file per image, a row per object: class, three numbers, x1, y1, x2, y2 in px, and seven of 3-D."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ld_hub.errors import DataError
from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.split_files import label_files
from ld_hub.formats.text import read_lines

_VALUES, _SCORED = 15, 16  # of a row; of one that was detected
_UNLABELLED = "DontCare"
_LEFT_OUT = "regions of objects that nobody labelled (DontCare), left out"


def read_kitti(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The image of a label file.

    Args:
        file: The text.
        name: What messages call it.

    Raises:
        DataError: If it is not text.
    """
    boxes: list[Box] = []
    told: Counter[str] = Counter()
    for line, text in enumerate(read_lines(file), start=1):
        words = text.split()
        if not words:
            continue
        sides = _sides(words)
        if sides is None or len(words) == _SCORED:
            hint = " (the last of 16 is a score: are these detections?)" if sides else ""
            row = text.strip()[:60]
            yield "wrong rows", f"{name}, line {line}: '{row}' is no row of KITTI's, a class and 14 numbers{hint}"
        elif words[0] == _UNLABELLED:
            told[_LEFT_OUT] += 1
        else:
            boxes.append(Box(words[0], sides))
    yield Labelled((file.stem,), name, tuple(boxes), told=+told)


def _sides(words: list[str]) -> tuple[float, float, float, float] | None:
    """The corners of a row; None of what is none of KITTI's."""
    if len(words) not in (_VALUES, _SCORED):
        return None
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError:
        return None
    return numbers[3], numbers[4], numbers[5], numbers[6]


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """All text files of the folders in which one has a row of KITTI's: others may be empty, or wrong in a row."""
    files, folders = label_files(root, split, ".txt", lambda file: True)
    own = {folder for folder in {file.parent for file in files} if _is_kitti([f for f in files if f.parent == folder])}
    chosen = [file for file in files if file.parent in own]
    return chosen, folders if chosen else []


def _is_kitti(files: list[Path]) -> bool:
    """Whether the first file with a row in it has one of KITTI's, whose class is a word."""
    for file in files:
        try:
            first = next((line.split() for line in read_lines(file) if line.strip()), None)
        except DataError:
            return False
        if first is not None:
            return _sides(first) is not None and not first[0].replace(".", "", 1).isdecimal()
    return False


register_layout(
    "kitti",
    Layout("KITTI", _files, read_kitti, "KITTI's training/label_2/*.txt with training/image_2/", per_image=True),
)
