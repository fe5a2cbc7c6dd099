"""What a run keeps of code that was imported for it: a copy and its hash."""

from __future__ import annotations

import json
from pathlib import Path

from ld_hub.hub.files import sha256_of
from ld_hub.plugins import imported_files

FOLDER = "imports"  # of a run directory: copies of the files
LIST = f"{FOLDER}/imports.json"  # their hashes by name


def import_attachments() -> dict[str, str]:
    """Files of a run directory about `imported_files`, by name; none where nothing was imported."""
    files = imported_files()
    if not files:
        return {}
    hashes = {file.name: sha256_of(file) for file in files.values()}
    copies = {f"{FOLDER}/{file.name}": file.read_text(encoding="utf-8") for file in files.values()}
    return {**copies, LIST: json.dumps(hashes, indent=2) + "\n"}


def import_changes(run: Path) -> list[str]:
    """What differs between the code that a run was begun with and what was imported now, in sentences.

    Args:
        run: Directory of the run.
    """
    listed = run / LIST
    then = json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else {}
    now = {file.name: sha256_of(file) for file in imported_files().values()}
    said = [
        f"{name} is not what the run was begun with: its sha256 was {then[name][:12]}, and is {now[name][:12]} now."
        for name in sorted({*then} & {*now})
        if then[name] != now[name]
    ]
    said += [f"{name} was imported when the run was begun, and is not now." for name in sorted({*then} - {*now})]
    return said + [f"{name} was not imported when the run was begun." for name in sorted({*now} - {*then})]
