"""One way in for every layout of a data directory: COCO, PASCAL VOC, YOLO, and what else is registered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ld_hub.checked import shorten
from ld_hub.data.checks import name_some
from ld_hub.data.coco import coco_source, has_outlines, locate
from ld_hub.data.detection_set import DetectionSet
from ld_hub.data.discovery import OR_NAME_BOTH, contents, data_root
from ld_hub.data.holdout import by_folders, held_out
from ld_hub.data.hub_places import is_hub_place, require_hub_place
from ld_hub.data.hub_sets import hub_source
from ld_hub.data.readers import READERS, Reader, known_readers
from ld_hub.data.reading import HELD_OUT, Reading
from ld_hub.data.repairs import settled
from ld_hub.data.source import OnBadBox, Source, make_dataset, no_outlines
from ld_hub.errors import DataError, LdHubError
from ld_hub.formats.split_files import split_names
from ld_hub.formats.splits import SPLITS, WHOLE, NoSplitError
from ld_hub.formats.unread import unread_kinds

_LOOK_INTO = 20  # folders, where data are not where they were said to be


def load_data(
    data_dir: str | Path | None = None,
    split: str = "train",
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    on_bad_box: OnBadBox = "drop",
    check_files: bool = True,
    strict: bool = False,
    val_fraction: float | None = None,
    keep_root_category: bool = False,
    merge_categories: bool = False,
    columns: str | None = None,
    streaming: bool = False,
    outlines: bool = False,
) -> DetectionSet:
    """Read a detection dataset, whatever its layout.

    COCO (`load_coco`) where there is a COCO file of the split, else PASCAL VOC (`load_voc`), YOLO (`load_yolo`), or
    what labelling tools write (`ld_hub.data.labelled_files`); more by `ld_hub.data.readers.register_reader`.
    Directories that are not COCO's become COCO content in the cache (``annotation_file``); image paths stay the user's.
    What is repaired on reading is told in one warning a kind.

    Where there are no parts, a tenth of the images is held out to evaluate on; where there is a test part and none to
    evaluate on, it is taken for that.

    Args:
        data_dir: Directory of the data; for YOLO also its YAML file; ``hf:org/name@revision:config`` of the Hub.
        split: ``"train"``, ``"val"`` or another name, below `data_dir`; ``"all"`` is all of data without parts.
        images: Image directory; with it or `annotations`, the data is COCO's.
        annotations: COCO annotation file.
        on_bad_box: As for `load_coco`.
        check_files: Check that the image files exist.
        strict: See `Reading`, as for the rest.
        val_fraction: See `Reading`.
        keep_root_category: See `Reading`.
        merge_categories: See `Reading`.
        columns: See `Reading`.
        streaming: See `Reading`; what is trained on without being fetched at all, `load_stream` opens.
        outlines: Keep the outlines of objects (COCO's ``segmentation``, LabelMe's polygons), which copy-paste needs.

    Raises:
        MissingFileError: If nothing of that split is found; says what was looked for in each layout.
        DataError: If the annotations cannot be used; names the file. If outlines are asked for and there are none.
        ConfigError: If the arguments do not say where the data is.
    """
    reading = Reading(strict, val_fraction, keep_root_category, merge_categories, columns, streaming)
    places = {"images": images, "annotations": annotations}
    if outlines:
        require_outlined(data_dir, split, **places)
    source = find_source(data_dir, split, **places, reading=reading, outlines=outlines)
    return make_dataset(source, on_bad_box, check_files, outlines=outlines)


def find_source(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    reading: Reading | None = None,
    outlines: bool = False,
) -> Source:
    """Read one part of a data directory, repaired; arguments and errors of `load_data`."""
    reading = reading or Reading()
    if data_dir is not None and is_hub_place(data_dir):
        return hub_source(data_dir, split, reading.columns, streaming=reading.streaming)
    if data_dir is None or images is not None or annotations is not None:
        source = coco_source(data_dir, split, images=images, annotations=annotations, outlines=outlines)
        return settled(source, reading)
    place, fraction = Path(data_dir).expanduser(), reading.val_fraction
    found = _part_to_train_on(place, fraction, outlines) if split == "train" and fraction else None
    if found is None:
        try:
            found = read_part(place, split, outlines=outlines)
        except NoSplitError as error:
            found = _instead(place, split, fraction, outlines)
            if found is None:
                raise NoSplitError(f"{error}{_way_out(place, split)}") from None
    return settled(found, reading)


def require_split(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
    reading: Reading | None = None,
) -> None:
    """Refuse data that no reader finds, without reading any and without torch; arguments and errors of `load_data`."""
    if data_dir is not None and is_hub_place(data_dir):
        require_hub_place(data_dir, None if reading is None else reading.columns)
        return
    if data_dir is None or images is not None or annotations is not None:
        locate(data_dir, split, images=images, annotations=annotations)
        return
    place = Path(data_dir).expanduser()
    instead = {
        "test": (WHOLE,),
        "train": (WHOLE,),
        "val": ("test", WHOLE, *(["train"] if reading and reading.val_fraction else [])),
    }
    if not any(_readers_of(place, each) for each in (split, *instead.get(split, ()))):
        raise NoSplitError(f"{_no_split(place, split)}{_way_out(place, split)}")


def require_outlined(
    data_dir: str | Path | None,
    split: str,
    *,
    images: str | Path | None = None,
    annotations: str | Path | None = None,
) -> None:
    """Refuse data without outlines of objects where a look is enough; the arguments are `load_data`'s.

    Raises:
        DataError: If a COCO file has none, or the layout.
        MissingFileError: If there is no such data.
        ConfigError: If the arguments do not say where the data is.
    """
    hub = data_dir is not None and is_hub_place(data_dir)
    readers: list[tuple[Reader, Path]] = []
    if not hub and data_dir is not None and images is None and annotations is None:
        place = Path(data_dir).expanduser()
        readers = _readers_of(place, split) or _readers_of(place, WHOLE)
        if not readers:
            return  # refused, or held out of another part, by the reader
    if hub or (readers and readers[0][0].read_outlined is None):
        raise DataError(no_outlines(f"'{data_dir}', as it is read,"))
    if not readers or readers[0][0] is READERS["coco"]:
        root = readers[0][1] if readers else data_dir
        _, files = locate(root, split, images=images, annotations=annotations)
        if not any(has_outlines(file) for file in files if file.is_file()) and all(map(Path.is_file, files)):
            raise DataError(no_outlines(" and ".join(map(str, files))))


def read_part(place: Path, split: str, *, outlines: bool = False) -> Source:
    """A split as it lies there, without what `find_source` takes in the place of one.

    Args:
        place: Data directory, or a file that stands for one.
        split: Name.
        outlines: Keep the outlines of objects, where the layout has them.

    Raises:
        NoSplitError: If there is no such split; MissingFileError and DataError as for `load_data`.
    """
    first: NoSplitError | None = None
    with _refusing_os_errors(place):
        for reader, root in _readers_of(place, split):
            try:
                read = reader.read_outlined if outlines and reader.read_outlined else reader.read
                return read(root, split)
            except NoSplitError as error:
                first = first or error
    raise first or NoSplitError(_no_split(place, split))


@contextlib.contextmanager
def _refusing_os_errors(place: Path) -> Iterator[None]:
    """What the system says about names that stand in somebody's files, too long ones for example, as a `DataError`."""
    try:
        yield
    except LdHubError:  # some are of the system's kinds, too
        raise
    except OSError as error:
        name = "" if error.filename is None else f"{shorten(str(error.filename))} cannot be read: "
        raise DataError(f"{place}: {name}{error.strerror or error}.") from None


def _readers_of(place: Path, split: str) -> list[tuple[Reader, Path]]:
    """What may read a split of a directory or file, and what it is given, best first."""
    readers = known_readers()
    for reader in readers:
        if place.suffix in reader.suffixes and place.is_file():
            return [(reader, place)]
    root = data_root(place, split)
    return [(reader, root) for reader in readers if reader.finds(root, split)]


def _no_split(place: Path, split: str) -> str:
    readers, root = known_readers(), data_root(place, split)
    return (
        f"No annotations of the split '{split}' in {root}.{unread_kinds(root)}{_below(root, split)} "
        f"Looked for {_looked_for(readers, root, split)}. "
        f"Found {contents(root)}.{_loose_xml(root, split)} {OR_NAME_BOTH}"
    )


def _below(root: Path, split: str) -> str:
    """What to do where a directory was unpacked into one more."""
    if any(_readers_of(root, each) for each in ("train", "val", "test", WHOLE)):
        return ""
    inner = sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
    inner = [p for p in inner if not {p.name.lower()} & {*split_names("train"), *split_names("val"), "test", "images"}]
    found = [p for p in inner[:_LOOK_INTO] if any(_readers_of(p, each) for each in (split, WHOLE))]
    return f" Such data are in {name_some(found, 3)}: name that directory." if found else ""


def _part_to_train_on(place: Path, fraction: float, outlines: bool) -> Source | None:
    """The images to train on where some of them are to be held out; None where there are others to evaluate on."""
    if _first_part(place, ("val", "test")) is not None:
        return None
    found = _first_part(place, ("train",), outlines)
    return None if found is None else held_out(found, fraction, others=True)


def _instead(place: Path, split: str, fraction: float | None, outlines: bool) -> Source | None:
    """What is taken for a split that is not there: test for val, images in folders of its name, or a part of them."""
    if split not in (*SPLITS, "test"):
        return None
    test = _first_part(place, ("test",), outlines) if split == "val" else None
    if test is not None:
        remark = f"{test.parts}: there is no part '{split}'; 'test' is taken for it."
        return replace(test, remarks=(*test.remarks, remark))
    found = _first_part(place, [other for other in ("train", "val", "test") if other != split])
    if found is not None and (split != "val" or not fraction):  # the whole would hold these images
        return None
    if found is None:
        found = _first_part(place, (WHOLE,), outlines)
        own = None if found is None else by_folders(found, place, split)
        if own is not None:
            return own
    if found is None or split == "test":
        return None
    return held_out(found, HELD_OUT if fraction is None else fraction, others=split == "train")


def _first_part(place: Path, splits: Sequence[str], outlines: bool = False) -> Source | None:
    """The first of some splits that is there."""
    for split in splits:
        with contextlib.suppress(NoSplitError):
            return read_part(place, split, outlines=outlines)
    return None


def _way_out(place: Path, split: str) -> str:
    if split != "val" or _first_part(place, ("train",)) is None:
        return ""
    return " val_fraction=0.1 (--val_fraction 0.1) holds out a tenth of the images to train on."


def _looked_for(readers: list[Reader], root: Path, split: str) -> str:
    """What all readers look for, each once."""
    named = sorted(readers, key=lambda reader: reader.tool)
    return "; ".join(dict.fromkeys(reader.looked_for(root, split) for reader in named))


def _loose_xml(root: Path, split: str) -> str:
    """What to do with XML files without images beside them."""
    for folder in (root, *(root / name for name in SPLITS.get(split, (split,)))):
        if any(folder.glob("*.xml")):
            lists = f"list the images in ImageSets/Main/{split}.txt"
            return f" For the XML files in {folder}: move them to Annotations/, the images to JPEGImages/, and {lists}."
    return ""
