"""Image files by the names that annotations have for them: paths of other systems, addresses, bare names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from ld_hub.preprocessing.suffixes import IMAGE_SUFFIXES

_SUFFIXES = (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))


class ImageFinder:
    """Looks for images in a few folders, by the ends of their names, and below the folders by the name alone.

    A name alone counts only where one file has it, so that no picture is taken for another. Upper and
    lower case matter.

    Args:
        root: Directory that paths are given from.
        folders: Where to look, best first; names of no folder are left out.
    """

    def __init__(self, root: Path, folders: Sequence[Path]) -> None:
        self.root = root
        self.folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
        self._listed: dict[str, set[str]] = {}

    def plain(self, name: str) -> str | None:
        """Path of an image whose name leads to it from one of the folders as it stands, in POSIX form from `root`.

        A name without a suffix has that of the image.
        """
        text = name.replace("\\", "/")
        ends = ("",) if text.lower().endswith(IMAGE_SUFFIXES) else ("", *_SUFFIXES)
        for folder in self.folders:
            found = next((text + end for end in ends if self._there(folder, text + end)), None)
            if found is not None:
                return self._below(folder, found)
        return None

    def find(self, name: str) -> str | None:
        """Path of an image in POSIX form from `root`; None where there is none, or several might be meant."""
        for text in _readings(name):
            parts = [part for part in PurePosixPath(text).parts if part not in ("..", "/") and not part.endswith(":")]
            for tail in ("/".join(parts[k:]) for k in range(len(parts))):
                for folder in self.folders:
                    if self._there(folder, tail):
                        return self._below(folder, tail)
        for text in _readings(name):
            alone = PurePosixPath(text)
            same = self._by_name.get(alone.name, [])
            if not same and alone.suffix.lower() not in IMAGE_SUFFIXES:
                same = self._by_stem.get(alone.name, [])
            if len(same) == 1:
                return Path(os.path.relpath(same[0], self.root)).as_posix()
        return None

    def _there(self, folder: Path, name: str) -> bool:
        where, base = os.path.split(os.path.join(folder, name))
        return base in self._names(where)

    def _names(self, folder: str) -> set[str]:
        if folder not in self._listed:
            self._listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        return self._listed[folder]

    def _below(self, folder: Path, name: str) -> str:
        return Path(os.path.relpath(os.path.join(folder, name), self.root)).as_posix()

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """All images below the folders by their names."""
        found: dict[str, set[str]] = defaultdict(set)
        for top in self.folders:
            for folder, inner, names in os.walk(top):
                inner[:] = [name for name in inner if name[0] != "."]
                for name in names:
                    if name.lower().endswith(IMAGE_SUFFIXES) and name[0] != ".":
                        found[name].add(os.path.realpath(os.path.join(folder, name)))
        return {name: sorted(paths) for name, paths in found.items()}

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for name, paths in self._by_name.items():
            found[Path(name).stem] += paths
        return found


def _readings(name: str) -> Iterator[str]:
    """What a name may mean: a path, of Windows too, an address, an encoded path."""
    text = name.replace("\\", "/")
    seen = [text]
    if "?" in text or "://" in text:
        address = urlsplit(text)
        seen += [*parse_qs(address.query).get("d", []), unquote(address.path)]  # Label Studio's ?d=folder/image.jpg
    seen.append(unquote(text))
    yield from dict.fromkeys(seen)
