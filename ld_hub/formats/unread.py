"""Kinds of annotations that are recognised and not read: what they are called, and what makes COCO files of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from ld_hub.formats.split_files import has_marks

_DEPTH = 3  # folders below the data directory that are looked into
_EACH = 3  # files of one ending in a folder: those of one kind are alike
_TOLD = 2  # kinds that a message names


@dataclass(frozen=True)
class Unread:
    """A kind.

    Attributes:
        title: Its name, after "is".
        way_out: What to do, after a colon.
        names: Patterns of the last two parts of its files' paths, in small letters.
        marks: Words that are in such a file.
    """

    title: str
    way_out: str
    names: tuple[str, ...]
    marks: tuple[bytes, ...] = ()


_EXPORT = "export it from there as COCO"
_JSON = ("*.json",)
_KINDS = (
    Unread("an archive", "unpack it", ("*.zip", "*.tar", "*.tgz", "*.tar.*", "*.7z", "*.rar")),
    Unread("compressed", "unpack it (gunzip)", ("*.gz", "*.bz2", "*.xz")),
    Unread(
        "a TFRecord",
        "FiftyOne (TFObjectDetectionDataset) and Datumaro (tf_detection_api) write it as COCO",
        ("*.tfrecord", "*.tfrecords", "*.tfrecord-*", "*.record", "*.record-*"),
    ),
    Unread("Datumaro's", "datum convert -if datumaro -f coco", _JSON, (b'"items"', b'"categories"', b'"annotations"')),
    Unread("SuperAnnotate's", _EXPORT, _JSON, (b'"instances"', b'"className"')),
    Unread("Scale's", _EXPORT, _JSON, (b'"task_id"', b'"response"')),
    Unread("Labelbox's", _EXPORT, ("*.json", "*.ndjson", "*.jsonl"), (b'"data_row"',)),
    Unread("BDD100K's", "FiftyOne (BDDDataset) writes it as COCO", _JSON, (b'"box2d"',)),
    Unread("FiftyOne's", "export the dataset as COCODetectionDataset", _JSON, (b'"samples"', b'"filepath"')),
    Unread("FiftyOne's", "export the dataset as COCODetectionDataset", _JSON, (b'"classes"', b'"bounding_box"')),
    Unread("a project of VIA 3", "export it there as COCO", _JSON, (b'"fname"', b'"metadata"', b'"xy"')),
    Unread("MMDetection's own", "keep its COCO file instead", _JSON, (b'"metainfo"', b'"data_list"')),
    Unread("Detectron2's dictionaries", "write COCO's file of them", _JSON, (b'"bbox_mode"',)),
    Unread("a list of detections, not of annotations", "name the ground truth", _JSON, (b'"image_id"', b'"score"')),
    Unread(
        "LabelMe's, and its image lies nowhere beside it",
        "labelme_export_json writes out the image that is in it (imageData)",
        _JSON,
        (b'"shapes"', b'"imageData"'),
    ),
    Unread("CVAT's of a video", "export it as 'CVAT for images'", ("*.xml",), (b"<annotations", b"<track ")),
    Unread("ODVG's (Grounding DINO)", "keep its COCO file instead", ("*.jsonl",), (b'"detection"', b'"instances"')),
    Unread("PaliGemma's", "export the set as COCO", ("*.jsonl",), (b"<loc0",)),
    Unread("SageMaker's", "write it as COCO", ("*.manifest", "*.jsonl"), (b'"source-ref"',)),
    Unread("MOT's", "Datumaro (mot_seq) writes it as COCO", ("gt/gt.txt",)),
    Unread("DOTA's", "write the boxes around its outlines as COCO", ("labeltxt*/*.txt",)),
    Unread("of OIDv4_ToolKit", "take Open Images' own CSV files", ("label/*.txt",)),
    Unread("WIDER FACE's", "Datumaro (wider_face) writes it as COCO", ("*/wider_face*gt.txt",)),
    Unread("VisDrone's", "write it as COCO, or as YOLO's labels", ("visdrone*.txt", "annotations/*.txt")),
    Unread("MATLAB's", "write it as COCO", ("*.mat",)),
)


def unread_kinds(root: Path) -> str:
    """Sentences about annotations that are recognised and not read; empty where there are none.

    Args:
        root: A data directory, of which some folders and of these some files are looked at.
    """
    found: dict[str, str] = {}
    for file in _some_files(root):
        name = file.relative_to(root).as_posix()
        for kind in _KINDS:
            if kind.title not in found and _is_of(kind, file):
                found[kind.title] = f" {name} is {kind.title}, which is not read here: {kind.way_out}."
                break
    return "".join(list(found.values())[:_TOLD])


def _is_of(kind: Unread, file: Path) -> bool:
    last = "/".join(file.parts[-2:]).lower()
    named = any(fnmatch(last, name if "/" in name else f"*/{name}") for name in kind.names)
    return named and (not kind.marks or has_marks(file, *kind.marks))


def _some_files(root: Path) -> Iterator[Path]:
    top = len(root.parts)
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if name[0] != ".") if len(Path(folder).parts) - top < _DEPTH else []
        counts: dict[str, int] = {}
        for name in sorted(names):
            ending = os.path.splitext(name)[1].lower()
            counts[ending] = counts.get(ending, 0) + 1
            if counts[ending] <= _EACH and name[0] != ".":
                yield Path(folder, name)
