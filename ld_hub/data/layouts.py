"""One way in for every layout of a data directory: COCO, PASCAL VOC, YOLO."""

from __future__ import annotations

from pathlib import Path

from ld_hub.data.coco import coco_source
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.discovery import OR_NAME_BOTH, SPLITS, contents, data_root, has_split, looked_for
from ld_hub.data.source import OnBadBox, Source, make_dataset
from ld_hub.data.voc import find_sets, voc_source
from ld_hub.data.yolo import looks_like_yolo, yolo_source
from ld_hub.data.yolo_parts import YAML_NAMES
from ld_hub.errors import MissingFileError


def load_data(
    data_dir: str | Path | None = None,
    split: str = "train",
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    on_bad_box: OnBadBox = "drop",
    check_files: bool = True,
) -> DetectionSet:
    """Read a detection dataset, whatever its layout.

    COCO (`load_coco`) where there is a COCO file of the split, else PASCAL VOC (`load_voc`), else YOLO (`load_yolo`).
    VOC and YOLO directories become COCO content in the cache (``annotation_file``); image paths stay the user's.

    Args:
        data_dir: Directory of the data; for YOLO also its YAML file.
        split: ``"train"``, ``"val"`` or another name, below `data_dir`.
        images: Image directory; with it or `annotations`, the data is COCO's.
        annotations: COCO annotation file.
        on_bad_box: As for `load_coco`.
        check_files: Check that the image files exist.

    Raises:
        MissingFileError: If nothing of that split is found; says what was looked for in each layout.
        DataError: If the annotations cannot be used; names the file.
        ConfigError: If the arguments do not say where the data is.
    """
    return make_dataset(find_source(data_dir, split, images=images, annotations=annotations), on_bad_box, check_files)


def find_source(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
) -> Source:
    """Read one part of a data directory as it is; arguments and errors of `load_data`."""
    if data_dir is None or images is not None or annotations is not None:
        return coco_source(data_dir, split, images=images, annotations=annotations)
    place = Path(data_dir).expanduser()
    if place.suffix in (".yaml", ".yml") and place.is_file():
        return yolo_source(place, split)
    root = data_root(place, split)
    if has_split(root, split):
        return coco_source(root, split)
    if find_sets(root):
        return voc_source(root, split)
    if looks_like_yolo(root):
        return yolo_source(root, split)
    raise MissingFileError(
        f"No annotations of the split '{split}' in {root}. Looked for COCO's {looked_for(root, split)}; "
        "VOC's Annotations/, JPEGImages/ and ImageSets/Main/, here or in VOC2007/ and VOC2012/; "
        f"YOLO's {YAML_NAMES[0]}, or images/{split}/ with labels/{split}/. Found {contents(root)}."
        f"{_loose_xml(root, split)} {OR_NAME_BOTH}"
    )


def _loose_xml(root: Path, split: str) -> str:
    """What to do with XML files that lie beside the images, as labelling tools write them."""
    for folder in (root, *(root / name for name in SPLITS.get(split, (split,)))):
        if any(folder.glob("*.xml")):
            lists = f"list the images in ImageSets/Main/{split}.txt"
            return f" For the XML files in {folder}: move them to Annotations/, the images to JPEGImages/, and {lists}."
    return ""
