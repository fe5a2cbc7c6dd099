"""A detection dataset in memory: paths and boxes in an Arrow table, never pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ld_hub.data.annotations import Bools, Ints
from ld_hub.data.outline_store import Outlines
from ld_hub.errors import MissingFileError
from ld_hub.hub.files import sha256_of
from ld_hub.preprocessing import load_image

if TYPE_CHECKING:
    import datasets

OBJECTS = ["boxes", "labels", "crowd"]  # columns of what is on an image
HASH_DIGITS = 32  # hexadecimal digits of a file's SHA-256 that tell it from all others


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """Images and their boxes; what every reader makes and every loader takes.

    Attributes:
        rows: One row per image: ``image_id`` int, ``path`` str, ``width`` and ``height`` px, ``boxes`` list of
            ``[x1, y1, x2, y2]`` px clipped to the image, ``labels`` list of 0..C-1, ``crowd`` list of bool; and
            ``file_hash`` str where `with_file_hashes` has added it, ``outline`` list of places in `outlines` (-1 where
            there is none) where these were asked for.
        label_names: C names.
        category_ids: C ids of the annotation file, in the order of the labels.
        annotation_file: Where the annotations came from; evaluation reads the ground truth from it.
        image_dir: Directory that the annotation file's names are relative to.
        dropped: Boxes left out on reading, by reason.
        protocol: How it is usually scored: ``"coco"``, or ``"voc07"`` and ``"voc12"`` where it was read from VOC, or
            ``"lvis"`` where the file says what was looked for on each image.
        source: What messages call it: the annotation file, or the VOC or YOLO directory and what of it was read.
        file_ids: Of images without labels that came with an annotation file: the id that it gives each path.
        outlines: Of objects, for copy-paste; None where nobody asked.
    """

    rows: datasets.Dataset
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    annotation_file: str
    image_dir: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    protocol: str = "coco"
    source: str = ""
    file_ids: Mapping[str, int] = field(default_factory=dict)
    outlines: Outlines | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.label_names)

    @cached_property
    def records(self) -> Records:
        """The rows as flat arrays, for quick access by index."""
        return replace(Records.from_table(self.rows.with_format("arrow")[:]), outlines=self.outlines)

    @property
    def sizes(self) -> Ints:
        """``(I, 2)`` height, width of all images in px."""
        return self.records.sizes

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> DetectionSet:
        """The dataset of these rows only."""
        return replace(self, rows=self.rows.select([int(i) for i in indices]))

    def without_empty(self) -> DetectionSet:
        """The dataset of the images that have at least one box which is no crowd."""
        records = self.records
        usable = np.concatenate([[0], np.cumsum(~records.crowd)])
        counts = usable[records.offsets[1:]] - usable[records.offsets[:-1]]
        return self.select(np.flatnonzero(counts))

    def with_objects(self, owner: Ints, boxes: NDArray[np.float32], labels: Ints) -> DetectionSet:
        """The same images with these objects in place of theirs, none a crowd.

        Args:
            owner: ``(K,)`` row of the image that each is on.
            boxes: ``(K, 4)`` xyxy px of the image.
            labels: ``(K,)``, whatever the caller takes them for.
        """
        import datasets

        records = self.records
        paths, crowd = records.paths.to_pylist(), np.zeros(len(owner), dtype=bool)
        made = build_rows(records.image_ids, paths, records.sizes, owner, boxes, labels, crowd).select_columns(OBJECTS)
        others = self.rows.select_columns(
            [name for name in self.rows.column_names if name not in (*OBJECTS, "outline")]
        )
        return replace(self, rows=datasets.concatenate_datasets([others, made], axis=1), outlines=None)

    def with_file_hashes(self, hashes: Sequence[str]) -> DetectionSet:
        """The dataset whose batches say what is on their images (`ImageBatch.contents`).

        Args:
            hashes: Of each row's file, see `Records.find_file_hash`.
        """
        rows = self.rows.remove_columns("file_hash") if "file_hash" in self.rows.column_names else self.rows
        return replace(self, rows=rows.add_column("file_hash", list(hashes)))


@dataclass(frozen=True, eq=False)
class Records:
    """All rows in a handful of arrays: a row costs microseconds, and forked workers share the memory.

    Attributes:
        image_ids: ``(I,)``.
        paths: I paths, an Arrow array.
        sizes: ``(I, 2)`` height, width in px.
        offsets: ``(I + 1,)``; row i has the boxes ``offsets[i]:offsets[i + 1]``.
        boxes: ``(K, 4)`` float32 xyxy px.
        labels: ``(K,)`` int64.
        crowd: ``(K,)``.
        file_hashes: I texts, an Arrow array; None where nobody asked.
        crops: ``(I, 6)`` x1, y1, x2, y2 of a tile, width and height of its image, px; None where rows are whole images.
        outline: ``(K,)`` places in `outlines`, -1 where there is none; None where nobody asked.
        outlines: Of objects.
    """

    image_ids: Ints
    paths: Any
    sizes: Ints
    offsets: Ints
    boxes: NDArray[np.float32]
    labels: Ints
    crowd: Bools
    file_hashes: Any = None
    crops: Ints | None = None
    outline: Ints | None = None
    outlines: Outlines | None = None

    def load(self, index: int) -> Image.Image:
        """Read the image of a row, upright where the declared size says so, and cut its tile out if it is one.

        Raises:
            DataError: If the file is damaged or does not have the declared size.
            MissingFileError: If it is gone.
        """
        height, width = self.sizes[index].tolist()
        path = self.paths[index].as_py()
        if self.crops is None:
            return load_image(path, size=(width, height))
        *tile, width, height = self.crops[index].tolist()
        return load_image(path, size=(width, height)).crop(tile)

    def masks(self, index: int) -> NDArray[np.bool_] | None:
        """``(G, h, w)`` pixels of a row's objects, all False for those without outline; None where not asked for."""
        if self.outline is None or self.outlines is None:
            return None
        places = self.outline[self.offsets[index] : self.offsets[index + 1]]
        if self.crops is None:
            height, width = self.sizes[index].tolist()
            return self.outlines.masks(places, (height, width))
        left, top, right, bottom, width, height = self.crops[index].tolist()
        return self.outlines.masks(places, (height, width))[:, top:bottom, left:right]

    def file_hash(self, index: int) -> str:
        """Hash of the file of a row as it is stored there; empty where nobody asked."""
        return "" if self.file_hashes is None else str(self.file_hashes[index].as_py())

    def find_file_hash(self, index: int) -> str:
        """Hash of the content of the file of a row, of the size it is declared to have, and of the tile if it is one.

        Raises:
            MissingFileError: If it is gone.
        """
        path = self.paths[index].as_py()
        if self.crops is None:
            return file_content(path, *self.sizes[index].tolist())
        *tile, width, height = self.crops[index].tolist()
        return f"{file_content(path, height, width)}-{'-'.join(map(str, tile))}"

    @classmethod
    def from_table(cls, table: Any) -> Records:
        """Read the Arrow table of a `DetectionSet`."""
        import pyarrow.compute as pc

        def flat(name: str) -> Any:
            return table.column(name).combine_chunks().flatten()

        boxes = flat("boxes").flatten().to_numpy(zero_copy_only=False)
        counts = pc.list_value_length(table.column("labels")).to_numpy()
        return cls(
            image_ids=table.column("image_id").to_numpy().astype(np.int64),
            paths=table.column("path").combine_chunks(),
            sizes=np.stack([table.column(n).to_numpy() for n in ("height", "width")], axis=1).astype(np.int64),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            boxes=boxes.astype(np.float32).reshape(-1, 4),
            labels=flat("labels").to_numpy(zero_copy_only=False).astype(np.int64),
            crowd=flat("crowd").to_numpy(zero_copy_only=False).astype(bool),
            file_hashes=table.column("file_hash").combine_chunks() if "file_hash" in table.column_names else None,
            crops=flat("crop").to_numpy().reshape(-1, 6) if "crop" in table.column_names else None,
            outline=flat("outline").to_numpy(zero_copy_only=False) if "outline" in table.column_names else None,
        )


def file_content(path: str, height: int, width: int) -> str:
    """Hash of the content of an image file, and of the size it is declared to have, which may turn it.

    Args:
        path: The file.
        height: Declared, in px.
        width: Declared, in px.

    Raises:
        MissingFileError: If it is gone.
    """
    if not os.path.isfile(path):
        raise MissingFileError(f"No image file {path}.")
    return f"{sha256_of(path)[:HASH_DIGITS]}-{width}x{height}"


def build_rows(
    image_ids: Ints,
    paths: Sequence[str],
    sizes: Ints,
    owner: Ints,
    boxes: NDArray[np.floating[Any]],
    labels: Ints,
    crowd: Bools,
    outline: Ints | None = None,
) -> datasets.Dataset:
    """Make the table of a `DetectionSet` without a Python loop over images or boxes.

    Args:
        image_ids: ``(I,)``.
        paths: I absolute paths.
        sizes: ``(I, 2)`` height, width in px.
        owner: ``(K,)`` row of the image each box belongs to.
        boxes: ``(K, 4)`` xyxy px.
        labels: ``(K,)`` 0..C-1.
        crowd: ``(K,)``.
        outline: ``(K,)`` places among the outlines, where there are any.
    """
    import datasets
    import pyarrow as pa

    if not (owner[1:] >= owner[:-1]).all():
        order = np.argsort(owner, kind="stable")
        boxes = boxes[order]  # one after the other: each frees what it was
        labels = labels[order]
        crowd = crowd[order]
        outline = None if outline is None else outline[order]
    counts = np.bincount(owner, minlength=len(image_ids))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    corners = pa.FixedSizeListArray.from_arrays(pa.array(boxes.astype(np.float32, copy=False).reshape(-1)), 4)
    table = pa.table(
        {
            "image_id": pa.array(image_ids),
            "path": pa.array(list(paths), type=pa.string()),
            "width": pa.array(sizes[:, 1]),
            "height": pa.array(sizes[:, 0]),
            "boxes": pa.ListArray.from_arrays(offsets, corners),
            "labels": pa.ListArray.from_arrays(offsets, pa.array(labels)),
            "crowd": pa.ListArray.from_arrays(offsets, pa.array(crowd)),
            **({} if outline is None else {"outline": pa.ListArray.from_arrays(offsets, pa.array(outline))}),
        }
    )
    return datasets.Dataset(table, fingerprint=_fingerprint(table))


def _fingerprint(table: Any) -> str:
    """Of an Arrow table, from its buffers as they are: `datasets` pickles the whole table for it."""
    digest = hashlib.blake2b(str(table.schema).encode(), digest_size=8)
    for column in table.columns:
        for buffer in (each for chunk in column.chunks for each in chunk.buffers() if each is not None):
            digest.update(buffer)
    return digest.hexdigest()
