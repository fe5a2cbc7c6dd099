"""Boxes that somebody has written down: which image each list of them belongs to."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from ld_hub.errors import DataError
from ld_hub.teachers.box_teacher import BoxTeacher

if TYPE_CHECKING:
    from ld_hub.structures import Detections
    from ld_hub.teachers.photos import Photo

Key: TypeAlias = "int | str"  # an id, or the name of a file, with or without its suffix and directories


class NamedBoxes(BoxTeacher):
    """A teacher that is a file, or a directory, of boxes by image.

    A text names the image whose file name it is, with as many of its directories as the text has in common with the
    path; a suffix may be missing or another one. A number is the id of an image in the annotation file of the images
    without labels, if these came with one, and else the number that is a file's whole name (``000042.jpg`` is 42). What
    names an image without labels says nothing about an image with labels.

    Attributes:
        keys: What the images are called here.
    """

    def __init__(
        self, name: str, keys: Iterable[Key], label_names: Sequence[str] = (), *, digest: str = "", origin: str = ""
    ) -> None:
        super().__init__(name, label_names, digest=digest, origin=origin)
        self.keys = list(keys)
        self._key_of: dict[str, Key] = {}  # by path, of all images that were asked for
        self._by_ids: bool | None = None  # what numbers are, once the first images have been seen

    def knows(self, photos: Sequence[Photo]) -> list[bool]:
        """See `BoxTeacher.knows`.

        Raises:
            DataError: If a name fits several images equally well, or several names fit one.
        """
        taken = set(self._key_of.values())
        free = [key for key in self.keys if key not in taken]
        found = self._numbered([key for key in free if isinstance(key, int)], photos)
        found |= tie([key for key in free if isinstance(key, str)], [photo.path for photo in photos], self.name)
        for index, key in found.items():
            self.compare(key, photos[index])
            self._key_of.setdefault(photos[index].path, key)
        return [photo.path in self._key_of for photo in photos]

    def detect(self, photos: Sequence[Photo]) -> list[Detections]:
        """See `BoxTeacher.detect`."""
        return [self.boxes_of(self._key_of[photo.path], photo) for photo in photos]

    def compare(self, key: Key, photo: Photo) -> None:
        """Refuse an image that cannot be the one that is meant.

        Args:
            key: What it is called here.
            photo: The image of that name.
        """

    @abstractmethod
    def boxes_of(self, key: Key, photo: Photo) -> Detections:
        """The boxes under a key, in px of the image."""

    def _numbered(self, keys: Sequence[int], photos: Sequence[Photo]) -> dict[int, Key]:
        """Images by ids, or by the numbers that their files are called."""
        ids = {photo.image_id: index for index, photo in enumerate(photos) if photo.image_id is not None}
        if self._by_ids is None:
            self._by_ids = any(key in ids for key in keys)
        if self._by_ids:
            return {ids[key]: key for key in keys if key in ids}
        numbers: dict[int, list[int]] = defaultdict(list)
        for index, photo in enumerate(photos):
            stem = _stem(PurePosixPath(photo.path).name)
            if stem.isdecimal():
                numbers[int(stem)].append(index)
        for key in keys:
            if len(numbers.get(key, [])) > 1:
                raise _ambiguous(self.name, key, [photos[index].path for index in numbers[key]])
        return {numbers[key][0]: key for key in keys if key in numbers}


def tie(keys: Sequence[str], paths: Sequence[str], who: str) -> dict[int, Key]:
    """Which of some files is meant by each name.

    Args:
        keys: Names, possibly with directories, possibly without suffix.
        paths: The files.
        who: Who names them, for messages.

    Returns:
        Names by index of the file; names and files without partner are missing.

    Raises:
        DataError: If a name fits several files equally well, or several names fit one.
    """
    parts = [_parts(path) for path in paths]
    by_stem: dict[str, list[int]] = defaultdict(list)
    for index, part in enumerate(parts):
        by_stem[_stem(part[0])].append(index)
    best: dict[int, tuple[int, str]] = {}
    for key in keys:
        wanted = _parts(key)
        chosen, common = _nearest(wanted, by_stem.get(_stem(wanted[0]), []), parts)
        if len(chosen) > 1:
            raise _ambiguous(who, key, [paths[index] for index in chosen])
        for index in chosen:
            known = best.get(index)
            if known is not None and known[0] == common:
                raise DataError(f"'{who}': both '{known[1]}' and '{key}' may be '{paths[index]}'. Leave one out.")
            if known is None or common > known[0]:
                best[index] = (common, key)
    return {index: key for index, (_, key) in best.items()}


def _nearest(wanted: Sequence[str], candidates: Sequence[int], parts: Sequence[Sequence[str]]) -> tuple[list[int], int]:
    """Those of some files that have most of a path in common with a name, and how much that is."""
    same = [index for index in candidates if parts[index][0] == wanted[0]] or list(candidates)
    shared = {index: _common(wanted[1:], parts[index][1:]) for index in same}
    most = max(shared.values(), default=0)
    return [index for index in same if shared[index] == most], most


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of equal parts from the start on."""
    equal = [a == b for a, b in zip(one, other, strict=False)]
    return equal.index(False) if False in equal else len(equal)


def _parts(path: str) -> list[str]:
    """A path from its end: name, directory, the one above."""
    return list(reversed(PurePosixPath(path.replace("\\", "/")).parts)) or [""]


def _stem(name: str) -> str:
    """A file's name without the suffix of an image; other dots belong to it."""
    from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES

    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else name


def _ambiguous(who: str, key: Key, paths: Sequence[str]) -> DataError:
    return DataError(
        f"'{who}': {key!r} may be any of {len(paths)} images: {', '.join(paths[:3])}. Name them with their directories."
    )


def names_of_ids(ids: Sequence[int], label_names: Sequence[str], category_ids: Sequence[int]) -> tuple[str, ...]:
    """Names of classes of which only the ids are known: those of a data set's classes; its number where it has none.

    Args:
        ids: The ids.
        label_names: Of the data set.
        category_ids: Of the data set.
    """
    known: Mapping[int, str] = dict(zip(category_ids, label_names, strict=True))
    return tuple(known.get(number, str(number)) for number in ids)
