"""Several COCO files of one split as one, where each is about other images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ld_hub.data.annotations import CocoFile
from ld_hub.data.checks import find_problems, image_rows, lookup, name_some
from ld_hub.data.discovery import OR_NAME_BOTH
from ld_hub.data.outline_store import Outlines
from ld_hub.errors import ConfigError, DataError


@dataclass(frozen=True, eq=False)
class CocoPart:
    """One of the files.

    Attributes:
        coco: Its content.
        image_dir: Directory that its file names are relative to.
    """

    coco: CocoFile
    image_dir: Path


def join_coco(root: Path, split: str, parts: Sequence[CocoPart]) -> CocoFile:
    """The images of all files, by their paths below the data directory, with ids given anew.

    Categories are the same where their names are; they keep their ids where all files have the same ones.

    Args:
        root: The data directory.
        split: What the files are together.
        parts: Two files or more.

    Raises:
        ConfigError: If two files are about the same image, so that only one of them can be meant, or one is LVIS'.
        DataError: If a file cannot be used.
    """
    paths = [[_below(part.image_dir / name, root) for name in part.coco.file_names] for part in parts]
    _require_apart(root, split, parts, paths)
    for part in parts:
        problems = find_problems(part.coco, part.image_dir, check_files=False)
        if problems:
            raise DataError(problems[0].message)
    cocos = [part.coco for part in parts]
    groups = {name: group for coco in cocos[::-1] for name, group in _categories(coco)}
    ids = _category_ids(cocos)
    before = np.cumsum([0, *(len(coco.image_ids) for coco in cocos)])
    labels = [
        np.array([ids[name] for name in coco.label_names])[lookup(coco.category_of, np.array(coco.category_ids))]
        for coco in cocos
    ]
    return CocoFile(
        path=root,
        image_ids=np.arange(1, before[-1] + 1, dtype=np.int64),
        file_names=[name for names in paths for name in names],
        sizes=np.concatenate([coco.sizes for coco in cocos]),
        ids=np.arange(1, sum(len(coco.ids) for coco in cocos) + 1, dtype=np.int64),
        image_of=np.concatenate([image_rows(coco) + 1 + first for coco, first in zip(cocos, before, strict=False)]),
        category_of=np.concatenate(labels).astype(np.int64),
        boxes=np.concatenate([coco.boxes for coco in cocos]),
        areas=np.concatenate([coco.areas for coco in cocos]),
        crowd=np.concatenate([coco.crowd for coco in cocos]),
        ignore=np.concatenate([coco.ignore for coco in cocos]),
        category_ids=tuple(ids.values()),
        label_names=tuple(ids),
        supercategories=tuple(groups[name] for name in ids),
        origins=tuple(_below(coco.path, root) for coco in cocos for _ in coco.file_names),
        outlines=Outlines.joined([(coco.outlines, coco.ids) for coco in cocos]),
    )


def _require_apart(root: Path, split: str, parts: Sequence[CocoPart], paths: Sequence[Sequence[str]]) -> None:
    names = [_below(part.coco.path, root) for part in parts]
    if any(part.coco.federated for part in parts):
        raise ConfigError(f"{root}: {', '.join(names)} cannot be read as one: LVIS' files stand alone. {OR_NAME_BOTH}")
    owner: dict[str, str] = {}
    for name, images in zip(names, paths, strict=True):
        image = next((image for image in images if image in owner), None)
        if image is not None:
            raise ConfigError(
                f"Each of {', '.join(names)} in {root} may hold the annotations of the split '{split}': {owner[image]} "
                f"and {name} both describe '{image}'. {OR_NAME_BOTH}"
            )
        owner |= dict.fromkeys(images, name)


def _category_ids(cocos: Sequence[CocoFile]) -> dict[str, int]:
    """Ids by name, in their order: those of the files where they agree, else the first file's and higher ones."""
    ids = dict(zip(cocos[0].label_names, cocos[0].category_ids, strict=True))
    for coco in cocos[1:]:
        for name in coco.label_names:
            ids.setdefault(name, max(ids.values()) + 1)
    return ids


def _categories(coco: CocoFile) -> list[tuple[str, str]]:
    return list(zip(coco.label_names, coco.supercategories, strict=True))


def _below(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def joining_remark(root: Path, split: str, parts: Sequence[CocoPart]) -> str:
    """What users are told once.

    Args:
        root: The data directory.
        split: What the files are together.
        parts: The files.
    """
    names = [_below(part.coco.path, root) for part in parts]
    return f"{root}: {name_some(names)} are read as one: together they are '{split}', with ids given anew."
