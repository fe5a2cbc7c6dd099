"""What can be wrong with a detection dataset, found all at once and named by id."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ld_hub.data.annotations import Bools, CocoFile, Floats, Ints
from ld_hub.data.box_parts import in_parts, mask
from ld_hub.ops.corners import Reach, are_corners, reach

FLAGGED = "flagged ignore"
_ROUNDING = 1e-6  # px; what layouts of corners leave of a side of 1 px
_FEW = 1000  # boxes; of more it can be told
_LARGE_ENOUGH = 16  # px; an image in which nobody marks less than a pixel alone


@dataclass(frozen=True)
class Problem:
    """One kind of fault in one dataset.

    Attributes:
        kind: Short name, for the doctor's table.
        count: How many images or annotations have it.
        message: One sentence with file, the first ids, what was expected and the way out.
        missing_file: It is about files that do not exist.
    """

    kind: str
    count: int
    message: str
    missing_file: bool = False


@dataclass(frozen=True)
class Repair:
    """One kind of thing that was not as it should be, and was put right on reading.

    Attributes:
        kind: Short name.
        count: How many images, annotations or categories it was.
        message: One sentence with file, number and the first of them.
    """

    kind: str
    count: int
    message: str


def find_problems(coco: CocoFile, image_dir: Path, *, check_files: bool = True) -> list[Problem]:
    """Faults that make a dataset unusable; see `bad_boxes` for those that can be left out.

    Args:
        coco: The annotation file.
        image_dir: Directory that the file names are relative to.
        check_files: Look whether the image files exist (one directory listing, none is opened).
    """
    problems = list(_annotation_problems(coco))
    if check_files:
        problems += _missing_files(coco, image_dir)
    return problems


def bad_boxes(coco: CocoFile) -> dict[str, Bools]:
    """Masks ``(K,)`` of annotations that published training leaves out without a word, by reason.

    The rule is the published one: flagged ``ignore``; no common area with the image; declared area not positive, or a
    side below 1 px. Each annotation is counted under the first reason that applies.
    """
    area = clip_boxes(coco)
    with np.errstate(invalid="ignore"):  # infinite boxes
        inside = ((area[:, 2] - area[:, 0]).clip(min=0) * (area[:, 3] - area[:, 1]).clip(min=0)) > 0
    tiny = (coco.areas <= 0) | (coco.boxes[:, 2:] < 1 - _ROUNDING).any(axis=1)
    outside = ~inside & ~tiny
    return {FLAGGED: coco.ignore, "no area": tiny & ~coco.ignore, "outside the image": outside & ~coco.ignore}


def box_corners(coco: CocoFile) -> Floats:
    """``(K, 4)`` xyxy px, as written."""
    with np.errstate(over="ignore"):  # infinite boxes are problems of their own
        corners: Floats = np.concatenate([coco.boxes[:, :2], coco.boxes[:, :2] + coco.boxes[:, 2:]], axis=1)
    return corners


def clip_boxes(coco: CocoFile) -> Floats:
    """``(K, 4)`` xyxy px, clipped to the declared size of their image (unknown images: not clipped)."""
    corners = box_corners(coco)
    rows = image_rows(coco)
    limit = np.full((len(rows), 2), np.inf)
    known = rows >= 0
    limit[known] = coco.sizes[rows[known]][:, ::-1]
    clipped: Floats = np.minimum(corners.clip(min=0), np.concatenate([limit, limit], axis=1))
    return clipped


def image_rows(coco: CocoFile) -> Ints:
    """``(K,)`` index of each annotation's image in the list of images, -1 where there is none."""
    return lookup(coco.image_of, coco.image_ids)


def lookup(values: Ints, keys: Ints) -> Ints:
    """Index into `keys` of each value, -1 where it is not among them."""
    if len(keys) == 0:
        return np.full(len(values), -1, dtype=np.int64)
    rising = bool((keys[1:] >= keys[:-1]).all())
    order = np.arange(len(keys)) if rising else np.argsort(keys, kind="stable")
    place = np.searchsorted(keys, values, sorter=order).clip(max=len(keys) - 1)
    found: Ints = np.where(keys[order[place]] == values, order[place], -1).astype(np.int64)
    return found


def name_boxes(coco: CocoFile, rows: Bools, hint: Callable[[int], str] = lambda _: "") -> str:
    """The first few annotations by id, with the file they were read from where each image has its own.

    Args:
        coco: The annotations.
        rows: ``(K,)`` which of them.
        hint: What is said about an annotation, from its index.
    """
    images = image_rows(coco) if coco.origins else None
    names = []
    for k in np.flatnonzero(rows).tolist():
        origin = coco.origins[images[k]] if images is not None and images[k] >= 0 else ""
        about = ", ".join(filter(None, [hint(k), origin]))
        names.append(f"{coco.ids[k]} ({about})" if about else str(coco.ids[k]))
    return name_some(names)


def name_some(values: Iterable[object], most: int = 5) -> str:
    """The first few values of a list, and how many more there are."""
    items = [str(v) for v in values]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _annotation_problems(coco: CocoFile) -> Iterable[Problem]:
    file = coco.path
    if len(coco.image_ids) == 0:
        yield Problem("no images", 1, f"{file}: the list 'images' is empty.")
    broken = [name for name in coco.file_names if not name.isascii() and not _is_text(name)]
    if broken:
        text = (
            f"{file}: {len(broken)} file names are not in UTF-8, as of files that came from another system: "
            f"{name_some(map(ascii, broken))}. Rename the files, and what is called after them."
        )
        yield Problem("names not in UTF-8", len(broken), text)
    yield from _repeats(coco)
    flat = coco.image_ids[(coco.sizes < 1).any(axis=1)]
    if len(flat):
        yield Problem(
            "images without size", len(flat), f"{file}: height or width below 1 px for image ids {name_some(flat)}."
        )
    lost = mask(coco, lambda part: image_rows(part) < 0)
    if lost.any():
        named = name_boxes(coco, lost, lambda k: f"image {coco.image_of[k]}")
        text = f"{file}: annotations of images that are not in the list 'images': annotation id {named}."
        yield Problem("unknown images", int(lost.sum()), text)
    categories = np.array(coco.category_ids, dtype=np.int64)
    strange = mask(coco, lambda part: lookup(part.category_of, categories) < 0)
    if strange.any():
        named = name_boxes(coco, strange, lambda k: f"category {coco.category_of[k]}")
        text = (
            f"{file}: annotations with an unknown category: annotation id {named}. "
            f"Known category ids: {name_some(coco.category_ids, 12)}."
        )
        yield Problem("unknown categories", int(strange.sum()), text)
    finite = mask(coco, _finite)
    if not finite.all():
        named = name_boxes(coco, ~finite)
        text = f"{file}: boxes or areas that are not finite numbers: annotation id {named}. Correct or delete them."
        yield Problem("non-finite boxes", int((~finite).sum()), text)
    negative = finite & mask(coco, lambda part: part.boxes[:, 2:].min(axis=1) < 0)
    if negative.any():
        text = (
            f"{file}: boxes of negative width or height: annotation id {name_boxes(coco, negative)}. "
            "COCO boxes are [x, y, width, height], not corners."
        )
        yield Problem("negative boxes", int(negative.sum()), text)
    if _are_fractions(coco):
        text = (
            f"{file}: none of {len(coco.ids)} boxes has a number above 1 (for example annotation id {coco.ids[0]}: "
            f"bbox {coco.boxes[0].tolist()}). They are fractions of their images, where px are expected: multiply x "
            "and width by the image's width, y and height by its height."
        )
        yield Problem("fractions as boxes", len(coco.ids), text)
    out = _corners(coco) if finite.all() else np.zeros(0, dtype=np.int64)
    if len(out):
        text = (
            f"{file}: {len(out)} of {len(coco.ids)} boxes reach out of their image when read as x, y, width, height, "
            f"as COCO has them, but lie in it when read as corners x1, y1, x2, y2 (for example annotation id "
            f"{coco.ids[out[0]]}: bbox {coco.boxes[out[0]].tolist()}). Write x2 - x1 and y2 - y1 in place of x2 and y2."
        )
        yield Problem("corners as boxes", len(out), text)


def _finite(coco: CocoFile) -> Bools:
    found: Bools = np.isfinite(box_corners(coco)).all(axis=1) & np.isfinite(coco.areas)
    return found


def _repeats(coco: CocoFile) -> Iterable[Problem]:
    """Ids and class names that are given more than once."""
    file = coco.path
    twice = repeated(coco.image_ids)
    if len(twice):
        yield Problem("duplicate image ids", len(twice), f"{file}: image ids given more than once: {name_some(twice)}.")
    twins = sorted(name for name, count in Counter(coco.label_names).items() if count > 1)
    if twins:
        ids = [number for number, name in zip(coco.category_ids, coco.label_names, strict=True) if name == twins[0]]
        text = (
            f"{file}: {len(ids) if len(ids) > 2 else 'two'} categories are called '{twins[0]}' (ids "
            f"{name_some(ids)}). If they are one class, merge_categories=True (--merge_categories) makes them one; "
            "else give them different names."
        )
        yield Problem("categories of one name", len(twins), text)
    twice = repeated(coco.ids)
    if len(twice):
        text = f"{file}: annotation ids given more than once: {name_some(twice)}. Number the annotations anew."
        yield Problem("duplicate annotation ids", len(twice), text)


def doubtful_corners(coco: CocoFile) -> str:
    """What is said of boxes that reach out of their images and may all be corners, but are too few to tell; or nothing.

    Args:
        coco: The annotations.
    """
    parts = _reaches(coco) if len(coco.ids) <= _FEW and mask(coco, _finite).all() else []
    out = sum(len(part.out) for part in parts)
    if not out or len(are_corners(parts)) or any(part.corners < part.boxes for part in parts):
        return ""
    return (
        f"{coco.path}: {out} of {len(coco.ids)} boxes reach out of their image and are clipped. Are they corners "
        "x1, y1, x2, y2? Then write x2 - x1 and y2 - y1 in place of x2 and y2."
    )


def _corners(coco: CocoFile) -> Ints:
    """Annotations that are corners where a corner and a size should be."""
    return are_corners(_reaches(coco))


def _reaches(coco: CocoFile) -> list[Reach]:
    parts = []
    for part in in_parts(coco):
        rows = image_rows(part)
        sizes = np.zeros((len(rows), 2))
        sizes[rows >= 0] = part.sizes[rows[rows >= 0]][:, ::-1]
        parts.append(reach(part.boxes, sizes))
    return parts


def _missing_files(coco: CocoFile, image_dir: Path) -> list[Problem]:
    missing = [
        name for name, there in zip(coco.file_names, files_exist(coco.file_names, image_dir), strict=True) if not there
    ]
    if not missing:
        return []
    other_case = _other_case(missing, image_dir)
    hint = f" There is {other_case}: upper and lower case matter here." if other_case else ""
    named = name_some(missing)
    text = f"{coco.path}: {len(missing)} of {len(coco.file_names)} images are not in {image_dir}: {named}.{hint}"
    return [Problem("missing images", len(missing), text, missing_file=True)]


def _other_case(missing: Sequence[str], root: Path) -> str:
    """A file whose name differs from the first missing one's in upper and lower case alone."""
    path = root / missing[0]
    there = os.listdir(path.parent) if path.parent.is_dir() else []
    return next((name for name in there if name.lower() == path.name.lower()), "")


def files_exist(names: Sequence[str], root: Path) -> NDArray[np.bool_]:
    """Which files exist below `root`, by listing each directory once: a stat per file is slow on network disks."""
    listed: dict[str, set[str]] = {}
    out = np.zeros(len(names), dtype=bool)
    for i, name in enumerate(names):
        folder, _, base = name.rpartition("/")
        if folder not in listed:
            place = os.path.join(root, f"{folder}/" if name.startswith("/") else folder)
            listed[folder] = set(os.listdir(place)) if os.path.isdir(place) else set()
        out[i] = base in listed[folder]
    return out


def _are_fractions(coco: CocoFile) -> bool:
    """Whether all boxes would be less than a pixel, in the corner of their images."""
    if not len(coco.ids) or (coco.sizes < _LARGE_ENOUGH).any():
        return False
    small = all(((part.boxes >= 0) & (part.boxes <= 1)).all() for part in in_parts(coco))
    return small and bool((coco.boxes % 1).any())


def _is_text(name: str) -> bool:
    """Whether a name can be written; bytes that are no UTF-8 stand in it as halves of pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def repeated(values: Ints) -> Ints:
    """The values that are given more than once."""
    if (values[1:] > values[:-1]).all():
        return values[:0]
    unique, counts = np.unique(values, return_counts=True)
    repeated: Ints = unique[counts > 1]
    return repeated
