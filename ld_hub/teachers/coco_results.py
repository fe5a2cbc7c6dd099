"""A COCO results file as a teacher: boxes that any detector wrote, in px of the image files.

Either the list that COCO's evaluation takes, ``[{"image_id", "category_id", "bbox": [x, y, width, height], "score"},
...]``, or the form of COCO's annotation files with scores, ``{"images": [{"id", "file_name"}, ...], "categories":
[{"id", "name"}, ...], "annotations": [the same rows]}``, which says what the images and the classes are called. Image
ids of the list may be numbers or file names (`NamedBoxes`); its categories are those of the student's data. Images of
the second form without any row have nothing on them; of the list it is not known whether anybody looked at such images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.errors import DataError, MissingFileError
from ld_hub.teachers.kinds import Kind, register_kind
from ld_hub.teachers.named_boxes import Key, NamedBoxes, names_of_ids

if TYPE_CHECKING:
    from ld_hub.structures import Detections
    from ld_hub.teachers.photos import Photo

FORMS = (
    'expected a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}, or {"images", '
    '"categories", "annotations"} with such rows'
)


@dataclass
class _Rows:
    """What stands in the file about one image: px sizes of the image, if it says so, and its rows."""

    size: tuple[int, int] | None
    boxes: list[list[float]]
    categories: list[int]
    scores: list[float]


class CocoResults(NamedBoxes):
    """The boxes of a results file.

    Args:
        file: The file.

    Raises:
        MissingFileError: If it does not exist.
        DataError: If it is no results file, holds no boxes, or a row is broken; names the row.
    """

    kind = "COCO results"

    def __init__(self, file: str | Path) -> None:
        from ld_hub.hub import sha256_of

        self.file = Path(file).expanduser()
        rows, images, categories = _parsed(self.file)
        self._rows = _by_image(self.file, rows, images)
        used = sorted({number for each in self._rows.values() for number in each.categories})
        unknown = [number for number in used if categories and number not in categories]
        if unknown:
            raise DataError(f"'{self.file}': a row has the category_id {unknown[0]}, which 'categories' does not list.")
        self._ids = sorted(categories) or used
        names = [categories[number] for number in self._ids] if categories else []
        super().__init__(self.file.name, self._rows, names, digest=sha256_of(self.file))

    def classes(self, label_names: Sequence[str], category_ids: Sequence[int]) -> tuple[str, ...]:
        """See `BoxTeacher.classes`."""
        return self.label_names or names_of_ids(self._ids, label_names, category_ids)

    def compare(self, key: Key, photo: Photo) -> None:
        """See `NamedBoxes.compare`.

        Raises:
            DataError: If the file says that the image has another size.
        """
        size = self._rows[key].size
        if size is not None and size != photo.size:
            raise DataError(
                f"'{self.file}' says that {key!r} has {size[1]}x{size[0]} px; '{photo.path}' has "
                f"{photo.size[1]}x{photo.size[0]}: boxes of another image, or of one that was turned or resized."
            )

    def boxes_of(self, key: Key, photo: Photo) -> Detections:
        """See `NamedBoxes.boxes_of`."""
        import torch

        from ld_hub.structures import Detections

        rows = self._rows[key]
        box = torch.tensor(rows.boxes, dtype=torch.float64).reshape(-1, 4)
        corners = torch.cat([box[:, :2], box[:, :2] + box[:, 2:]], dim=1).float()
        labels = torch.tensor([self._ids.index(number) for number in rows.categories], dtype=torch.int64)
        names = self.label_names or tuple(map(str, self._ids))
        return Detections(corners, torch.tensor(rows.scores), labels, names)


def _parsed(file: Path) -> tuple[Sequence[Any], Sequence[Any] | None, Mapping[int, str]]:
    """Rows, images (None where the file has none), and names of classes by id."""
    if not file.is_file():
        raise MissingFileError(f"No results file '{file}'.")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{file}' is not readable JSON ({error}); {FORMS}.") from None
    whole = content if isinstance(content, dict) else {"annotations": content}
    rows, images, categories = (whole.get(name) for name in ("annotations", "images", "categories"))
    if not isinstance(rows, list) or not isinstance(images, (list, type(None))):
        raise DataError(f"'{file}' is no results file: {FORMS}.")
    if not rows:
        raise DataError(f"'{file}' holds no boxes; {FORMS}.")
    if all(isinstance(row, dict) and "score" not in row for row in rows):
        raise DataError(
            f"'{file}': no row has a score, so these are labels and not a teacher's boxes. Labelled images are given "
            "by --data, or --train_annotations FILE with --train_images DIR."
        )
    try:
        names = {int(each["id"]): str(each["name"]) for each in categories or []}
    except (TypeError, KeyError, ValueError):
        raise DataError(f"'{file}': 'categories' is no list of {{\"id\", \"name\"}}.") from None
    return rows, images, names


def _by_image(file: Path, rows: Sequence[Any], images: Sequence[Any] | None) -> dict[Key, _Rows]:
    """The rows of each image under its file name, or under its id where the file has no list of images."""
    found: dict[Key, _Rows] = {}
    names: dict[Key, Key] = {}
    for image in images or []:
        try:
            key, name = image["id"], image["file_name"]
            size = (int(image["height"]), int(image["width"])) if image.get("width") and image.get("height") else None
        except (TypeError, KeyError, AttributeError, ValueError):
            raise DataError(f"'{file}': an entry of 'images' has no \"id\" and \"file_name\".") from None
        names[key], found[name] = name, _Rows(size, [], [], [])
    for number, row in enumerate(rows, start=1):
        key = _checked(file, number, row)
        if images is not None and key not in names:
            raise DataError(f"'{file}', row {number}: image_id {key!r} is not in 'images'.")
        rows_of = found.setdefault(names.get(key, key), _Rows(None, [], [], []))
        rows_of.boxes.append(row["bbox"])
        rows_of.categories.append(row["category_id"])
        rows_of.scores.append(row["score"])
    sides = [abs(side) for each in found.values() for box in each.boxes for side in box]
    if max(sides) <= 1:
        raise DataError(f"'{file}': no side of any box is longer than 1 px. Are these fractions? {FORMS}, in px.")
    return found


def _checked(file: Path, number: int, row: Any) -> Key:
    """The image of a row whose values are of the right types; what numbers they are is checked with the image."""
    kinds = {"image_id": (int, str), "category_id": (int,), "bbox": (list,), "score": (int, float)}
    for name, kind in kinds.items():
        value = row.get(name) if isinstance(row, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise DataError(f"'{file}', row {number}: '{name}' is {value!r}; {FORMS}.")
    box = row["bbox"]
    if len(box) != 4 or not all(isinstance(side, (int, float)) for side in box):
        raise DataError(f"'{file}', row {number}: 'bbox' is {box!r}; expected [x, y, width, height] in px.")
    key: Key = row["image_id"]
    return key


def _require(teacher: str) -> None:
    if not Path(teacher).expanduser().is_file():
        raise MissingFileError(f"--teacher: no results file '{teacher}'.")


register_kind(
    "coco",
    Kind(
        fits=lambda teacher: teacher.lower().endswith(".json"),
        require=_require,
        make=lambda teacher, _: CocoResults(teacher),
        words="FILE.json, a COCO results file",
    ),
)
