"""Images without labels: a directory of them, a list, or a data set whose annotations are not read.

What an annotation file says of boxes and classes never enters: of a data set only the images' paths are taken.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ld_hub.data.checks import name_some
from ld_hub.data.detection_set import DetectionSet, build_rows
from ld_hub.data.discovery import data_root
from ld_hub.data.layouts import read_part
from ld_hub.data.source import make_dataset, read_sizes
from ld_hub.errors import ConfigError, DataError, LdHubError, MissingFileError
from ld_hub.formats.text import read_lines
from ld_hub.hub.files import sha256_of
from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES


def load_unlabeled(place: str | Path, *, skip_broken: bool = False) -> DetectionSet:
    """Read images without labels.

    Args:
        place: A directory, whose images are taken with those of its subdirectories; a text file with an image's path
            on each line, absolute or seen from the file; or a data set in any layout that `load_data` knows, of which
            the images of its split ``"train"`` are taken and nothing else.
        skip_broken: Leave out images that cannot be read, with a warning that counts them.

    Returns:
        Images in the order of their paths, without boxes and classes.

    Raises:
        MissingFileError: If there is no such place, or no image in it.
        DataError: If an image cannot be read, and `skip_broken` is False; names it.
    """
    paths, ids = _listed(Path(place).expanduser())
    sizes = list(read_sizes(paths, "reading sizes"))
    broken = [str(found) for found in sizes if isinstance(found, LdHubError)]
    if broken and not skip_broken:
        raise DataError(
            f"{len(broken)} of the {len(paths)} images in '{place}' cannot be read: {name_some(broken, 3)} "
            "skip_broken (--skip_broken) leaves them out."
        )
    if broken:
        warnings.warn(f"'{place}': {len(broken)} broken images are left out: {name_some(broken, 3)}", stacklevel=2)
    kept = [(path, size) for path, size in zip(paths, sizes, strict=True) if not isinstance(size, LdHubError)]
    if not kept:
        raise MissingFileError(f"None of the {len(paths)} images in '{place}' can be read.")
    return _without_boxes([path for path, _ in kept], [size for _, size in kept], str(place), ids)


def without_annotations(dataset: DetectionSet) -> DetectionSet:
    """The images of a data set alone.

    Args:
        dataset: Of any kind.
    """
    records = dataset.records
    paths, sizes = records.paths.to_pylist(), [(width, height) for height, width in records.sizes.tolist()]
    labelled = bool(dataset.annotation_file)  # else its ids are counted here, and nobody else knows them
    ids = dict(zip(paths, records.image_ids.tolist(), strict=True)) if labelled else dataset.file_ids
    return _without_boxes(paths, sizes, dataset.source, ids)


def refuse_leaks(images: DetectionSet, evaluation: DetectionSet) -> None:
    """Refuse images to learn from that are also evaluated on, under whatever name.

    Args:
        images: To learn from.
        evaluation: To evaluate on.

    Raises:
        DataError: If a file of the one is a file of the other, or has the same content; names both.
    """
    mine, theirs = (dataset.records.paths.to_pylist() for dataset in (images, evaluation))
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in theirs:
        by_size[os.path.getsize(path)].append(path)
    twice = []
    digests: dict[str, str] = {}
    for path in mine:
        same = [other for other in by_size.get(os.path.getsize(path), []) if _same(path, other, digests)]
        twice += [(path, other) for other in same[:1]]
    if twice:
        one, other = twice[0]
        raise DataError(
            f"{len(twice)} of the {len(mine)} images without labels in '{images.source}' are also evaluated on: {one} "
            f"is {other} of '{evaluation.source}'. The AP would not be that of new images: take them out of the one."
        )


def _same(path: str, other: str, digests: dict[str, str]) -> bool:
    """Whether two files of one size have the same content."""
    for each in (path, other):
        if each not in digests:
            digests[each] = sha256_of(each)
    return digests[path] == digests[other]


def _listed(place: Path) -> tuple[list[str], dict[str, int]]:
    """Paths of the images, sorted, and their ids in the user's own annotation file where there is one."""
    if place.is_file() and place.suffix.lower() == ".txt":
        return _from_list(place), {}
    if place.is_file() and place.suffix.lower() not in (".yaml", ".yml"):
        raise ConfigError(
            f"'{place}' is a file; images without labels are a directory, a .txt file with a path on each line, or a "
            "data set."
        )
    if not place.is_file():
        data_root(place, "train")
    try:
        source = read_part(place, "train")
        dataset = make_dataset(source, "drop", False)
    except LdHubError:
        if place.is_file():
            raise
        return _below(place), {}  # no data set, or one that cannot be used: its images can
    paths = dataset.records.paths.to_pylist()
    own = source.content is None  # ids of other layouts are counted here
    return sorted(paths), dict(zip(paths, dataset.records.image_ids.tolist(), strict=True)) if own else {}


def _from_list(file: Path) -> list[str]:
    names = [line.strip() for line in read_lines(file) if line.strip()]
    paths = [str(file.parent / Path(name).expanduser()) for name in names]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise MissingFileError(f"'{file}' names {len(missing)} files that do not exist: {name_some(missing, 3)}.")
    if not paths:
        raise MissingFileError(f"There is no image name in '{file}'.")
    return sorted(set(paths))


def _below(place: Path) -> list[str]:
    """Image files of a directory and its subdirectories; hidden ones are left out."""
    found = []
    for folder, inner, names in os.walk(place, followlinks=True):
        inner[:] = sorted(name for name in inner if name[0] != ".")
        found += [
            os.path.join(folder, name) for name in names if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != "."
        ]
    if not found:
        raise MissingFileError(
            f"There are no images in '{place}' or below; files ending in {' '.join(IMAGE_SUFFIXES)} are taken."
        )
    return sorted(found)


def _without_boxes(
    paths: Sequence[str], sizes: Sequence[tuple[int, int]], source: str, file_ids: Mapping[str, int]
) -> DetectionSet:
    whole = np.array(sizes, dtype=np.int64).reshape(-1, 2)[:, ::-1]
    none = np.zeros(0, dtype=np.int64)
    rows = build_rows(
        np.arange(len(paths), dtype=np.int64), paths, whole, none, np.zeros((0, 4)), none, none.astype(bool)
    )
    return replace(DetectionSet(rows, (), (), ""), source=source, file_ids=file_ids)
