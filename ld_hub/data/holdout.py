"""Images to evaluate on, of data without parts: those of a folder, or some by their names, which stay so."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ld_hub.data.annotations import Bools, CocoFile, Floats
from ld_hub.data.box_parts import COLUMNS
from ld_hub.data.checks import image_rows
from ld_hub.data.repairs import repaired_source
from ld_hub.data.source import Source
from ld_hub.formats.split_files import split_names
from ld_hub.formats.splits import NoSplitError

_COPY = re.compile(r"\.rf\.[0-9a-zA-Z]+(?=\.)")  # of an image: Roboflow writes several, changed, and numbers them so


def held_out(source: Source, fraction: float, *, others: bool) -> Source:
    """One of two parts of a data set: the images whose names' hashes are low, or the others.

    Copies of one image (``a_jpg.rf.1f3a.jpg``) are in the same part, and so are images of one name in several folders.

    Args:
        source: All images.
        fraction: Which part of them is held out. At least one is, and at least one is not, where there are two names.
        others: The images that are not held out.

    Raises:
        NoSplitError: If nothing is to be held out, and that is asked for.
    """
    if fraction == 0:
        if others:
            return source
        raise NoSplitError(f"{source.parts} has no images to evaluate on, and val_fraction is 0 (--val_fraction).")
    places = _places(source.coco.file_names)
    low = places < fraction
    if len(np.unique(places)) < 2:
        low = np.zeros(len(places), dtype=bool)
        if not others:
            raise NoSplitError(f"{source.parts} has too few images to hold any out: {len(places)}.")
    elif not low.any():
        low = places == places.min()
    elif low.all():
        low = places < places.max()
    coco = _only(source.coco, ~low if others else low)
    done = "without those held out" if others else "held out"
    remark = (
        f"{source.parts}: there is no part to evaluate on; {int(low.sum())} of {len(low)} images are held out for it, "
        f"chosen by the hash of their names (val_fraction {fraction:g}, --val_fraction)."
    )
    return replace(
        repaired_source(source, coco, []),
        parts=f"{source.parts}, {len(coco.image_ids)} images {done}",
        remarks=(*source.remarks, remark),
    )


def by_folders(source: Source, root: Path, split: str) -> Source | None:
    """The images of a split of data that no file divides; None where not all lie in folders with the names of splits.

    Args:
        source: All images.
        root: The data directory.
        split: Name; where there are no images to evaluate on, those to test on are.
    """
    paths = [Path(os.path.relpath(source.image_dir / name, root)) for name in source.coco.file_names]
    parts = [_part_of(path) for path in paths]
    if "" in parts or not {"train"} < set(parts):
        return None
    wanted = "test" if split == "val" and "val" not in parts else split
    chosen = np.array([part == wanted for part in parts])
    if not chosen.any():
        return None
    count = int(chosen.sum())
    remark = f"{source.parts}: {count} of {len(parts)} images are '{split}', by the folders in which the images lie."
    return replace(
        repaired_source(source, _only(source.coco, chosen), []),
        parts=f"{source.parts}, {count} images of {wanted}",
        remarks=(*source.remarks, remark),
    )


def _part_of(path: Path) -> str:
    """The split whose name a folder of an image has; the empty string where none has one, or several have."""
    words = {word.lower().rstrip("0123456789_-") for word in path.parts[:-1]}
    found = [part for part in ("train", "val", "test") if words & set(split_names(part))]
    return found[0] if len(found) == 1 else ""


def _places(names: list[str]) -> Floats:
    """A number from 0 to 1 for the last part of each name, the same for ever."""
    plain = [_COPY.sub("", PurePosixPath(name).name) for name in names]
    digests = [hashlib.sha256(name.encode()).digest() for name in plain]
    return np.array([int.from_bytes(digest[:6], "big") / 2**48 for digest in digests])


def _only(coco: CocoFile, images: Bools) -> CocoFile:
    """The annotations of some of the images; those of images that are not listed stay, for the checks to name."""
    rows = image_rows(coco)
    kept = (rows < 0) | images[rows]
    chosen = np.flatnonzero(images).tolist()
    return replace(
        coco,
        image_ids=coco.image_ids[images],
        file_names=[coco.file_names[k] for k in chosen],
        sizes=coco.sizes[images],
        origins=tuple(coco.origins[k] for k in chosen) if coco.origins else (),
        **{name: getattr(coco, name)[kept] for name in COLUMNS},
    )
