"""Evaluation artefacts: what `ld-hub eval` writes about a model, and the only source of the AP in a card.

```
{"format": "ld_hub.evaluation", "format_version": 1, "date": ..., "command": ..., "versions": {...},
 "model":   {"name": as given, "architecture": ..., "family": ..., "config": {...}, "recipe": name or null},
 "weights": {"file": "model.safetensors", "sha256": of the file, "tensors": digits of the sha256 of names and values},
 "data":    {"name": ..., "split": ..., "annotations": file name, "sha256": of the file},
 "detections_file": {"file": "detections.json", "sha256": of the file},
 "protocol": a key of `PROTOCOLS` ("coco" where it is missing), "stats": its numbers, "per_class": AP by label,
 "boxes": ground truth by label, "images": N, "detections": N, "not_counted": N (0 where it is missing),
 "backend": scorer, "device": ..., "precision": ..., "batch_size": ...}
```
Fractions are 0..1; null stands where there was nothing to find. Files are named without their directories.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from ld_hub.errors import CheckpointError, EvaluationError, HubError, MissingFileError
from ld_hub.hub.config_file import parse_json, shorten
from ld_hub.hub.downloads import TRANSPORT_ERROR, download, first_line, leaks, secrets_in_use
from ld_hub.hub.fetch import offline

FORMAT = "ld_hub.evaluation"
FORMAT_VERSION = 1
EVAL_DIRECTORY = "eval"  # of a model directory or repository: where artefacts and their detections lie
MAX_BYTES = 8_000_000
STAT_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
VOC_NAMES = ("AP", *(f"AP{percent}" for percent in range(50, 100, 5)))
PROTOCOLS = {"coco": STAT_NAMES, "voc07": VOC_NAMES, "voc12": VOC_NAMES}  # the numbers that each gives
TITLES = {
    "coco": "COCO box metrics",
    "voc07": "PASCAL VOC 2007, 11-point AP",
    "voc12": "PASCAL VOC 2012, AP by area",
}

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = 20_000  # characters of a text
_PARTS: dict[str, tuple[str, ...]] = {  # texts that each part has
    "model": ("name", "architecture", "family"),
    "weights": ("file", "sha256", "tensors"),
    "data": ("name", "split", "annotations", "sha256"),
    "detections_file": ("file", "sha256"),
}
_TEXTS = ("date", "command", "backend", "device", "precision")


def read_evidence(path: str | Path) -> dict[str, Any]:
    """Read an evaluation artefact.

    Args:
        path: The metrics.json that `ld-hub eval` wrote.

    Returns:
        Its content, checked.

    Raises:
        MissingFileError: If there is no such file.
        EvaluationError: If it is not such a file: another JSON, too large, of a newer version, or with a value that
            no evaluation gives.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"No evaluation artefact '{path}': `ld-hub eval MODEL --data DIR --out DIR` writes one.")
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise EvaluationError(f"'{path}' has {size:,} bytes; an evaluation artefact has at most {MAX_BYTES:,}.")
    try:
        content = parse_json(file, "an evaluation artefact")
    except CheckpointError as error:
        raise EvaluationError(str(error)) from None
    return check_evidence(content, f"'{path}'")


def find_evidence(directory: str | Path) -> dict[Path, dict[str, Any]]:
    """Read every artefact in ``eval/`` and its subdirectories; other JSON files there are passed over.

    Args:
        directory: A model directory, or a local copy of a repository.

    Returns:
        Contents by path, sorted by path.

    Raises:
        EvaluationError: If a file claims to be an artefact and is none.
    """
    found = {}
    for file in sorted((Path(directory) / EVAL_DIRECTORY).rglob("*.json")):
        if f'"{FORMAT}"' in _start(file):
            found[file] = read_evidence(file)
    return found


def download_evidence(repo_id: str, revision: str | None = None, *, token: str | bool | None = None) -> Path:
    """Fetch a model with its card and its evaluations into the cache.

    Args:
        repo_id: ``org/name``.
        revision: Branch, tag or commit; the default branch when None.
        token: Access token, or True to require the stored one.

    Returns:
        The local directory, all of one commit.

    Raises:
        HubError: As `ld_hub.hub.downloads`.
    """
    directory = download(repo_id, revision, token=token)
    try:
        snapshot_download(
            repo_id,
            revision=directory.name,
            allow_patterns=["README.md", f"{EVAL_DIRECTORY}/*.json"],
            token=token,
            library_name="ld_hub",
            local_files_only=bool(offline()),
        )
    except (TRANSPORT_ERROR, OSError, ValueError, RuntimeError) as error:
        secrets = secrets_in_use(token)
        message = f"The card and evaluations of '{repo_id}' could not be fetched: {first_line(error, secrets)}."
        raise HubError(message) from (None if leaks(error, secrets) else error)
    return directory


def check_evidence(content: Mapping[str, Any], where: str = "the evaluation") -> dict[str, Any]:
    """Make sure that something is the content of an evaluation artefact.

    Args:
        content: Parsed JSON.
        where: Its source, for messages.

    Returns:
        The same as a plain dictionary, what older versions did not write filled in.

    Raises:
        EvaluationError: Naming the field, what it is and what it should be.
    """
    if content.get("format") != FORMAT:
        raise EvaluationError(
            f"{where} is not an evaluation artefact: its 'format' is {shorten(content.get('format'))}, not '{FORMAT}'. "
            "Only what `ld-hub eval` writes counts as measured."
        )
    version = content.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise EvaluationError(
            f"{where} has format_version {shorten(version)}; this ld_hub reads {FORMAT_VERSION}. Evaluate again, or "
            "update ld_hub."
        )
    for part, names in _PARTS.items():
        _object(where, content, part)
        for name in names:
            _text(where, f"{part}.{name}", content[part].get(name))
    for name in _TEXTS:
        _text(where, name, content.get(name))
    for part in ("weights", "data", "detections_file"):
        if not _SHA256.fullmatch(content[part]["sha256"]):
            raise _wrong(where, f"{part}.sha256", content[part]["sha256"], "64 hexadecimal digits")
    if Path(content["detections_file"]["file"]).name != content["detections_file"]["file"]:
        raise _wrong(where, "detections_file.file", content["detections_file"]["file"], "a name without directories")
    if content["model"].get("recipe") is not None:
        _text(where, "model.recipe", content["model"]["recipe"])
    _object(where, content["model"], "config")
    _object(where, content, "versions")
    whole = {**content, "protocol": content.get("protocol", "coco"), "not_counted": content.get("not_counted", 0)}
    _check_numbers(where, whole)
    return whole


def _check_numbers(where: str, content: Mapping[str, Any]) -> None:
    for part in ("stats", "per_class", "boxes"):
        _object(where, content, part)
    protocol = content["protocol"]
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        raise _wrong(where, "protocol", protocol, f"one of {', '.join(PROTOCOLS)}")
    if tuple(content["stats"]) != PROTOCOLS[protocol]:
        raise _wrong(where, "stats", list(content["stats"]), f"the names {', '.join(PROTOCOLS[protocol])}")
    for part in ("stats", "per_class"):
        for name, value in content[part].items():
            real = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (real and math.isfinite(value) and 0 <= value <= 1):
                raise _wrong(where, f"{part}.{name[:80]}", value, "a fraction 0..1 or null")
    counts = {f"boxes.{name[:80]}": value for name, value in content["boxes"].items()}
    counts |= {name: content.get(name) for name in ("images", "detections", "not_counted", "batch_size")}
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _wrong(where, name, value, "a whole number from 0 on")


def _object(where: str, content: Mapping[str, Any], name: str) -> None:
    if not isinstance(content.get(name), dict):
        raise _wrong(where, name, content.get(name), "an object")


def _text(where: str, name: str, value: Any) -> None:
    if not isinstance(value, str) or not value or len(value) > _LONGEST:
        raise _wrong(where, name, value, f"a text of 1 to {_LONGEST:,} characters")


def _wrong(where: str, name: str, value: Any, expected: str) -> EvaluationError:
    return EvaluationError(f"{where}: '{name}' is {shorten(value)}; expected {expected}. Evaluate again.")


def _start(file: Path) -> str:
    with open(file, "rb") as stream:
        return stream.read(200).decode(errors="replace")
