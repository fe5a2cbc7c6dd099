"""COCO directories read into a `DetectionSet`, strictly."""

from __future__ import annotations

from pathlib import Path

from ld_hub.data.annotations import CocoFile
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.discovery import find_split, has_split, looked_for, require_places
from ld_hub.data.readers import Reader, register_reader
from ld_hub.data.reading import Reading
from ld_hub.data.repairs import fill_sizes, find_images, read_repaired, repaired_source, settled
from ld_hub.data.source import OnBadBox, Source, make_dataset


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
    source = settled(coco_source(data_dir, split, images=images, annotations=annotations), Reading())
    return make_dataset(source, on_bad_box, check_files)


def coco_source(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
) -> Source:
    """Read a COCO file, repaired; arguments and errors of `load_coco`."""
    image_dir, file = locate(data_dir, split, images=images, annotations=annotations)
    coco, repairs = read_repaired(file)
    folder = image_root(coco, image_dir)
    for mend in (find_images, fill_sizes):
        coco, done = mend(coco, folder)
        repairs += done
    source = Source("COCO", coco, folder, str(file))
    return repaired_source(source, coco, repairs) if repairs else source


def locate(
    data_dir: str | Path | None, split: str, *, images: str | Path | None, annotations: str | Path | None
) -> tuple[Path, Path]:
    """Image directory and annotation file from a data directory, explicit paths, or both.

    Raises:
        MissingFileError: If something named does not exist.
        ConfigError: If too little is named.
    """
    require_places(data_dir, images=images, annotations=annotations)
    if images is not None and annotations is not None:
        image_dir, file = Path(images).expanduser(), Path(annotations).expanduser()
    else:
        found_images, found_file = find_split(data_dir or "", split)
        image_dir = found_images if images is None else Path(images).expanduser()
        file = found_file if annotations is None else Path(annotations).expanduser()
    return image_dir, file


def image_root(coco: CocoFile, image_dir: Path) -> Path:
    """`image_dir`, or its parent where the file names themselves begin with the directory's name."""
    first = coco.file_names[0] if coco.file_names else ""
    if first and not (image_dir / first).exists() and (image_dir.parent / first).exists():
        return image_dir.parent
    return image_dir


register_reader(
    "coco", Reader(has_split, coco_source, looked_for=lambda root, split: f"COCO's {looked_for(root, split)}")
)
