"""PASCAL VOC directories: which lists make up a part of the data.

The published "07+12" trains on the trainval lists of VOC2007 and VOC2012 and tests on VOC2007's test list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.discovery import data_root
from ld_hub.data.readers import Reader, register_reader
from ld_hub.data.source import CocoRows, OnBadBox, Source, canonical_source, group_faults, make_dataset, tracked
from ld_hub.errors import DataError, MissingFileError
from ld_hub.formats.split_files import listed_name
from ld_hub.formats.splits import SPLITS, NoSplitError
from ld_hub.formats.text import CLASSES_FILE, read_classes, read_lines
from ld_hub.formats.voc_xml import Annotated, Fault, VocObject, class_names, read_annotation
from ld_hub.preprocessing.loading import read_size
from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES
from ld_hub.structures.class_names import VOC_LABELS

_PUBLISHED = ("VOC2007", "VOC2012")  # the later one holds the images of 2008 to 2011 too
_LOOK_AT = 100  # images of a test list whose annotations may not be public


@dataclass(frozen=True)
class VocSet:
    """One directory with Annotations/, JPEGImages/ and ImageSets/Main/.

    Attributes:
        folder: The directory.
        prefix: Its path below the data directory, ending in ``/``; empty where it is that directory.
    """

    folder: Path
    prefix: str

    def list_file(self, part: str) -> Path:
        """Where the list of a part is."""
        return self.folder / "ImageSets" / "Main" / f"{part}.txt"

    def annotation(self, stem: str) -> str:
        """Path of an image's XML below the data directory."""
        return f"{self.prefix}Annotations/{stem}.xml"

    def has(self, part: str) -> bool:
        """Whether there is such a list; for ``test``, whether its annotations are there, which VOC2012's are not."""
        if not self.list_file(part).is_file():
            return False
        return part != "test" or any(stem in self.annotated for stem in self.stems(part)[:_LOOK_AT])

    def stems(self, part: str) -> list[str]:
        """Names of the images of a part, without suffix."""
        return [self._stem(line.strip()) for line in read_lines(self.list_file(part)) if line.strip()]

    def _stem(self, line: str) -> str:
        """A line of a list: a name or a path, or such and -1, 0 or 1 as in the lists of one class."""
        name, _, flag = line.rpartition(" ")
        line = name.rstrip() if flag in ("1", "-1", "0") and line not in self.annotated else line
        return line if line in self.annotated else listed_name(line)

    @cached_property
    def annotated(self) -> frozenset[str]:
        """Names that have an XML."""
        return frozenset(path.stem for path in (self.folder / "Annotations").glob("*.xml"))

    @cached_property
    def images(self) -> dict[str, str]:
        """File name of each image by its name without suffix."""
        folder = self.folder / "JPEGImages"
        names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return {Path(name).stem: name for name in reversed(names) if name.lower().endswith(IMAGE_SUFFIXES)}


def find_sets(root: Path) -> list[VocSet]:
    """The VOC directories that a data directory is or holds: VOC2007 and VOC2012, or else the latest year.

    Args:
        root: A VOCdevkit, the directory that holds it, or a single VOC directory of any name.
    """
    if _is_set(root):
        return [VocSet(root, "")]
    for prefix in ("", "VOCdevkit/"):
        parent = root / prefix
        names = sorted(path.name for path in parent.glob("VOC[0-9][0-9][0-9][0-9]") if _is_set(path))
        chosen = [name for name in names if name in _PUBLISHED] or names[-1:]
        if chosen:
            return [VocSet(parent / name, f"{prefix}{name}/") for name in chosen]
    return []


def _is_set(folder: Path) -> bool:
    return (folder / "Annotations").is_dir() and any((folder / name).is_dir() for name in ("JPEGImages", "ImageSets"))


def load_voc(
    data_dir: str | Path, split: str = "train", *, on_bad_box: OnBadBox = "drop", check_files: bool = True
) -> DetectionSet:
    """Read a PASCAL VOC dataset.

    Boxes are VOC's: whole pixels counted from 1, both corners inside; ``xmin-1, ymin-1, xmax, ymax`` in px are the
    edges of the same box (OpenMMLab's reader, which the published VOC figures were made with, takes 1 from all four
    numbers, so its boxes are a pixel narrower). Difficult objects are left out of training, and evaluation neither
    asks for them nor blames their detection. The labels are VOC's 20 where all names are among them, else all names
    of Annotations/ in alphabetical order, or those of a file ``classes.txt`` beside Annotations/.

    Args:
        data_dir: VOCdevkit/, or a directory with Annotations/, JPEGImages/ and ImageSets/Main/.
        split: See `choose_parts`.
        on_bad_box: As for `load_coco`; of no effect on difficult objects.
        check_files: Check that the image files exist.

    Raises:
        MissingFileError: If the directory, the list, an XML or an image does not exist.
        DataError: If an XML is broken or has a box that cannot be; names the file.
    """
    return make_dataset(voc_source(data_root(data_dir, split), split), on_bad_box, check_files)


def choose_parts(sets: Sequence[VocSet], split: str) -> list[tuple[VocSet, str]]:
    """Which lists a split is; no image is in both training and evaluation.

    * ``val`` and ``test``: the test list of the first year that has trainval and an annotated test (VOC2007). Without
      one the list of that name of the last year (VOC2012 val), or the other's where there is none.
    * ``train``: trainval of every year. Of the year whose val is evaluated on: train.
    * ``trainval``, or another list by name: of every year that has it; with a year (``trainval2007``) of that alone.

    Args:
        sets: Years, earliest first.
        split: Name.
    """
    named = re.fullmatch(r"(\w*[^\W\d])(\d{4})", split)
    if named and any(s.folder.name == f"VOC{named[2]}" for s in sets):
        return [(s, named[1]) for s in sets if s.folder.name == f"VOC{named[2]}" and s.has(named[1])]
    tested = next(((s, "test") for s in sets if s.has("test") and s.has("trainval")), None)
    if split == "train":
        held_out = None if tested else _last(sets, ("val", "test"))
        return [
            (s, part)
            for s in sets
            for part in [_first(s, ("train", "trainval") if held_out and held_out[0] is s else ("trainval", "train"))]
            if part
        ]
    if split == "test" or split in SPLITS["val"]:
        found = tested or _last(sets, ("test", "val") if split == "test" else ("val", "test"))
        return [found] if found else []
    return [(s, split) for s in sets if s.has(split)]


def _first(voc: VocSet, parts: Sequence[str]) -> str:
    return next((part for part in parts if voc.has(part)), "")


def _last(sets: Sequence[VocSet], parts: Sequence[str]) -> tuple[VocSet, str] | None:
    return next(((s, part) for part in parts for s in reversed(sets) if s.has(part)), None)


def voc_source(root: Path, split: str) -> Source:
    """Read the XMLs of a split; goes on after the first fault.

    Args:
        root: See `find_sets`.
        split: See `choose_parts`.

    Raises:
        MissingFileError: If there are no such lists; says which there are.
        DataError: If there are no classes at all, or a list is empty or no text.
    """
    sets = find_sets(root)
    parts = choose_parts(sets, split)
    if not parts:
        raise NoSplitError(
            f"No list of the split '{split}' in {root}: looked for "
            f"{', '.join(s.prefix + 'ImageSets/Main/*.txt' for s in sets) or 'Annotations/ and VOC????/Annotations/'}. "
            f"Found {', '.join(_lists(sets)) or 'none'}. A list has one image name per line, without suffix."
        )
    wanted = [(s, stem) for s, part in parts for stem in s.stems(part)]
    if not wanted:
        raise DataError(f"There is no image name in {', '.join(str(s.list_file(part)) for s, part in parts)}.")
    faults: list[Fault] = _repeated(wanted)
    found: list[Annotated] = []
    for voc, stem in tracked(wanted, f"reading {root.name} {split}"):
        try:
            found.append(_read(root, voc, stem))
        except _FaultyError as error:
            faults += error.faults
    names = label_names(root, sets, found)
    rows = _rows(found, names, faults)
    years = {s.folder.name for s, _ in parts}
    return canonical_source(
        "VOC",
        root,
        ", ".join(f"{s.prefix.rstrip('/').rpartition('/')[2]} {part}".strip() for s, part in parts),
        rows,
        protocol="voc07" if years == {"VOC2007"} else "voc12",
        problems=group_faults(root, faults),
        notes=_notes([item for image in found for item in image.objects]),
    )


class _FaultyError(Exception):
    """What is wrong with one XML."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = list(faults)


def _read(root: Path, voc: VocSet, stem: str) -> Annotated:
    """The annotation of one image."""
    name = voc.annotation(stem)
    if stem not in voc.annotated:
        raise _FaultyError([("missing annotations", f"{name} does not exist")])
    image = f"{voc.prefix}JPEGImages/{voc.images.get(stem, f'{stem}.jpg')}"
    found, faults = read_annotation(root / name, name, image)
    if found is not None and not faults and found.size is None:
        try:
            found = found.sized(read_size(root / image))
        except (MissingFileError, DataError) as error:
            kind = "missing images" if isinstance(error, MissingFileError) else "damaged images"
            faults = [(kind, f"{name} has no size, and {str(error).rstrip('.')}")]
    if found is not None and not faults:
        faults = found.outside()
    if found is None or faults:
        raise _FaultyError(faults)
    return found


def label_names(root: Path, sets: Sequence[VocSet], found: Sequence[Annotated]) -> list[str]:
    """The classes of a data directory, the same for each of its splits; see `load_voc`.

    Args:
        root: The data directory.
        sets: Its VOC directories.
        found: The annotations of the split.

    Raises:
        DataError: If there are none, or ``classes.txt`` gives one twice.
    """
    for folder in dict.fromkeys([root, *(s.folder for s in sets)]):
        if (folder / CLASSES_FILE).is_file():
            return read_classes(folder / CLASSES_FILE)
    names = {item.name for image in found for item in image.objects}
    if names and names <= set(VOC_LABELS):
        return list(VOC_LABELS)
    for voc in sets:  # other splits may have classes that this one lacks
        stems = sorted(voc.annotated)
        for stem in tracked(stems, "looking for classes"):
            names |= class_names(voc.folder / "Annotations" / f"{stem}.xml")
    if not names:
        raise DataError(f"{root}: no XML names a class, and there is no {CLASSES_FILE} with one name per line.")
    return list(VOC_LABELS) if names <= set(VOC_LABELS) else sorted(names)


def _rows(found: Sequence[Annotated], names: Sequence[str], faults: list[Fault]) -> CocoRows:
    """Images, annotations and categories in COCO's form; adds objects of unknown classes to the faults."""
    ids = {name: k for k, name in enumerate(names, start=1)}
    rows = CocoRows(categories=[{"id": number, "name": name} for name, number in ids.items()])
    for number, one in enumerate(found, start=1):
        width, height = one.size or (0, 0)
        rows.images.append(
            {"id": number, "file_name": one.image, "width": width, "height": height, "read_from": one.file}
        )  # fmt: skip
        for item in one.objects:
            if item.name not in ids:
                faults.append(("unknown classes", f"{one.file} has the class '{item.name}', {CLASSES_FILE} has not"))
                continue
            xmin, ymin, xmax, ymax = item.box
            box = [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]  # VOC counts pixels from 1, corners inside
            rows.annotations.append(
                {
                    "image_id": number,
                    "category_id": ids[item.name],
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                    "ignore": int(item.difficult),
                }
            )
    return rows


def _notes(objects: Sequence[VocObject]) -> list[str]:
    notes = []
    difficult = sum(item.difficult for item in objects)
    if difficult:
        notes.append(f"objects marked difficult: {difficult}. Training leaves them out, VOC's AP does not count them.")
    if any(min(item.box[:2]) < 1 for item in objects):
        notes.append("some boxes begin at pixel 0, but VOC counts from 1: do these files count from 0?")
    return notes


def _repeated(wanted: Sequence[tuple[VocSet, str]]) -> list[Fault]:
    counts = Counter(voc.annotation(stem) for voc, stem in wanted)
    return [("repeated images", f"{name} is listed {count} times") for name, count in counts.items() if count > 1]


def _lists(sets: Sequence[VocSet]) -> list[str]:
    """The lists there are, those of single classes (``cat_train``) aside."""
    return [
        f"{s.prefix}ImageSets/Main/{path.name}"
        for s in sets
        for path in sorted((s.folder / "ImageSets" / "Main").glob("*.txt"))
        if "_" not in path.stem
    ]


_LOOKED_FOR = "VOC's Annotations/, JPEGImages/ and ImageSets/Main/, here or in VOC2007/ and VOC2012/"
register_reader("voc", Reader(lambda root, _: bool(find_sets(root)), voc_source, lambda root, split: _LOOKED_FOR))
