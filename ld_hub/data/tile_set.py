"""Training images as overlapping tiles of large ones, each a row of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ld_hub.data.detection_set import DetectionSet, build_rows
from ld_hub.tiling import Tiling, View

VISIBLE = 0.3  # share of an object's box that has to lie in a tile; of less nobody could tell what it is


def cut_into_tiles(dataset: DetectionSet, tiling: Tiling) -> DetectionSet:
    """The same images as tiles; boxes are clipped to them.

    An object belongs to every tile that has enough of it. What a tile has less of is background there.

    Args:
        dataset: Of whole images.
        tiling: How they are cut.

    Returns:
        Rows with a column ``crop``: x1, y1, x2, y2 of the tile, width and height of the image, px. Ids and paths are
        those of the images.
    """
    records = dataset.records
    sources: list[int] = []
    crops: list[list[int]] = []
    owner, boxes, chosen = [], [], []
    for image, (height, width) in enumerate(records.sizes.tolist()):
        rows = np.arange(records.offsets[image], records.offsets[image + 1])
        whole = records.boxes[rows]
        for tile in tiling.tiles(width, height):
            kept, inside = boxes_in(tile, whole)
            owner.append(np.full(len(inside), len(crops)))
            boxes.append(inside)
            chosen.append(rows[kept])
            sources.append(image)
            crops.append([*tile, width, height])
    places, picked = np.array(crops, dtype=np.int64).reshape(-1, 6), np.concatenate([*chosen, np.zeros(0, int)])
    table = build_rows(
        records.image_ids[sources],
        [str(path) for path in records.paths.take(sources).to_pylist()],
        np.stack([places[:, 3] - places[:, 1], places[:, 2] - places[:, 0]], axis=1),
        np.concatenate([*owner, np.zeros(0, int)]),
        np.concatenate([*boxes, np.zeros((0, 4))]),
        records.labels[picked],
        records.crowd[picked],
        None if records.outline is None else records.outline[picked],
    )
    return replace(dataset, rows=table.add_column("crop", places.tolist()))


def boxes_in(tile: View, boxes: NDArray[np.floating[Any]]) -> tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]:
    """Which boxes of an image a tile has enough of, and what it has of them.

    Args:
        tile: In px of the image.
        boxes: ``(K, 4)`` xyxy px of the image.

    Returns:
        ``(K,)``, and the boxes of these, clipped, in px of the tile.
    """
    low, high = np.array(tile[:2] * 2), np.array(tile[2:] * 2)
    clipped = boxes.clip(low, high)
    share = _area(clipped) / np.maximum(_area(boxes), 1e-6)
    kept = (share >= VISIBLE) & (_area(clipped) > 0)
    return kept, clipped[kept] - low


def numbered(tiles: DetectionSet) -> DetectionSet:
    """The same tiles, each with an id of its own, 0, 1, ..., in place of its image's.

    Args:
        tiles: Of `cut_into_tiles`.
    """
    rows = tiles.rows.remove_columns("image_id").add_column("image_id", list(range(len(tiles))))
    return replace(tiles, rows=rows)


def count_images(dataset: DetectionSet) -> int:
    """Number of images, of which tiles may show parts.

    Args:
        dataset: Of images, or of tiles.
    """
    records = dataset.records
    return len(dataset) if records.crops is None else len(set(records.paths.to_pylist()))


def truth_of(tiles: DetectionSet) -> Mapping[str, object]:
    """The boxes of tiles as the content of a COCO file.

    Args:
        tiles: Of `numbered`.
    """
    records = tiles.records
    owner = np.repeat(records.image_ids, np.diff(records.offsets)).tolist()
    sides = np.concatenate([records.boxes[:, :2], records.boxes[:, 2:] - records.boxes[:, :2]], axis=1).tolist()
    columns = zip(owner, sides, records.labels.tolist(), records.crowd.tolist(), strict=True)
    return {
        "images": [
            {"id": number, "width": width, "height": height}
            for number, (height, width) in zip(records.image_ids.tolist(), records.sizes.tolist(), strict=True)
        ],
        "categories": [
            {"id": number, "name": name} for number, name in zip(tiles.category_ids, tiles.label_names, strict=True)
        ],
        "annotations": [
            {"image_id": image, "bbox": box, "category_id": tiles.category_ids[label], "iscrowd": int(crowd)}
            for image, box, label, crowd in columns
        ],
    }


def _area(boxes: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """``(K, 4)`` xyxy to ``(K,)`` px^2."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
