"""Rows of COCO's files. Boxes are x, y, width, height in px of the original image."""

from __future__ import annotations

from typing import TypedDict


class _ImageRow(TypedDict):
    id: int
    width: float
    height: float


class ImageRow(_ImageRow, total=False):
    """An image; 0 stands for a size that is not known.

    LVIS says which categories are not on it (``neg_category_ids``), and of which it shows more than the boxes tell.
    """

    neg_category_ids: list[int]
    not_exhaustive_category_ids: list[int]


class ImageFileRow(ImageRow):
    """An image with its file."""

    file_name: str


class ReadImageRow(ImageFileRow):
    """An image with the file that its boxes were read from."""

    read_from: str


class _CategoryRow(TypedDict):
    id: int
    name: str


class CategoryRow(_CategoryRow, total=False):
    """A class; in LVIS' files with ``"r"``, ``"c"`` or ``"f"``: on few, some or many training images."""

    frequency: str


class _ObjectRow(TypedDict):
    image_id: int
    category_id: int
    bbox: list[float]
    area: float
    iscrowd: int


class ObjectRow(_ObjectRow, total=False):
    """An annotation that has no id yet; ``ignore`` is 1 for objects that VOC calls difficult."""

    ignore: int


class AnnotationRow(ObjectRow):
    """An annotation."""

    id: int


class ResultRow(TypedDict):
    """A detection, as results files hold it."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


class PipelineBox(TypedDict):
    """Corners in whole px."""

    xmin: int
    ymin: int
    xmax: int
    ymax: int


class PipelineRow(TypedDict):
    """A detection, as the Hugging Face object-detection pipeline returns it."""

    score: float
    label: str
    box: PipelineBox
