"""COCO directories read into a `DetectionSet`, strictly."""

from __future__ import annotations

from pathlib import Path

from ld_hub.data.annotations import CocoFile
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.discovery import find_images, find_places, has_split, looked_for, require_places
from ld_hub.data.large_coco import LARGE, read_large
from ld_hub.data.readers import Reader, register_reader
from ld_hub.data.reading import Reading
from ld_hub.data.repairs import fill_sizes, find_names, read_repaired, repaired_source, settled
from ld_hub.data.source import OnBadBox, Source, make_dataset
from ld_hub.errors import DataError

_LOOK_AT = 20  # images, of which one has to be there


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
        data_dir: Directory in one of the layouts of `find_places`.
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
    source = settled(coco_source(data_dir, split, images=images, annotations=annotations), Reading())
    return make_dataset(source, on_bad_box, check_files)


def coco_source(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
) -> Source:
    """Read a COCO file, repaired; arguments and errors of `load_coco`. Very large files are read as they are."""
    folders, file = locate(data_dir, split, images=images, annotations=annotations)
    large = file.is_file() and file.stat().st_size >= LARGE
    coco, repairs = (read_large(file), []) if large else read_repaired(file)
    folder = image_root(coco, folders)
    for mend in (find_names, fill_sizes):
        coco, done = mend(coco, folder)
        repairs += done
    source = Source("COCO", coco, folder, str(file), "lvis" if coco.federated else "coco")
    if repairs and coco.federated:  # a repaired copy would not say which categories were looked for
        raise DataError(f"{repairs[0].message} LVIS' annotations are only read as they are: correct them there.")
    return repaired_source(source, coco, repairs) if repairs else source


def locate(
    data_dir: str | Path | None, split: str, *, images: str | Path | None, annotations: str | Path | None
) -> tuple[tuple[Path, ...], Path]:
    """Directories in which the images may be, and the annotation file, from a data directory, explicit paths, or both.

    Raises:
        MissingFileError: If something named does not exist.
        ConfigError: If too little is named.
    """
    require_places(data_dir, images=images, annotations=annotations)
    if images is not None and annotations is not None:
        return (Path(images).expanduser(),), Path(annotations).expanduser()
    folders, file = find_places(data_dir or "", split)
    if annotations is not None:
        file = Path(annotations).expanduser()
    return folders if images is None else (Path(images).expanduser(),), file


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
    "coco", Reader(has_split, coco_source, looked_for=lambda root, split: f"COCO's {looked_for(root, split)}")
)
