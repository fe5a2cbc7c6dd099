"""COCO directories read into a `DetectionSet`, strictly."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from ld_hub.data.annotations import Bools, CocoFile, read_coco
from ld_hub.data.checks import bad_boxes, clip_boxes, find_problems, image_rows, lookup, name_some
from ld_hub.data.dataset import DetectionSet, build_rows
from ld_hub.data.discovery import find_split
from ld_hub.errors import ConfigError, DataError, MissingFileError

OnBadBox = Literal["drop", "error"]


def load_coco(
    data_dir: str | Path | None = None,
    split: str = "train",
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    on_bad_box: OnBadBox = "drop",
    check_files: bool = True,
) -> DetectionSet:
    """Read a COCO detection dataset.

    Category ids are mapped to labels 0..C-1 in the order of sorted ids. Crowd boxes are kept and flagged. Boxes are
    clipped to the image.

    Args:
        data_dir: Directory in one of the layouts of `find_split`.
        split: ``"train"``, ``"val"`` or another name, below `data_dir`.
        images: Image directory; overrides what `data_dir` gives.
        annotations: Annotation file; overrides what `data_dir` gives.
        on_bad_box: What becomes of boxes without area, outside the image or flagged ``ignore``: ``"drop"`` leaves them
            out as published training does, and warns with their number; ``"error"`` raises.
        check_files: Check that the image files exist.

    Raises:
        MissingFileError: If the directory, the annotation file or images do not exist.
        DataError: If the annotations contradict themselves; names the file and the ids.
        ConfigError: If the arguments do not say where the data is.
    """
    if on_bad_box not in ("drop", "error"):
        raise ConfigError(f"on_bad_box must be 'drop' or 'error', got {on_bad_box!r}.")
    image_dir, file = locate(data_dir, split, images=images, annotations=annotations)
    coco = read_coco(file)
    image_dir = image_root(coco, image_dir)
    problems = find_problems(coco, image_dir, check_files=check_files)
    if problems:
        others = f" (and {len(problems) - 1} other kinds of problems)" if len(problems) > 1 else ""
        hint = f"{others} `ld-hub data doctor` lists all problems of a data directory."
        raise (MissingFileError if problems[0].missing_file else DataError)(problems[0].message + hint)
    reasons = bad_boxes(coco)
    _report_bad_boxes(coco, reasons, on_bad_box)
    keep = ~np.any(list(reasons.values()), axis=0)
    rows = build_rows(
        image_ids=coco.image_ids,
        paths=[os.path.abspath(os.path.join(image_dir, name)) for name in coco.file_names],
        sizes=coco.sizes,
        owner=image_rows(coco)[keep],
        boxes=clip_boxes(coco)[keep],
        labels=lookup(coco.category_of[keep], np.array(coco.category_ids, dtype=np.int64)),
        crowd=coco.crowd[keep],
    )
    dropped = {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()}
    return DetectionSet(
        rows, coco.label_names, coco.category_ids, os.path.abspath(file), os.path.abspath(image_dir), dropped
    )


def locate(
    data_dir: str | Path | None, split: str, *, images: str | Path | None, annotations: str | Path | None
) -> tuple[Path, Path]:
    """Image directory and annotation file from a data directory, explicit paths, or both.

    Raises:
        MissingFileError: If something named does not exist.
        ConfigError: If too little is named.
    """
    if data_dir is None and (images is None or annotations is None):
        raise ConfigError("Say where the data is: a data directory, or both images=DIR and annotations=FILE.")
    if images is not None and annotations is not None:
        image_dir, file = Path(images).expanduser(), Path(annotations).expanduser()
    else:
        found_images, found_file = find_split(data_dir or "", split)
        image_dir = found_images if images is None else Path(images).expanduser()
        file = found_file if annotations is None else Path(annotations).expanduser()
    if not image_dir.is_dir():
        raise MissingFileError(f"The image directory {image_dir} does not exist.")
    if not file.is_file():
        raise MissingFileError(f"No annotation file {file}.")
    return image_dir, file


def image_root(coco: CocoFile, image_dir: Path) -> Path:
    """`image_dir`, or its parent where the file names themselves begin with the directory's name."""
    first = coco.file_names[0] if coco.file_names else ""
    if first and not (image_dir / first).exists() and (image_dir.parent / first).exists():
        return image_dir.parent
    return image_dir


def _report_bad_boxes(coco: CocoFile, reasons: dict[str, Bools], mode: str) -> None:
    found = [
        f"{int(mask.sum())} {reason} (annotation id {name_some(coco.ids[mask])})"
        for reason, mask in reasons.items()
        if mask.any()
    ]
    if not found:
        return
    count = sum(int(mask.sum()) for mask in reasons.values())
    text = f"{coco.path}: {count} of {len(coco.ids)} boxes cannot be trained on: {'; '.join(found)}."
    if mode == "error":
        raise DataError(f"{text} Correct them, or pass on_bad_box='drop' to leave them out.")
    warnings.warn(f"{text} They are left out.", stacklevel=3)
