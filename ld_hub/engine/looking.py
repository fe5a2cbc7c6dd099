"""Asking a teacher that only detects, once: what it finds on every image, before the first step."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track

from ld_hub.data import DetectionSet
from ld_hub.data.tile_set import boxes_in
from ld_hub.engine.evaluate import gathered
from ld_hub.errors import DataError
from ld_hub.hub import ShardStore
from ld_hub.ops.dist import rank, world_size
from ld_hub.structures import Detections
from ld_hub.teachers.box_teacher import BoxTeacher, Checked, check, detections_in
from ld_hub.teachers.photos import Photo, photos_of
from ld_hub.tiling import View

KEPT = ("boxes", "scores", "labels")  # of `Detections`, in a store
NAMES = "label_names"  # entry of a store: the teacher's classes, where it has told them
COUNTS = "counts"  # beside them: boxes that were cut, and left out
SHARD_BYTES = 2**20  # some hundred images: what is lost if the process is killed


class Looked(NamedTuple):
    """What a teacher found.

    Attributes:
        found: On each image, in px of the file; on each tile, in px of the tile.
        clipped: Number of boxes that reached beyond their images, and were cut.
        outside: Number of boxes without area on their images, which were left out.
    """

    found: list[Detections]
    clipped: int
    outside: int

    def remark(self, who: str) -> str:
        """What the user should know about the boxes; the empty string where all are as they should be."""
        count = sum(map(len, self.found))
        parts = [f"{self.clipped} reached beyond their images and were cut"] if self.clipped else []
        parts += [f"{self.outside} lay outside or had no area and were left out"] if self.outside else []
        return f"Of the boxes of '{who}' ({count} kept), {' and '.join(parts)}." if parts else ""


def look_at(teacher: BoxTeacher, photos: Sequence[Photo], batch_size: int, store: ShardStore | None = None) -> Looked:
    """What a teacher finds on some images; every rank has to call it, looks at its share, and gets all.

    Args:
        teacher: Which `knows` the images.
        photos: The images.
        batch_size: Images at a time.
        store: Where it is read from and written to, by the images' content; None keeps it in memory alone.

    Raises:
        DataError: If a detection makes no sense (`check`), or most boxes lie outside their images.
    """
    if store is not None and NAMES in store and not teacher.label_names:
        teacher.label_names = tuple(json.loads(bytes(store.read(NAMES)[NAMES].tolist())))
    mine = range(rank(), len(photos), world_size())
    found, clipped, outside = [], 0, 0
    for index, (each, cut, left) in zip(
        mine, _share(teacher, [photos[k] for k in mine], batch_size, store), strict=True
    ):
        found.append((index, each.boxes.numpy(), each.scores.numpy(), each.labels.numpy()))
        clipped, outside = clipped + cut, outside + left
    parts = gathered((found, clipped, outside, teacher.label_names))
    names = teacher.label_names = next((part[3] for part in parts if part[3]), ())  # a rank without images knows none
    rows = sorted((row for part in parts for row in part[0]), key=lambda row: row[0])
    columns = [dict(zip(KEPT, map(torch.from_numpy, row[1:]), strict=True)) for row in rows]
    every = [detections_in(each, names) for each in columns]
    looked = Looked(every, sum(part[1] for part in parts), sum(part[2] for part in parts))
    if looked.outside > sum(map(len, every)):
        raise DataError(
            f"Teacher '{teacher.name}': {looked.outside} boxes lie outside their images or have no area, more than "
            f"the {sum(map(len, every))} others. Boxes are taken in px of the image files: are these of other sizes, "
            "or x, y, width, height where corners are expected, or the reverse?"
        )
    return looked


def look_at_set(teacher: BoxTeacher, images: DetectionSet, batch_size: int, store: ShardStore | None = None) -> Looked:
    """What a teacher finds on a data set, of which tiles have what a labelled tile would have; see `look_at`.

    Args:
        teacher: Asked once about each image, as a whole.
        images: With or without labels, or tiles of them.
        batch_size: See `look_at`, also for `store` and errors.
        store: See there.
    """
    photos, crops = photos_of(images), images.records.crops
    if crops is None:
        return look_at(teacher, photos, batch_size, store)
    whole = list(dict.fromkeys(photos))
    looked = look_at(teacher, whole, batch_size, store)
    found = dict(zip(whole, looked.found, strict=True))
    parts = [_part(found[photo], crop[:4]) for photo, crop in zip(photos, crops.tolist(), strict=True)]
    return looked._replace(found=parts)


def _part(found: Detections, tile: View) -> Detections:
    kept, inside = boxes_in(tile, found.boxes.numpy())
    rows = torch.from_numpy(kept)
    boxes = torch.from_numpy(inside).to(found.boxes.dtype)
    return replace(found, boxes=boxes, scores=found.scores[rows], labels=found.labels[rows])


def _share(
    teacher: BoxTeacher, photos: Sequence[Photo], batch_size: int, store: ShardStore | None
) -> Iterator[Checked]:
    """Checked detections of this rank's images, in their order, behind a progress bar where somebody can see one."""
    console = Console()
    steps = range(0, len(photos), batch_size)
    shown = rank() == 0 and console.is_terminal
    with contextlib.nullcontext() if store is None else store.writer(SHARD_BYTES) as writer:
        for start in track(steps, f"asking {teacher.name}", console=console, transient=True) if shown else steps:
            part = photos[start : start + batch_size]
            keys = ["" if store is None else photo.content() for photo in part]
            known = [store is not None and key in store for key in keys]
            new = [photo for photo, there in zip(part, known, strict=True) if not there]
            said = iter(teacher.detect(new) if new else ())
            for photo, key, there in zip(part, keys, known, strict=True):
                if store is not None and there:
                    entry = store.read(key)
                    cut, left = entry[COUNTS].tolist()
                    yield Checked(detections_in(entry, teacher.label_names), cut, left)
                    continue
                checked = check(next(said), photo, teacher.name)
                if store is not None and writer is not None:
                    _keep_names(teacher, store)
                    counts = torch.tensor([checked.clipped, checked.outside])
                    writer.add(key, {**{name: getattr(checked.found, name) for name in KEPT}, COUNTS: counts})
                yield checked


def _keep_names(teacher: BoxTeacher, store: ShardStore) -> None:
    """Write down what labels mean, before any of them: a function tells it with its first answer."""
    if teacher.label_names and NAMES not in store:
        text = json.dumps(teacher.label_names).encode()
        store.append({NAMES: {NAMES: torch.tensor(list(text), dtype=torch.uint8)}})
