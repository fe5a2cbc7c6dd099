"""A list of the files of a directory that is written last, and says whether they are still what was written.

``manifest.json`` holds the size and sha256 of each file, a few facts about the whole, and the sha256 of all that, so
that it also proves itself. It guards against disks and copies that go wrong, not against people: anyone can write
another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ld_hub.hub.files import atomic_write, sha256_of

MANIFEST_NAME = "manifest.json"
_SELF = "sha256"  # key of the manifest's own digest


def write_manifest(directory: Path, names: Iterable[str], facts: Mapping[str, Any] | None = None) -> Path:
    """Write the manifest of files that are whole.

    Args:
        directory: Where they are.
        names: Which files.
        facts: JSON values to keep with them.
    """
    files = {
        name: {"bytes": (directory / name).stat().st_size, "sha256": sha256_of(directory / name)} for name in names
    }
    content = {**(facts or {}), "files": dict(sorted(files.items()))}
    return atomic_write(directory / MANIFEST_NAME, json.dumps({**content, _SELF: _digest(content)}, indent=1) + "\n")


def damages(directory: Path) -> list[str]:
    """What of a directory is not as its manifest says, in words that begin with the file; nothing where all is well.

    Args:
        directory: With a manifest.
    """
    file = directory / MANIFEST_NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        listed = {str(name): (int(each["bytes"]), str(each["sha256"])) for name, each in content["files"].items()}
        own = content.pop(_SELF)
    except FileNotFoundError:
        return [f"{MANIFEST_NAME} is missing"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST_NAME} cannot be read"]
    if own != _digest(content):
        return [f"{MANIFEST_NAME} was changed"]
    return [fault for name, (size, digest) in listed.items() if (fault := _fault(directory / name, size, digest))]


def _fault(file: Path, size: int, digest: str) -> str:
    try:
        found = file.stat().st_size
        if found != size:
            return f"{file.name} has {found:,} bytes, not the {size:,} that were written"
        return "" if sha256_of(file) == digest else f"{file.name} was changed: its sha256 is another one"
    except FileNotFoundError:
        return f"{file.name} is missing"
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror})"


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
