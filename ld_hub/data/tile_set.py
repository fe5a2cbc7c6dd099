"""Training images as overlapping tiles of large ones, each a row of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ld_hub.data.detection_set import DetectionSet, build_rows
from ld_hub.tiling import Tiling

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
            low, high = np.array(tile[:2] * 2), np.array(tile[2:] * 2)
            clipped = whole.clip(low, high)
            share = _area(clipped) / np.maximum(_area(whole), 1e-6)
            kept = (share >= VISIBLE) & (_area(clipped) > 0)
            owner.append(np.full(int(kept.sum()), len(crops)))
            boxes.append(clipped[kept] - low)
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


def _area(boxes: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """``(K, 4)`` xyxy to ``(K,)`` px^2."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
