"""One way in for every layout of a data directory: COCO, PASCAL VOC, YOLO, and what else is registered."""

from __future__ import annotations

from pathlib import Path

from ld_hub.data.coco import coco_source, locate
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.discovery import OR_NAME_BOTH, SPLITS, contents, data_root
from ld_hub.data.hub_sets import hub_source, is_hub_place, require_hub_place
from ld_hub.data.readers import Reader, known_readers
from ld_hub.data.source import OnBadBox, Source, make_dataset
from ld_hub.errors import MissingFileError


def load_data(
    data_dir: str | Path | None = None,
    split: str = "train",
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    on_bad_box: OnBadBox = "drop",
    check_files: bool = True,
    columns: str | None = None,
) -> DetectionSet:
    """Read a detection dataset, whatever its layout.

    COCO (`load_coco`) where there is a COCO file of the split, else PASCAL VOC (`load_voc`), else YOLO (`load_yolo`);
    more by `ld_hub.data.readers.register_reader`. Directories that are not COCO's become COCO content in the cache
    (``annotation_file``); image paths stay the user's.

    Args:
        data_dir: Directory of the data; for YOLO also its YAML file; ``hf:org/name@revision:config`` of the Hub.
        split: ``"train"``, ``"val"`` or another name, below `data_dir`.
        images: Image directory; with it or `annotations`, the data is COCO's.
        annotations: COCO annotation file.
        on_bad_box: As for `load_coco`.
        check_files: Check that the image files exist.
        columns: Of data of the Hub, where its names are others than usual; ``"bbox=box,category=label,form=xyxy"``.

    Raises:
        MissingFileError: If nothing of that split is found; says what was looked for in each layout.
        DataError: If the annotations cannot be used; names the file.
        ConfigError: If the arguments do not say where the data is.
    """
    source = find_source(data_dir, split, images=images, annotations=annotations, columns=columns)
    return make_dataset(source, on_bad_box, check_files)


def find_source(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    columns: str | None = None,
) -> Source:
    """Read one part of a data directory as it is; arguments and errors of `load_data`."""
    if data_dir is not None and is_hub_place(data_dir):
        return hub_source(data_dir, split, columns)
    if data_dir is None or images is not None or annotations is not None:
        return coco_source(data_dir, split, images=images, annotations=annotations)
    place = Path(data_dir).expanduser()
    return _reader_of(place, split).read(place, split)


def require_split(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    columns: str | None = None,
) -> None:
    """Refuse data that no reader finds, without reading any and without torch; arguments and errors of `load_data`."""
    if data_dir is not None and is_hub_place(data_dir):
        require_hub_place(data_dir, columns)
    elif data_dir is None or images is not None or annotations is not None:
        locate(data_dir, split, images=images, annotations=annotations)
    else:
        _reader_of(Path(data_dir).expanduser(), split)


def _reader_of(place: Path, split: str) -> Reader:
    """What reads a split of a directory or file; errors of `load_data`."""
    readers = known_readers()
    for reader in readers:
        if place.suffix in reader.suffixes and place.is_file():
            return reader
    root = data_root(place, split)
    for reader in readers:
        if reader.finds(root, split):
            return reader
    looked = "; ".join(reader.looked_for(root, split) for reader in readers)
    raise MissingFileError(
        f"No annotations of the split '{split}' in {root}. Looked for {looked}. Found {contents(root)}."
        f"{_loose_xml(root, split)} {OR_NAME_BOTH}"
    )


def _loose_xml(root: Path, split: str) -> str:
    """What to do with XML files that lie beside the images, as labelling tools write them."""
    for folder in (root, *(root / name for name in SPLITS.get(split, (split,)))):
        if any(folder.glob("*.xml")):
            lists = f"list the images in ImageSets/Main/{split}.txt"
            return f" For the XML files in {folder}: move them to Annotations/, the images to JPEGImages/, and {lists}."
    return ""
