"""Detection data written as labelling tools do: CreateML and LabelMe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ld_hub.data.writers import Part, require_plain_names, tell_areas, usable_boxes, without_marks, write_classes
from ld_hub.hub.files import atomic_write

_VERSION = "5.0.1"  # of LabelMe, whose form this is


def write_createml(root: Path, part: Part, step: Callable[[], None]) -> None:
    """Write ``SPLIT/_annotations.createml.json`` and classes.txt, without crowds and what is difficult or ignored.

    Args:
        root: Directory that is being made.
        part: What to write.
        step: Called after each image.
    """
    require_plain_names(part.coco.label_names, "classes.txt")
    corners, usable = usable_boxes(part)
    usable = without_marks(part, usable, "CreateML")
    tell_areas(part, usable)
    names, labels, sides = part.coco.label_names, part.labels(), corners.tolist()
    images = []
    for name, indices in zip(part.names, part.boxes_of(), strict=True):
        boxes = []
        for k in (k for k in indices if usable[k]):
            x1, y1, x2, y2 = sides[k]
            middle = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1}
            boxes.append({"label": names[labels[k]], "coordinates": middle})
        images.append({"image": name, "annotations": boxes})
        step()
    atomic_write(root / part.split / "_annotations.createml.json", json.dumps(images, ensure_ascii=False))
    write_classes(root, names)


def write_labelme(root: Path, part: Part, step: Callable[[], None]) -> None:
    """Write ``SPLIT/IMAGE.json`` for each image, and classes.txt; crowds and what is ignored have flags of these names.

    Args:
        root: Directory that is being made.
        part: What to write.
        step: Called after each image.
    """
    coco = part.coco
    require_plain_names(coco.label_names, "classes.txt")
    corners, usable = usable_boxes(part)
    tell_areas(part, usable)
    labels, sides = part.labels(), corners.tolist()
    for row, (name, indices) in enumerate(zip(part.names, part.boxes_of(), strict=True)):
        height, width = coco.sizes[row].tolist()
        shapes = []
        for k in (k for k in indices if usable[k]):
            flags = {"crowd": bool(coco.crowd[k]), "ignore": bool(coco.ignore[k])}
            shapes.append(
                {
                    "label": coco.label_names[labels[k]],
                    "points": [sides[k][:2], sides[k][2:]],
                    "group_id": None,
                    "shape_type": "rectangle",
                    "flags": {flag: True for flag, on in flags.items() if on},
                }
            )
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        (root / part.split / f"{Path(name).stem}.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
        step()
    write_classes(root, coco.label_names)
