"""COCO directories read into a `DetectionSet`, strictly."""

from __future__ import annotations

import mmap
import re
from dataclasses import replace
from pathlib import Path

from ld_hub.data.annotations import CocoFile
from ld_hub.data.checks import Repair, name_some
from ld_hub.data.coco_joining import CocoPart, join_coco, joining_remark
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.discovery import files_beside, find_images, find_places, has_split, looked_for, require_places
from ld_hub.data.large_coco import read_large
from ld_hub.data.readers import Reader, register_reader
from ld_hub.data.reading import Reading
from ld_hub.data.repairs import (
    fill_sizes,
    find_names,
    join_images,
    number_anew,
    read_repaired,
    repaired_source,
    settled,
)
from ld_hub.data.source import OnBadBox, Source, make_dataset
from ld_hub.errors import DataError
from ld_hub.formats.json_lists import LARGE
from ld_hub.formats.split_files import image_folders

_OUTLINE = re.compile(rb'"segmentation"\s*:\s*(?:\{|\[\s*[\[\d])')
_LOOK_AT = 20  # images, of which one has to be there


def load_coco(
    data_dir: str | Path | None = None,
    split: str = "train",
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    on_bad_box: OnBadBox = "drop",
    check_files: bool = True,
    outlines: bool = False,
) -> DetectionSet:
    """Read a COCO detection dataset.

    Category ids are mapped to labels 0..C-1 in the order of sorted ids. Crowd boxes are kept and flagged. Boxes are
    clipped to the image.

    Args:
        data_dir: Directory in one of the layouts of `find_places`.
        split: ``"train"``, ``"val"`` or another name, below `data_dir`.
        images: Image directory; overrides what `data_dir` gives.
        annotations: Annotation file; overrides what `data_dir` gives.
        on_bad_box: What becomes of boxes without area, outside the image or flagged ``ignore``: ``"drop"`` leaves them
            out as published training does, and warns with their number; ``"error"`` raises.
        check_files: Check that the image files exist.
        outlines: Keep the outlines of objects, which copy-paste needs.

    Raises:
        MissingFileError: If the directory, the annotation file or images do not exist.
        DataError: If the annotations contradict themselves; names the file and the ids. If outlines are asked for and
            there are none.
        ConfigError: If the arguments do not say where the data is.
    """
    source = coco_source(data_dir, split, images=images, annotations=annotations, outlines=outlines)
    return make_dataset(settled(source, Reading()), on_bad_box, check_files, outlines=outlines)


def coco_source(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    outlines: bool = False,
) -> Source:
    """Read a COCO file, repaired; arguments and errors of `load_coco`. Very large files are read as they are."""
    folders, files = locate(data_dir, split, images=images, annotations=annotations)
    if len(files) > 1:
        return _joined_source(Path(data_dir or "").expanduser(), split, files, images, outlines)
    file = files[0]
    coco, folder, repairs = _read(file, folders, outlines)
    source = Source("COCO", coco, folder, str(file), "lvis" if coco.federated else "coco")
    if data_dir is not None and annotations is None:
        source = replace(source, remarks=_passed_over(Path(data_dir).expanduser(), split, file))
    if repairs and coco.federated:  # a repaired copy would not say which categories were looked for
        raise DataError(f"{repairs[0].message} LVIS' annotations are only read as they are: correct them there.")
    return repaired_source(source, coco, repairs) if repairs else source


def _read(file: Path, folders: tuple[Path, ...], outlines: bool) -> tuple[CocoFile, Path, list[Repair]]:
    """A file, the directory of its images, and what was put right."""
    large = file.is_file() and file.stat().st_size >= LARGE
    coco, repairs = (read_large(file, outlines=outlines), []) if large else read_repaired(file, outlines=outlines)
    folder = image_root(coco, folders)
    loose = () if large or coco.federated else (join_images, number_anew)
    for mend in (find_names, fill_sizes, *loose):
        coco, done = mend(coco, folder)
        repairs += done
    return coco, folder, repairs


def _joined_source(
    root: Path, split: str, files: tuple[Path, ...], images: str | Path | None, outlines: bool
) -> Source:
    """Several files of a split as one; each has its own directories of images, where none is named."""
    own = [image_folders(root, split, file) if images is None else [Path(images).expanduser()] for file in files]
    read = [_read(file, tuple(folders), outlines) for file, folders in zip(files, own, strict=True)]
    parts = [CocoPart(coco, folder) for coco, folder, _ in read]
    coco = join_coco(root, split, parts)
    source = Source("COCO", coco, root, f"{files[0]} and {len(files) - 1} more")
    source = replace(source, remarks=(joining_remark(root, split, parts),))
    return repaired_source(source, coco, [repair for *_, repairs in read for repair in repairs])


def _passed_over(root: Path, split: str, file: Path) -> tuple[str, ...]:
    others = files_beside(root, split, file)
    if not others:
        return ()
    words = f"{name_some(others)} may hold annotations of '{split}', too, and {'is' if len(others) == 1 else 'are'}"
    return (f"{root}: {file.name} is read; {words} not: --annotations FILE (annotations=FILE) names another.",)


def locate(
    data_dir: str | Path | None, split: str, *, images: str | Path | None, annotations: str | Path | None
) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Directories in which the images may be, and the annotation file, from a data directory, explicit paths, or both.

    There are several files where only what they hold can tell whether they are to be read as one.

    Raises:
        MissingFileError: If something named does not exist.
        ConfigError: If too little is named.
    """
    require_places(data_dir, images=images, annotations=annotations)
    if images is not None and annotations is not None:
        return (Path(images).expanduser(),), (Path(annotations).expanduser(),)
    folders, files = find_places(data_dir or "", split)
    if annotations is not None:
        files = (Path(annotations).expanduser(),)
    return folders if images is None else (Path(images).expanduser(),), files


def has_outlines(file: Path) -> bool:
    """Whether a COCO file may have outlines of objects: one is looked for, but in very large files.

    Args:
        file: The JSON file.
    """
    if not 0 < file.stat().st_size < LARGE:
        return True
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _OUTLINE.search(content) is not None


def image_root(coco: CocoFile, folders: tuple[Path, ...]) -> Path:
    """The first directory that has one of the first images, or whose parent has, as where names begin with its own.

    Args:
        coco: The annotations.
        folders: Directories, best first.

    Raises:
        MissingFileError: If none of them exists.
    """
    first = find_images(folders, coco.path)
    names = [name for name in coco.file_names[:_LOOK_AT] if name]
    for folder in (*folders, *(folder.parent for folder in folders)):
        if any((folder / name).exists() for name in names):
            return folder
    return first


register_reader(
    "coco",
    Reader(
        has_split,
        coco_source,
        looked_for=lambda root, split: f"COCO's {looked_for(root, split)}",
        read_outlined=lambda root, split: coco_source(root, split, outlines=True),
    ),
)
