"""Asking a teacher that only detects, once: what it finds on every image, before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track

from ld_hub.engine.evaluate import gathered
from ld_hub.errors import DataError
from ld_hub.hub import ShardStore
from ld_hub.ops.dist import rank, world_size
from ld_hub.structures import Detections
from ld_hub.teachers.box_teacher import BoxTeacher, check, detections_in
from ld_hub.teachers.photos import Photo

KEPT = ("boxes", "scores", "labels")  # of `Detections`, in a store


class Looked(NamedTuple):
    """What a teacher found.

    Attributes:
        found: On each image, in px of the file.
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
    mine = range(rank(), len(photos), world_size())
    found, clipped, outside = [], 0, 0
    for index, (each, cut, left) in zip(
        mine, _share(teacher, [photos[k] for k in mine], batch_size, store), strict=True
    ):
        found.append((index, each.boxes.numpy(), each.scores.numpy(), each.labels.numpy()))
        clipped, outside = clipped + cut, outside + left
    names = teacher.label_names
    parts = gathered((found, clipped, outside))
    rows = sorted((row for part, _, _ in parts for row in part), key=lambda row: row[0])
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


def _share(
    teacher: BoxTeacher, photos: Sequence[Photo], batch_size: int, store: ShardStore | None
) -> Iterator[tuple[Detections, int, int]]:
    """Checked detections of this rank's images, in their order, behind a progress bar where somebody can see one."""
    console = Console()
    steps = range(0, len(photos), batch_size)
    shown = rank() == 0 and console.is_terminal
    for start in track(steps, f"asking {teacher.name}", console=console, transient=True) if shown else steps:
        part = photos[start : start + batch_size]
        keys = ["" if store is None else photo.digest() for photo in part]
        new = [photo for photo, key in zip(part, keys, strict=True) if store is None or key not in store]
        said = iter(teacher.detect(new) if new else ())
        fresh = {}
        for photo, key in zip(part, keys, strict=True):
            if store is not None and key in store:
                entry = store.read(key)
                cut, left = entry["notes"].tolist()
                yield detections_in(entry, teacher.label_names), cut, left
                continue
            checked = check(next(said), photo, teacher.name)
            fresh[key] = {name: getattr(checked.found, name) for name in KEPT}
            fresh[key]["notes"] = torch.tensor([checked.clipped, checked.outside])
            yield checked
        if store is not None:
            store.append(fresh)
