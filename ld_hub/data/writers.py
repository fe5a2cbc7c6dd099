"""Detection data written as COCO, PASCAL VOC or YOLO directories, with what a format cannot say counted."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np

from ld_hub.data.annotations import Bools, CocoFile, Floats, content_of
from ld_hub.data.checks import bad_boxes, box_corners, clip_boxes, image_rows, lookup
from ld_hub.errors import DataError
from ld_hub.formats.text import CLASSES_FILE
from ld_hub.hub.files import atomic_write

FORMATS = ("coco", "voc", "yolo", "createml", "labelme", "hub")
Images = Literal["link", "copy", "none"]
_FRACTION_DIGITS = 10  # of YOLO's numbers: within 1e-5 px in an image of 10,000 px


@dataclass
class Part:
    """One split on its way into another format.

    Attributes:
        split: Its name.
        coco: What it holds.
        image_dir: Directory that `coco`'s file names are relative to.
        names: File name of each image in the new directory, without folders.
        images: What becomes of the images: ``"link"``, ``"copy"`` or ``"none"``.
        told: What the format could not say, by number of boxes.
    """

    split: str
    coco: CocoFile
    image_dir: Path
    names: list[str]
    images: Images = "link"
    told: Counter[str] = field(default_factory=Counter)

    def boxes_of(self) -> list[list[int]]:
        """The annotations of each image, in the order of the file."""
        grouped: list[list[int]] = [[] for _ in self.coco.image_ids]
        for k, row in enumerate(image_rows(self.coco).tolist()):
            grouped[row].append(k)
        return grouped

    def labels(self) -> list[int]:
        """``(K,)`` position of each annotation's class."""
        found: list[int] = lookup(self.coco.category_of, np.array(self.coco.category_ids, dtype=np.int64)).tolist()
        return found


def write_coco(root: Path, part: Part, step: Callable[[], None]) -> None:
    """Write ``annotations/instances_SPLIT.json``; every box is kept.

    Args:
        root: Directory that is being made.
        part: What to write.
        step: Called after each image.
    """
    content = content_of(part.coco, part.names)
    for _ in part.names:
        step()
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    atomic_write(root / "annotations" / f"instances_{part.split}.json", text)


def write_voc(root: Path, part: Part, step: Callable[[], None]) -> None:
    """Write an XML per image, ``ImageSets/Main/SPLIT.txt`` and ``classes.txt``.

    Boxes become whole pixels counted from 1, at least one of them; crowds and ``ignore`` become difficult.

    Args:
        root: Directory that is being made.
        part: What to write.
        step: Called after each image.
    """
    coco = part.coco
    require_plain_names(coco.label_names, "an XML")
    corners, usable = usable_boxes(part)
    low = np.minimum(np.rint(corners[:, :2]), coco.sizes[image_rows(coco)][:, ::-1] - 1)
    high = np.maximum(np.rint(corners[:, 2:]), low + 1)
    pixels = np.concatenate([low, high], axis=1)
    moved = (np.abs(pixels - corners) > 1e-6).any(axis=1) & usable
    part.told["boxes rounded to whole pixels, which is how VOC writes them"] += int(moved.sum())
    part.told["crowds marked difficult: VOC has no crowds"] += int((coco.crowd & usable).sum())
    tell_areas(part, usable)
    difficult, labels = (coco.crowd | coco.ignore).tolist(), part.labels()
    whole = pixels.astype(np.int64).tolist()
    for row, (name, indices) in enumerate(zip(part.names, part.boxes_of(), strict=True)):
        height, width = coco.sizes[row].tolist()
        tree = _xml({"annotation": {"folder": "JPEGImages", "filename": name}})
        tree.append(_xml({"size": {"width": width, "height": height, "depth": 3}}))
        for k in indices:
            if usable[k]:
                x1, y1, x2, y2 = whole[k]
                item = _xml({"object": {"name": coco.label_names[labels[k]], "difficult": int(difficult[k])}})
                item.append(_xml({"bndbox": {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": x2, "ymax": y2}}))
                tree.append(item)
        ElementTree.indent(tree)
        (root / "Annotations" / f"{Path(name).stem}.xml").write_bytes(ElementTree.tostring(tree, "utf-8") + b"\n")
        step()
    stems = "".join(f"{Path(name).stem}\n" for name in part.names)
    (root / "ImageSets" / "Main" / f"{part.split}.txt").write_text(stems, encoding="utf-8")
    write_classes(root, coco.label_names)


def write_yolo(root: Path, part: Part, step: Callable[[], None]) -> None:
    """Write a text file per image with boxes, without crowds and what is difficult or ignored; see `write_yaml`.

    Args:
        root: Directory that is being made.
        part: What to write.
        step: Called after each image.
    """
    coco = part.coco
    corners, usable = usable_boxes(part)
    usable = without_marks(part, usable, "YOLO")
    tell_areas(part, usable)
    sizes = coco.sizes[image_rows(coco)][:, ::-1]
    centers, extents = (corners[:, :2] + corners[:, 2:]) / (2 * sizes), (corners[:, 2:] - corners[:, :2]) / sizes
    fractions, labels = np.concatenate([centers, extents], axis=1).tolist(), part.labels()
    for name, indices in zip(part.names, part.boxes_of(), strict=True):
        lines = [f"{labels[k]} {' '.join(map(_fraction, fractions[k]))}\n" for k in indices if usable[k]]
        (root / "labels" / part.split / f"{Path(name).stem}.txt").write_text("".join(lines))
        step()


def write_classes(root: Path, names: Sequence[str]) -> None:
    """Write classes.txt, which keeps the order of the classes and those without boxes.

    Args:
        root: Directory that is being made.
        names: Class names.
    """
    (root / CLASSES_FILE).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_yaml(root: Path, splits: Sequence[str], names: Sequence[str]) -> None:
    """Write data.yaml of a YOLO directory.

    Args:
        root: Directory that is being made.
        splits: Its parts.
        names: Class names.
    """
    import yaml

    content = {**{split: f"images/{split}" for split in splits}, "nc": len(names), "names": list(names)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=2**16)
    (root / "data.yaml").write_text(text, encoding="utf-8")


def usable_boxes(part: Part) -> tuple[Floats, Bools]:
    """Corners clipped to the image, and which boxes have an area there at all; tells the part of the others.

    Args:
        part: What is to be written.
    """
    coco = part.coco
    reasons = bad_boxes(coco)
    usable = ~(reasons["no area"] | reasons["outside the image"])
    part.told["boxes without an area in their image left out"] += int((~usable).sum())
    corners = clip_boxes(coco)
    clipped = (np.abs(corners - box_corners(coco)) > 0.01).any(axis=1) & usable
    part.told["boxes that reached beyond their image clipped"] += int(clipped.sum())
    return corners, usable


def without_marks(part: Part, usable: Bools, to: str) -> Bools:
    """The usable boxes that are neither crowds nor ignored; tells the part of the others.

    Args:
        part: What is to be written.
        usable: ``(K,)``.
        to: The format that cannot say such marks.
    """
    coco = part.coco
    for name, mask in (("crowds", coco.crowd), ("difficult or ignored boxes", coco.ignore & ~coco.crowd)):
        part.told[f"{name} left out: {to} cannot say them"] += int((mask & usable).sum())
    kept: Bools = usable & ~coco.crowd & ~coco.ignore
    return kept


def tell_areas(part: Part, usable: Bools) -> None:
    """Count the areas that are not those of the boxes, which only COCO can say.

    Args:
        part: What is to be written.
        usable: ``(K,)`` which boxes are.
    """
    coco = part.coco
    other = np.abs(coco.areas - coco.boxes[:, 2] * coco.boxes[:, 3]) > 0.5
    what = "areas of masks replaced by those of boxes, which moves COCO's small, medium and large"
    part.told[what] += int((other & usable).sum())


def _xml(content: dict[str, dict[str, object]]) -> ElementTree.Element:
    """An element with children that hold texts."""
    ((name, children),) = content.items()
    element = ElementTree.Element(name)
    for key, value in children.items():
        ElementTree.SubElement(element, key).text = str(value)
    return element


def require_plain_names(names: Sequence[str], where: str) -> None:
    """Refuse class names that would not be read back as they are.

    Args:
        names: The names.
        where: What they are to be written to.

    Raises:
        DataError: If one has spaces at its ends or control characters.
    """
    for name in names:
        if name != name.strip() or any(ord(character) < 32 for character in name):
            fault = "has spaces at its ends or control characters"
            raise DataError(f"The class name {name!r} cannot be written to {where}: it {fault}; rename it.")


def _fraction(value: float) -> str:
    return f"{value:.{_FRACTION_DIGITS}f}".rstrip("0").rstrip(".") or "0"


def image_target(root: Path, to: str, split: str) -> Path:
    """Where the images of a split lie in a directory of a format.

    Args:
        root: The directory.
        to: The format.
        split: The split.
    """
    return {"voc": root / "JPEGImages", "yolo": root / "images" / split}.get(to, root / split)


def image_path(part: Part, row: int) -> str:
    """The original image of a row, absolute."""
    return os.path.abspath(part.image_dir / part.coco.file_names[row])
