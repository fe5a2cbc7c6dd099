"""VoTT: ``vott-json-export/*-export.json``, an object of assets with their regions, by ids that are texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ld_hub.formats.labelled_image import Box, Fault, Labelled
from ld_hub.formats.layout import Layout, register_layout
from ld_hub.formats.split_files import has_marks, split_files
from ld_hub.formats.text import read_json_file


def read_vott(file: Path, name: str) -> Iterator[Labelled | Fault]:
    """The images of a VoTT export, or of one asset's file. A region with several tags is one object of each.

    Args:
        file: The JSON.
        name: What messages call it.

    Raises:
        DataError: If it is no JSON.
    """
    content = read_json_file(file)
    assets = content.get("assets") if isinstance(content, dict) else None
    if not isinstance(assets, dict):
        yield "no VoTT file", f"{name} has no object 'assets'"
        return
    for key, row in assets.items():
        asset = row.get("asset") if isinstance(row, dict) else None
        if not isinstance(asset, dict) or not asset.get("name"):
            yield "wrong entries", f"{name}: asset '{key}' has no 'asset' with a 'name'"
            continue
        boxes = []
        for number, region in enumerate(row.get("regions") or []):
            try:
                place = region["boundingBox"]
                x, y, width, height = (float(place[side]) for side in ("left", "top", "width", "height"))
            except (KeyError, TypeError, ValueError):
                yield "wrong regions", f"{name}: '{asset['name']}', region {number} has no boundingBox"
                continue
            boxes += [Box(str(tag), (x, y, x + width, y + height)) for tag in region.get("tags") or []]
        size = asset.get("size") or {}
        known = (int(size["width"]), int(size["height"])) if size.get("width") and size.get("height") else None
        path = str(asset.get("path") or "").removeprefix("file:")
        yield Labelled(tuple(filter(None, (str(asset["name"]), path))), name, tuple(boxes), known)


def _files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    def holds(file: Path) -> bool:
        return has_marks(file, b'"assets"', b'"regions"', b'"boundingBox"', opening=b"{")

    return split_files(root, split, (".json",), holds)


register_layout("vott", Layout("VoTT", _files, read_vott, "VoTT's vott-json-export/*.json"))
