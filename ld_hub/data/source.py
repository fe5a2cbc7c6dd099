"""One part of a data directory as it was read, whatever its layout, and the `DetectionSet` made of it."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from ld_hub.data.annotations import Bools, CocoFile, Ints, parse_coco
from ld_hub.data.box_parts import in_parts
from ld_hub.data.checks import (
    FLAGGED,
    Problem,
    Repair,
    bad_boxes,
    clip_boxes,
    find_problems,
    image_rows,
    lookup,
    name_boxes,
)
from ld_hub.data.detection_set import DetectionSet, build_rows
from ld_hub.data.outline_store import Outlines
from ld_hub.errors import ConfigError, DataError, LdHubError, MissingFileError
from ld_hub.hub import atomic_write, cache_root, disk_errors
from ld_hub.preprocessing.loading import read_size
from ld_hub.structures import CategoryRow, ObjectRow, ReadImageRow

OnBadBox = Literal["drop", "error"]
Item = TypeVar("Item")

_THREADS = 8  # for headers of images, where a network disk answers slowly
_MANY = 2000  # files that take long enough to read for a progress bar
_HINT = "`ld-hub data doctor` lists all problems of a data directory."


@dataclass(frozen=True, eq=False)
class Source:
    """One part of a data directory: everything it says, nothing left out or corrected.

    Attributes:
        layout: What the directory is: ``"COCO"``, ``"VOC"``, ...
        coco: The annotations.
        image_dir: Directory that the file names are relative to.
        parts: What was read, for people: a file, or e.g. ``VOCdevkit (VOC2007 trainval, VOC2012 trainval)``.
        protocol: See `DetectionSet`.
        content: Of directories that are not COCO's: the same as a COCO file's content, paths relative.
        problems: Faults of reading, which `find_problems` cannot see.
        notes: Remarks that do not keep the data from being used.
        remarks: What of the reading everybody is told who uses the data.
        repairs: What was put right.
    """

    layout: str
    coco: CocoFile
    image_dir: Path
    parts: str
    protocol: str = "coco"
    content: Mapping[str, Any] | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    repairs: tuple[Repair, ...] = ()

    def say(self) -> None:
        """Warn once of each kind of repair, and of what else should be known."""
        if os.environ.get("RANK", "0") == "0":
            for text in (*(repair.message for repair in self.repairs), *self.remarks):
                warnings.warn(text, stacklevel=4)

    def all_problems(self, *, check_files: bool = True) -> list[Problem]:
        """Everything that keeps the data from being used.

        Args:
            check_files: Look whether the image files exist.
        """
        checks = find_problems(self.coco, self.image_dir, check_files=check_files)
        # A directory without a usable file is empty for the reason that reading gives.
        return [*self.problems, *(p for p in checks if not (self.problems and p.kind == "no images"))]

    def require(self, *, check_files: bool = True) -> None:
        """Refuse data that cannot be used.

        Args:
            check_files: Look whether the image files exist.

        Raises:
            DataError: With the first problem; MissingFileError where it is about missing files.
        """
        problems = self.all_problems(check_files=check_files)
        if problems:
            others = f"(and {len(problems) - 1} other kinds of problems) " if len(problems) > 1 else ""
            text = f"{problems[0].message} {others}{_HINT}"
            raise (MissingFileError if problems[0].missing_file else DataError)(text)

    def annotation_file(self) -> Path:
        """The annotations as a COCO file: the user's, or one in the cache.

        The name of the latter says what it holds by its hash, so that a file that is there already is the same. Paths
        in it are relative: the same data gives the same file on every machine.

        Raises:
            HubError: If the cache cannot be written.
        """
        if self.content is None:
            return self.coco.path
        data = json.dumps(self.content, ensure_ascii=False, separators=(",", ":")).encode()
        name = f"{self.image_dir.name or 'data'}-{hashlib.sha256(data).hexdigest()[:16]}.json"
        file = cache_root() / "datasets" / name
        with disk_errors(file.parent):
            if not file.is_file() or file.stat().st_size != len(data):
                atomic_write(file, data)
        return file


class KeptBoxes(TypedDict, total=False):
    """Columns of `build_rows`, taken out one by one, so that none is held twice."""

    owner: Ints
    boxes: NDArray[np.float32]
    labels: Ints
    crowd: Bools
    outline: Ints | None


@dataclass(frozen=True)
class CocoRows:
    """What was read of a directory that is not in COCO's form.

    Attributes:
        images: Each with the file of its boxes.
        annotations: Of all of them.
        categories: The classes.
        outlines: Of the annotations, packed, see `ld_hub.formats.outlines`; empty where the layout has none.
    """

    images: list[ReadImageRow] = field(default_factory=list)
    annotations: list[ObjectRow] = field(default_factory=list)
    categories: list[CategoryRow] = field(default_factory=list)
    outlines: list[bytes] = field(default_factory=list)


def canonical_source(
    layout: str,
    root: Path,
    parts: str,
    rows: CocoRows,
    *,
    protocol: str = "coco",
    problems: Sequence[Problem] = (),
    notes: Sequence[str] = (),
    remarks: Sequence[str] = (),
    repairs: Sequence[Repair] = (),
) -> Source:
    """A source from rows in COCO's form.

    Args:
        layout: What the directory is.
        root: The directory; file names are relative to it.
        parts: See `Source`.
        rows: What was read. Annotations get their ids here.
        protocol: See `DetectionSet`.
        problems: See `Source`.
        notes: See `Source`.
        remarks: See `Source`.
        repairs: See `Source`.
    """
    content = {
        "info": {"description": f"read from {parts}"},
        "images": rows.images,
        "annotations": [{"id": k, **row} for k, row in enumerate(rows.annotations, start=1)],
        "categories": rows.categories,
    }
    coco = parse_coco(root, content)
    if any(rows.outlines):
        coco = replace(coco, outlines=Outlines.gather(enumerate(rows.outlines, start=1)))
    told = (tuple(problems), tuple(notes), tuple(remarks), tuple(repairs))
    return Source(layout, coco, root, f"{root} ({parts})", protocol, content, *told)


def make_dataset(source: Source, on_bad_box: OnBadBox, check_files: bool, *, outlines: bool = False) -> DetectionSet:
    """The images and those boxes that can be trained on.

    Args:
        source: What was read.
        on_bad_box: See `load_coco`. VOC's difficult boxes are left out in either case: they are no fault.
        check_files: Check that the image files exist.
        outlines: Keep the outlines of objects.

    Raises:
        DataError: If the data cannot be used; MissingFileError where files are missing. If outlines are asked for and
            there are none.
        ConfigError: If `on_bad_box` is neither of its values.
    """
    if on_bad_box not in ("drop", "error"):
        raise ConfigError(f"on_bad_box must be 'drop' or 'error', got {on_bad_box!r}.")
    source.require(check_files=check_files)
    source.say()
    coco = source.coco
    reasons, kept = kept_boxes(coco if outlines else replace(coco, outlines=None))
    if outlines and (kept["outline"] is None or not (kept["outline"] >= 0).any()):
        raise DataError(no_outlines(source.parts))
    faults = {name: mask for name, mask in reasons.items() if source.layout != "VOC" or name != FLAGGED}
    _report_bad_boxes(coco, faults, on_bad_box)
    rows = build_rows(
        image_ids=coco.image_ids,
        paths=[os.path.abspath(os.path.join(source.image_dir, name)) for name in coco.file_names],
        sizes=coco.sizes,
        owner=kept.pop("owner"),
        boxes=kept.pop("boxes"),
        labels=kept.pop("labels"),
        crowd=kept.pop("crowd"),
        outline=kept.pop("outline"),
    )
    return DetectionSet(
        rows,
        coco.label_names,
        coco.category_ids,
        os.path.abspath(source.annotation_file()),
        os.path.abspath(source.image_dir),
        {reason: int(mask.sum()) for reason, mask in reasons.items() if mask.any()},
        source.protocol,
        source.parts,
        outlines=coco.outlines if outlines else None,
    )


def no_outlines(what: str) -> str:
    """What is said of data that objects cannot be cut out of.

    Args:
        what: The data.
    """
    return (
        f"{what} has no outlines of objects (COCO's segmentation, polygons of YOLO and of labelling tools), along "
        "which copy_paste cuts them out. Leave --copy_paste out; mosaic and mixup (--mosaic 0.5 --mixup 0.15) also "
        "bring objects elsewhere."
    )


def group_faults(root: Path, faults: Iterable[tuple[str, str]]) -> list[Problem]:
    """Problems from single faults.

    Args:
        root: The directory.
        faults: Kind, and what is wrong in words that begin with the file. The kind ``missing ...`` is about files that
            do not exist.
    """
    kinds: dict[str, list[str]] = {}
    for kind, text in faults:
        kinds.setdefault(kind, []).append(text)
    return [
        Problem(kind, len(texts), f"{place}{'; '.join(texts[:3])}{_more(texts, 3)}.", kind.startswith("missing"))
        for kind, texts in kinds.items()
        for place in ["" if all(str(root) in text for text in texts[:3]) else f"{root}: "]
    ]


def read_sizes(images: Sequence[str | Path], what: str) -> Iterator[tuple[int, int] | LdHubError]:
    """Width and height in px of each image, in order, or why it has none.

    Args:
        images: Files.
        what: What is being done, for `tracked`.
    """

    def size(image: str | Path) -> tuple[int, int] | LdHubError:
        try:
            return read_size(image)
        except LdHubError as error:
            return error

    with ThreadPoolExecutor(_THREADS) as pool:
        for _, found in zip(tracked(images, what), pool.map(size, images), strict=True):
            yield found


def tracked(items: Iterable[Item], what: str) -> Iterable[Item]:
    """The items, behind a progress bar where there may be many and somebody can see one.

    Args:
        items: Files, for example.
        what: What is being done.
    """
    many = len(items) if isinstance(items, Sized) else None
    if (many is not None and many < _MANY) or os.environ.get("RANK", "0") != "0":
        return items
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        return items
    return track(items, description=what, total=many, console=console, transient=True)


def _more(items: Sequence[object], shown: int) -> str:
    return f"; and {len(items) - shown} more" if len(items) > shown else ""


def kept_boxes(coco: CocoFile) -> tuple[dict[str, Bools], KeptBoxes]:
    """Masks ``(K,)`` of the boxes that are left out, by reason; and the other boxes."""
    many, categories = len(coco.ids), np.array(coco.category_ids, dtype=np.int64)
    masks: list[dict[str, Bools]] = []
    kept = KeptBoxes(
        owner=np.empty(many, np.int64),
        boxes=np.empty((many, 4), np.float32),
        labels=np.empty(many, np.int64),
        crowd=np.empty(many, bool),
        outline=None if coco.outlines is None else np.empty(many, np.int64),
    )
    count = 0
    for part in in_parts(coco):
        masks.append(bad_boxes(part))
        keep = ~np.any(list(masks[-1].values()), axis=0)
        rows = slice(count, count := count + int(keep.sum()))
        kept["owner"][rows], kept["boxes"][rows] = image_rows(part)[keep], clip_boxes(part)[keep]
        kept["labels"][rows], kept["crowd"][rows] = lookup(part.category_of[keep], categories), part.crowd[keep]
        if coco.outlines is not None and kept["outline"] is not None:
            kept["outline"][rows] = coco.outlines.places(part.ids[keep])
    reasons = {reason: np.concatenate([each[reason] for each in masks]) for reason in masks[0]}
    return reasons, KeptBoxes(
        owner=kept["owner"][:count],
        boxes=kept["boxes"][:count],
        labels=kept["labels"][:count],
        crowd=kept["crowd"][:count],
        outline=None if kept["outline"] is None else kept["outline"][:count],
    )


def _report_bad_boxes(coco: CocoFile, reasons: dict[str, Bools], mode: str) -> None:
    found = [
        f"{int(mask.sum())} {reason} (annotation id {name_boxes(coco, mask)})"
        for reason, mask in reasons.items()
        if mask.any()
    ]
    if not found:
        return
    count = sum(int(mask.sum()) for mask in reasons.values())
    text = f"{coco.path}: {count} of {len(coco.ids)} boxes cannot be trained on: {'; '.join(found)}."
    if mode == "error":
        raise DataError(f"{text} Correct them, or pass on_bad_box='drop' to leave them out.")
    warnings.warn(f"{text} They are left out.", stacklevel=4)
