"""VOC's XML files without lists of images: beside the images (Roboflow, LabelImg), or in a folder of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.split_files import has_marks, label_files, own_name_first
from ld_hub.formats.voc_xml import named_image, read_annotation

_FROM_ZERO = "boxes begin at pixel 0, but VOC counts from 1 (do these files count from 0?)"


def read_xml(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The image of an XML; boxes as `load_voc` reads them.

    Args:
        file: The XML.
        name: What messages call it.
    """
    found, faults = read_annotation(file, name, named_image(file))
    yield from faults
    if found is None or faults:
        return
    boxes = []
    for item in found.objects:
        xmin, ymin, xmax, ymax = item.box  # pixels counted from 1, corners inside
        boxes.append(Box(item.name, (xmin - 1, ymin - 1, xmax, ymax), ignore=item.difficult))
    told = Counter({_FROM_ZERO: sum(min(item.box[:2]) < 1 for item in found.objects)})
    yield Labelled(own_name_first(file, found.image), name, tuple(boxes), found.size, told=+told)


def _holds(file: Path) -> bool:
    return has_marks(file, b"<annotation") and not has_marks(file, b"<annotations")  # which is CVAT's


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    return label_files(root, split, ".xml", _holds)


register_layout(
    "voc_beside",
    Layout("VOC", _files, read_xml, "VOC's SPLIT/*.xml or *.xml beside images", protocol="voc12", per_image=True),
)
