"""A directory of YOLO predictions as a teacher: a text file per image, ``class cx cy width height confidence`` a row.

The files lie in ``labels/`` or in the directory itself and are called as the images are, in subdirectories where these
are. Sizes are fractions of the image. What the classes are called stands in a data.yaml there; without one they are the
student's classes in their order. An empty file says that nothing is on its image; an image without file was perhaps
never looked at.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ld_hub.errors import DataError
from ld_hub.teachers.box_teacher import numbers
from ld_hub.teachers.kinds import Kind, register_kind
from ld_hub.teachers.named_boxes import Key, NamedBoxes

if TYPE_CHECKING:
    from ld_hub.structures import Detections
    from ld_hub.teachers.photos import Photo

_ROUNDING = 1e-3  # by which tools that round go beyond the image, in fractions of it
_NUMBERS = 6  # of a row
_OTHERS = ("classes.txt", "labels.txt")  # files of names


class YoloPredictions(NamedBoxes):
    """The boxes of a directory.

    Args:
        directory: As `labels_of` finds them.

    Raises:
        DataError: If there are no files, or data.yaml cannot be read.
    """

    kind = "YOLO predictions"

    def __init__(self, directory: str | Path) -> None:
        from ld_hub.data.yolo_parts import YAML_NAMES, read_names

        root = Path(directory).expanduser()
        folder = labels_of(root)
        files = sorted(file for file in folder.rglob("*.txt") if file.name not in _OTHERS)
        self._files = {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
        places = [place / name for place in (root, folder.parent) for name in YAML_NAMES]
        described = next((file for file in places if file.is_file()), None)
        digest = hashlib.sha256()
        for name, file in self._files.items():
            digest.update(name.encode() + b"\0" + file.read_bytes())
        names = () if described is None else read_names(described)
        super().__init__(root.name, self._files, names, digest=digest.hexdigest())

    def boxes_of(self, key: Key, photo: Photo) -> Detections:
        """See `NamedBoxes.boxes_of`.

        Raises:
            DataError: If a row is broken; names file and line.
        """
        import torch

        from ld_hub.formats.text import read_lines
        from ld_hub.structures import Detections

        file = self._files[str(key)]
        lines = enumerate(read_lines(file), start=1)
        rows = torch.tensor([_row(file, number, line) for number, line in lines if line.strip()]).reshape(-1, _NUMBERS)
        label, center, extent, scores = rows.split([1, 2, 2, 1], dim=1)
        height, width = photo.size
        corners = torch.cat([center - extent / 2, center + extent / 2], dim=1)
        corners = corners * torch.tensor([width, height, width, height])
        labels = label[:, 0].long()
        names = self.label_names or numbers(labels)
        return Detections(corners, scores[:, 0], labels, names)


def labels_of(root: Path) -> Path:
    """Where the files of a directory lie."""
    return root / "labels" if (root / "labels").is_dir() else root


def _row(file: Path, number: int, line: str) -> list[float]:
    where = f"{file}, line {number}"
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        raise DataError(f"{where}: {line.strip()[:60]!r} are not numbers.") from None
    if len(values) == _NUMBERS - 1:
        raise DataError(
            f"{where}: 5 numbers, so the confidence is missing: these are labels, or predictions that were saved "
            "without it (save_conf)."
        )
    if len(values) != _NUMBERS:
        raise DataError(f"{where}: {len(values)} numbers; expected class, cx, cy, width, height, confidence.")
    if not (values[0].is_integer() and values[0] >= 0):
        raise DataError(f"{where}: the class is {values[0]:g}; expected a whole number from 0 on.")
    if not all(-_ROUNDING <= value <= 1 + _ROUNDING for value in values[1:5]):  # NaN too
        raise DataError(f"{where}: {' '.join(line.split()[1:5])} are not fractions of the image, 0 to 1.")
    return values


def _fits(teacher: str) -> bool:
    """Whether a directory holds text files that begin like predictions, and is no model."""
    root = Path(teacher).expanduser()
    if not teacher or not root.is_dir() or (root / "config.json").is_file():
        return False
    first = next((file for file in labels_of(root).rglob("*.txt") if file.name not in _OTHERS), None)
    if first is None:
        return False
    words = first.read_text(encoding="utf-8", errors="replace")[:200].split()
    return not words or words[0].replace(".", "", 1).isdecimal()


register_kind(
    "yolo",
    Kind(
        fits=_fits,
        require=lambda teacher: None,
        make=lambda teacher, _: YoloPredictions(teacher),
        words="DIR with labels/*.txt, YOLO predictions with confidences",
    ),
)
