"""What loose files lack or spell in their own way is put right here and nowhere else, counted and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ld_hub.data.annotations import Bools, CocoFile, Ints, content_of, parse_coco, read_json
from ld_hub.data.box_parts import COLUMNS, in_parts
from ld_hub.data.checks import (
    Problem,
    Repair,
    box_corners,
    doubtful_corners,
    files_exist,
    image_rows,
    lookup,
    name_some,
    repeated,
)
from ld_hub.data.image_finder import ImageFinder
from ld_hub.data.mending import lacks_boxes, mend_rows
from ld_hub.data.reading import Reading
from ld_hub.data.source import Source, read_sizes
from ld_hub.errors import DataError, LdHubError

_NO_GROUP = ("", "none")  # supercategory of a category that stands at the top


def read_repaired(file: Path, *, outlines: bool = False) -> tuple[CocoFile, list[Repair]]:
    """Read a COCO file; what is no number, box or text where one should be is put right where that is possible.

    Args:
        file: The JSON file.
        outlines: Keep the outlines of objects.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it cannot be read all the same; names file and id.
    """
    content = read_json(file, outlines=outlines)
    try:
        coco = parse_coco(file, content, outlines=outlines)
        if np.isfinite(coco.boxes).all():
            return coco, []
    except DataError:
        pass
    if lacks_boxes(content) and not outlines:
        content = read_json(file, polygons=True)
    mended, repairs = mend_rows(file, content)
    return parse_coco(file, mended, outlines=outlines), repairs


def find_names(coco: CocoFile, image_dir: Path) -> tuple[CocoFile, list[Repair]]:
    """Give images that are not where their names say the names of the files that are meant.

    Args:
        coco: The annotations.
        image_dir: Directory that file names are relative to.
    """
    there = files_exist(coco.file_names, image_dir)
    if there.all():
        return coco, []
    finder, names, example = ImageFinder(image_dir, [image_dir]), list(coco.file_names), ""
    used, count = {name for name, found in zip(names, there, strict=True) if found}, 0
    for row in np.flatnonzero(~there).tolist():
        found = finder.find(names[row])
        if found is None or found in used:  # else two names would be one picture
            continue
        example, names[row], count = example or f"'{names[row]}' is '{found}'", found, count + 1
        used.add(found)
    if not count:
        return coco, []
    text = f"{coco.path}: {count} file names do not lead to the images as they stand, which were found all the same"
    return replace(coco, file_names=names), [Repair("file names", count, f"{text} ({example}).")]


def fill_sizes(coco: CocoFile, image_dir: Path) -> tuple[CocoFile, list[Repair]]:
    """Read the sizes of images that have none from their headers.

    Args:
        coco: The annotations, sizes 0 x 0 where the file gives none.
        image_dir: Directory that file names are relative to.
    """
    rows = np.flatnonzero((coco.sizes == 0).all(axis=1)).tolist()
    sizes, filled = coco.sizes.copy(), []
    for row, size in zip(
        rows, read_sizes([image_dir / coco.file_names[k] for k in rows], "reading sizes"), strict=True
    ):
        if not isinstance(size, LdHubError):
            sizes[row] = size[::-1]
            filled.append(coco.file_names[row])
    if not filled:
        return coco, []
    text = (
        f"{coco.path}: {len(filled)} images have no size there; it was read from their files: {name_some(filled, 3)}."
    )
    return replace(coco, sizes=sizes), [Repair("image sizes", len(filled), text)]


def turn_sizes(coco: CocoFile, image_dir: Path) -> tuple[CocoFile, list[Repair]]:
    """Take the sizes of images that are declared the other way round, as of those that lie on their side by EXIF.

    All such images of a file are, where the boxes of one of them reach out of the declared size and lie in that of the
    image as it is seen.

    Args:
        coco: The annotations.
        image_dir: Directory that file names are relative to.
    """
    limits = coco.sizes[:, ::-1]
    out = _beyond(coco, limits)
    out_turned = _beyond(coco, limits[:, ::-1]) if out.any() else out
    if not (out & ~out_turned).any():
        return coco, []

    def turned(among: Sequence[int]) -> list[int]:
        sizes = read_sizes([image_dir / coco.file_names[k] for k in among], "reading sizes")
        return [k for k, size in zip(among, sizes, strict=True) if size == tuple(limits[k, ::-1]) != tuple(limits[k])]

    if not turned(np.flatnonzero(out & ~out_turned).tolist()):
        return coco, []
    swapped = turned(np.flatnonzero(~out_turned).tolist())
    sizes = coco.sizes.copy()
    sizes[swapped] = sizes[swapped][:, ::-1]
    text = (
        f"{coco.path}: {len(swapped)} images have their width and height the other way round, and boxes lie in the "
        f"images as they are seen, whose sizes were taken: {name_some((coco.file_names[k] for k in swapped), 3)}."
    )
    return replace(coco, sizes=sizes), [Repair("turned images", len(swapped), text)]


def _beyond(coco: CocoFile, limits: Ints) -> Bools:
    """``(I,)`` images of which a box reaches beyond a width and height in px, ``(I, 2)``."""
    found = np.zeros(len(limits), dtype=bool)
    for part in in_parts(coco):
        rows = image_rows(part)
        found[rows[(rows >= 0) & (box_corners(part)[:, 2:] > 1.01 * limits[rows] + 1).any(axis=1)]] = True
    return found


def join_images(coco: CocoFile, image_dir: Path) -> tuple[CocoFile, list[Repair]]:
    """Make one image of those that are the same file, with the objects of all of them, alike ones once.

    Args:
        coco: The annotations.
        image_dir: Not looked at.
    """
    first: dict[str, int] = {}
    rows = np.array([first.setdefault(name, k) for k, name in enumerate(coco.file_names)], dtype=np.int64)
    kept = rows == np.arange(len(rows))
    if kept.all() or (coco.sizes != coco.sizes[rows]).any() or len(np.unique(coco.image_ids[kept])) < kept.sum():
        return coco, []
    owners = image_rows(coco)
    image_of = np.where(owners >= 0, coco.image_ids[rows[owners]], coco.image_of)
    joined = np.isin(image_of, coco.image_ids[rows[~kept]])
    whole = replace(coco, image_of=image_of)
    names = [name for name, keep in zip(coco.file_names, kept, strict=True) if keep]
    text = (
        f"{coco.path}: {int((~kept).sum())} images are listed more than once and were taken once, with the objects of "
        f"all entries: {name_some(dict.fromkeys(coco.file_names[k] for k in np.flatnonzero(~kept).tolist()), 3)}."
    )
    whole = replace(
        _without_rows(whole, joined & _alike(whole, ids=False)),
        image_ids=coco.image_ids[kept],
        file_names=names,
        sizes=coco.sizes[kept],
        origins=tuple(o for o, keep in zip(coco.origins, kept, strict=True) if keep) if coco.origins else (),
    )
    return whole, [Repair("images listed twice", int((~kept).sum()), text)]


def number_anew(coco: CocoFile, image_dir: Path) -> tuple[CocoFile, list[Repair]]:
    """Give annotations ids of their own where some are given more than once; what is alike is taken once.

    Args:
        coco: The annotations; where their outlines, which go by id, are asked for, they stay as they are.
        image_dir: Not looked at.
    """
    twice = repeated(coco.ids)
    if not len(twice) or coco.outlines is not None:
        return coco, []
    single = _without_rows(coco, _alike(coco, ids=True))
    left_out = len(coco.ids) - len(single.ids)
    text = f"{coco.path}: annotation ids are given more than once ({name_some(twice, 3)}); all were numbered anew"
    text += f", and {left_out} that were alike were left out." if left_out else "."
    ids = np.arange(1, len(single.ids) + 1, dtype=np.int64)
    return replace(single, ids=ids), [Repair("annotation ids", len(twice), text)]


def _alike(coco: CocoFile, *, ids: bool) -> Bools:
    """``(K,)`` annotations that say the same as one before them, with or without their ids."""
    columns = [coco.image_of, coco.category_of, coco.crowd, *coco.boxes.T, *([coco.ids] if ids else [])]
    _, first = np.unique(np.stack(columns, axis=1).astype(np.float64), axis=0, return_index=True)
    found = np.ones(len(coco.ids), dtype=bool)
    found[first] = False
    return found


def _without_rows(coco: CocoFile, left_out: Bools) -> CocoFile:
    return replace(coco, **{name: getattr(coco, name)[~left_out] for name in COLUMNS})


def repaired_source(source: Source, coco: CocoFile, repairs: Sequence[Repair]) -> Source:
    """A source with other annotations, which then are the content of its annotation file.

    Args:
        source: As it was.
        coco: What is to be used.
        repairs: What was done, beside what the source has been told already.
    """
    content = content_of(coco, coco.file_names)
    return replace(source, coco=coco, content=content, repairs=(*source.repairs, *repairs))


def settled(source: Source, reading: Reading) -> Source:
    """A source whose categories are classes, as far as its reader can tell, and whose repairs are allowed.

    Args:
        source: As it was read.
        reading: What the user says.

    Returns:
        With the sizes of images as they are seen, without Roboflow's root category, and with categories of one name as
        one where that is asked for; where repairs are not allowed, they are problems.
    """
    coco, turned = (source.coco, []) if source.coco.federated else turn_sizes(source.coco, source.image_dir)
    source = repaired_source(source, coco, turned) if turned else source
    doubt = doubtful_corners(source.coco) if source.layout == "COCO" else ""
    source = replace(source, remarks=(*source.remarks, doubt)) if doubt else source
    root = None if reading.keep_root_category else _root_category(source.coco)
    if root is not None:
        name = source.coco.label_names[root]
        text = (
            f"{source.coco.path}: the category '{name}' has no boxes and is the supercategory of all others, as "
            "Roboflow writes it; it is left out. keep_root_category=True (--keep_root_category) keeps it."
        )
        source = repaired_source(source, _without_category(source.coco, root), [Repair("root category", 1, text)])
    if reading.merge_categories and len(set(source.coco.label_names)) < len(source.coco.label_names):
        source = repaired_source(source, _merged(source.coco), [])
    if reading.strict and source.repairs:
        way_out = "Strict reading (--strict) repairs nothing: correct the data, or read without it."
        refused = [Problem(r.kind, r.count, f"{r.message} {way_out}") for r in source.repairs]
        source = replace(source, problems=(*source.problems, *refused), repairs=())
    return source


def _root_category(coco: CocoFile) -> int | None:
    """Position of a category at the top without boxes, in which all the others are."""
    groups = coco.supercategories
    for k, (number, name) in enumerate(zip(coco.category_ids, coco.label_names, strict=True)):
        others = {*groups[:k], *groups[k + 1 :]}
        if others == {name} and groups[k] in _NO_GROUP and not (coco.category_of == number).any():
            return k
    return None


def _without_category(coco: CocoFile, position: int) -> CocoFile:
    """Without one of the categories, of which there are no boxes."""
    kept = [k for k in range(len(coco.category_ids)) if k != position]
    return replace(
        coco,
        category_ids=tuple(coco.category_ids[k] for k in kept),
        label_names=tuple(coco.label_names[k] for k in kept),
        supercategories=tuple(coco.supercategories[k] for k in kept),
    )


def _merged(coco: CocoFile) -> CocoFile:
    """With the lowest id of each name for all of them."""
    names = coco.label_names
    kept = [k for k, name in enumerate(names) if names.index(name) == k]
    ids = np.array(coco.category_ids, dtype=np.int64)
    new = ids[[names.index(name) for name in names]]
    rows = lookup(coco.category_of, ids)
    return replace(
        coco,
        category_of=np.where(rows >= 0, new[rows], coco.category_of),
        category_ids=tuple(coco.category_ids[k] for k in kept),
        label_names=tuple(names[k] for k in kept),
        supercategories=tuple(coco.supercategories[k] for k in kept),
    )
