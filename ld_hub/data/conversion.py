"""A data directory from one format into another: COCO, PASCAL VOC, YOLO, CreateML, LabelMe, the Hub's parquet."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from ld_hub.data.hub_writer import write_hub
from ld_hub.data.layouts import find_source
from ld_hub.data.reading import Reading
from ld_hub.data.tool_writers import write_createml, write_labelme
from ld_hub.data.writers import (
    FORMATS,
    Images,
    Part,
    image_path,
    image_target,
    write_coco,
    write_voc,
    write_yaml,
    write_yolo,
)
from ld_hub.errors import ConfigError, DataError, MissingFileError
from ld_hub.hub.files import new_directory

Format = Literal["coco", "voc", "yolo", "createml", "labelme", "hub"]
_WRITERS = {
    "coco": write_coco,
    "voc": write_voc,
    "yolo": write_yolo,
    "createml": write_createml,
    "labelme": write_labelme,
    "hub": write_hub,
}
_FOLDERS = {  # {} stands for the split
    "coco": ("annotations",),
    "voc": ("Annotations", "ImageSets/Main", "JPEGImages"),
    "yolo": ("labels/{}",),
    "createml": ("{}",),
    "labelme": ("{}",),
    "hub": ("data",),
}


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        out: The directory.
        images: Images by split.
        boxes: Boxes of the source by split.
        told: What the new format could not say, with the number of boxes.
        skipped: Splits that were looked for and are not there, and why.
    """

    out: Path
    images: dict[str, int]
    boxes: dict[str, int]
    told: dict[str, int]
    skipped: dict[str, str]


def convert_data(
    data_dir: str | Path,
    out_dir: str | Path,
    to: Format,
    *,
    splits: Sequence[str] | None = None,
    images: Images = "link",
    reading: Reading | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Converted:
    """Write a data directory in another format; boxes only, no masks.

    Between formats a box keeps its edges: VOC's ``xmin, ymin, xmax, ymax`` (pixels from 1, both inside) are COCO's
    ``xmin-1, ymin-1, xmax-xmin+1, ymax-ymin+1``; YOLO's fractions get ten digits. Difficult is COCO's ``ignore``; a
    crowd becomes difficult in VOC; YOLO and CreateML can say neither, and boxes with such a mark are left out.
    Data sets of the Hub have crowds alone. Class names keep their order.

    Args:
        data_dir: Directory in a layout of `load_data`.
        out_dir: Directory to make. It appears when it is complete.
        to: ``"coco"``, ``"voc"``, ``"yolo"``, ``"createml"``, ``"labelme"`` or ``"hub"``.
        splits: Parts to convert; ``train`` and ``val``, as far as they exist, where None.
        images: ``"link"`` makes symbolic links to the images, ``"copy"`` copies, ``"none"`` writes annotations alone.
            The Hub's parquet files hold the images in either case, and with ``"none"`` their paths.
        reading: How loosely the data are read; see `load_data`.
        progress: Called with the number of files done and the total.

    Raises:
        ConfigError: If `out_dir` exists, or an argument makes no sense.
        MissingFileError: If there is no such data.
        DataError: If the data have faults, or cannot be said in the format.
    """
    if to not in FORMATS or images not in ("link", "copy", "none"):
        known = f"one of {', '.join(FORMATS)}, and one of link, copy, none"
        raise ConfigError(f"to={to!r}, images={images!r}: expected {known}.")
    out = Path(out_dir).expanduser()
    with new_directory(out) as draft:
        parts, skipped = _read(data_dir, to, splits, reading, check_files=images != "none")
        if not (to == "coco" and images == "none"):  # then the names lead to the original images
            _rename(parts, to)
        beside = images != "none" and to != "hub"
        step = _steps((1 + beside) * sum(len(part.names) for part in parts), progress)
        for part in parts:
            part.images = images
            for folder in _FOLDERS[to]:
                (draft / folder.format(part.split)).mkdir(parents=True, exist_ok=True)
            _WRITERS[to](draft, part, step)
            if beside:
                _place_images(image_target(draft, to, part.split), part, images, step)
        if to == "yolo":
            write_yaml(draft, [part.split for part in parts], parts[0].coco.label_names)
    told: Counter[str] = sum((part.told for part in parts), Counter())
    return Converted(
        out,
        {part.split: len(part.names) for part in parts},
        {part.split: len(part.coco.ids) for part in parts},
        {what: count for what, count in told.items() if count},
        skipped,
    )


def _read(
    data_dir: str | Path, to: str, splits: Sequence[str] | None, reading: Reading | None, *, check_files: bool
) -> tuple[list[Part], dict[str, str]]:
    """All splits, checked, of the same classes; and those that are not there."""
    parts: list[Part] = []
    skipped: dict[str, str] = {}
    for split in dict.fromkeys(splits or ("train", "val")):
        try:
            source = find_source(data_dir, split, reading=reading)
        except MissingFileError as error:
            if splits:
                raise
            skipped[split] = str(error)
            continue
        if source.layout.lower() == to:
            raise ConfigError(f"{data_dir} is in {source.layout}'s format already.")
        source.require(check_files=check_files)
        source.say()
        parts.append(Part(split, source.coco, source.image_dir, list(source.coco.file_names)))
    if not parts:
        raise MissingFileError(next(iter(skipped.values())))
    first = parts[0]
    for part in parts:
        names = part.coco.label_names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{part.coco.path}: two categories are called '{twice}'; give them different names.")
        if names != first.coco.label_names:
            raise DataError(f"{data_dir}: the splits '{first.split}' and '{part.split}' have different classes.")
    return parts, skipped


def _rename(parts: Sequence[Part], to: str) -> None:
    """Give every image a name without folders: its own, with its split or its folders before it where names clash.

    VOC has one directory for all splits; in the others each split has its own.
    """
    schemes: list[Callable[[str, PurePosixPath], str]] = [
        lambda split, path: path.name,
        lambda split, path: f"{split}_{path.name}",
        lambda split, path: "_".join([split, *(part for part in path.parts if part not in ("..", "/"))]),
    ]
    for scheme in schemes:
        for part in parts:
            part.names = [scheme(part.split, PurePosixPath(name)) for name in part.coco.file_names]
        groups = [[n for part in parts for n in part.names]] if to == "voc" else [part.names for part in parts]
        twice = next(filter(None, map(_repeated_stem, groups)), None)
        if twice is None:
            break
    else:
        raise DataError(f"Two images would both be called '{twice}' in {to.upper()}'s format; rename one of them.")
    for name in (name for part in parts for name in part.names):
        if "\n" in name or name != name.strip():
            raise DataError(f"The image name {name!r} cannot be written to a list of images; rename the file.")


def _repeated_stem(names: Iterable[str]) -> str | None:
    """A name that two images share, the suffix aside, since label files have none of it."""
    return next((stem for stem, count in Counter(PurePosixPath(n).stem for n in names).items() if count > 1), None)


def _place_images(folder: Path, part: Part, how: str, step: Callable[[], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for row, name in enumerate(part.names):
        source = image_path(part, row)
        step()
        if how == "copy":
            shutil.copyfile(source, folder / name)
            continue
        try:
            os.symlink(source, folder / name)
        except OSError as error:
            why = f"no link can be made in {folder.parent} ({error.strerror})"
            raise ConfigError(f"{why}; copy the images instead: --images copy.") from None


def _steps(total: int, progress: Callable[[int, int], None] | None) -> Callable[[], None]:
    numbers = itertools.count(1)

    def step() -> None:
        if progress is not None:
            progress(next(numbers), total)

    return step
