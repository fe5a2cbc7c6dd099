"""Files that were published elsewhere: downloaded once, checked, converted once, then loaded as ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch

from ld_hub.checked import Scalar
from ld_hub.errors import CheckpointError
from ld_hub.hub import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    atomic_directory,
    cache_root,
    describe_bytes,
    disk_errors,
    fetch_file,
    one_at_a_time,
    sha256_of,
    write_json,
)
from ld_hub.models.checkpoints.convert import load_checkpoint
from ld_hub.models.checkpoints.pretrained import make_config, save_pretrained
from ld_hub.models.checkpoints.weights import OPENMMLAB
from ld_hub.models.detector_config import BuildOptions
from ld_hub.preprocessing import DataConfig
from ld_hub.registry import ModelEntry, PretrainedCfg
from ld_hub.version import __version__

RECORD_NAME = "converted_from.json"


def cache_place(cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path:
    """Where a published file is looked for: its own name in the cache.

    Args:
        cfg: Weights with a url.
        cache_dir: See `cache_root`.
    """
    return cache_root(cache_dir) / cfg.url.rpartition("/")[2]


def address(cfg: PretrainedCfg) -> str:
    """Where a published file is fetched from; ``$LD_HUB_OPENMMLAB`` names a mirror of OpenMMLab's files.

    Args:
        cfg: Weights with a url.
    """
    mirror = os.environ.get("LD_HUB_OPENMMLAB")
    if not mirror or not cfg.url.startswith(OPENMMLAB):
        return cfg.url
    return f"{mirror.rstrip('/')}/{cfg.url.removeprefix(OPENMMLAB)}"


def model_directory(entry: ModelEntry, cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path:
    """The model directory of published weights, made at the first call.

    The file is taken from the cache, where somebody may have put it by hand, or downloaded. It is compared with its
    published sha256 before anything of it is read, and converted. The model directory stays, with a record of what it
    was made from; a downloaded file is removed. Later calls use no network. Processes that ask at once wait for one.

    Args:
        entry: The architecture.
        cfg: Its weights, with a url.
        cache_dir: See `cache_place`.

    Returns:
        The directory.

    Raises:
        HubError: If the file cannot be downloaded, or the cache cannot be written.
        CheckpointError: If the file is not the published one, or does not fit.
    """
    file = cache_place(cfg, cache_dir)
    directory = file.with_suffix("")
    if not _is_made(directory):
        with one_at_a_time(directory):
            if not _is_made(directory):
                _make(entry, cfg, file, directory)
    return directory


def tag_config(cfg: PretrainedCfg) -> Mapping[str, Scalar]:
    """Fields of the family's configuration that weights bring with them.

    Args:
        cfg: Any weights.
    """
    return {"num_classes": cfg.num_classes, **cfg.config}


def tag_options(cfg: PretrainedCfg) -> BuildOptions:
    """Labels and preprocessing that weights bring with them, as keywords of the family's class.

    Args:
        cfg: Any weights.
    """
    options: BuildOptions = {"label_names": cfg.label_names} if cfg.label_names else {}
    if cfg.data_config:
        options["data_config"] = DataConfig.from_dict(dict(cfg.data_config))
    return options


def _is_made(directory: Path) -> bool:
    return all((directory / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME))


def _make(entry: ModelEntry, cfg: PretrainedCfg, file: Path, directory: Path) -> None:
    laid_by_hand = file.is_file()
    try:
        digest = _checked(file, cfg.sha256) if laid_by_hand else fetch_file(address(cfg), file, sha256=cfg.sha256)
        record: dict[str, Scalar] = {
            "url": address(cfg),
            "sha256": digest,
            "size": file.stat().st_size,
            "model": entry.name,
            "tag": next((tag for tag, known in entry.pretrained.items() if known is cfg), ""),
            "ld_hub_version": __version__,
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with disk_errors(directory.parent):
            _convert(entry, cfg, file, directory, record)
    finally:
        if not laid_by_hand:
            file.unlink(missing_ok=True)


def _checked(file: Path, expected: str) -> str:
    """The sha256 of a file that was put into the cache."""
    found = sha256_of(file)
    if not found.startswith(expected.lower()):
        what = describe_bytes(file)
        raise CheckpointError(
            f"'{file}' is not the published file{f': it is {what}' if what else ''}. Its sha256 is {found}, expected "
            f"to start with {expected}. It may be incomplete; nothing of it was read. Delete it: then the next call "
            "downloads it."
        )
    return found


def _convert(entry: ModelEntry, cfg: PretrainedCfg, file: Path, directory: Path, record: Mapping[str, Scalar]) -> None:
    with torch.device("meta"):  # without drawing random weights: all of them come from the file
        model = entry.build(make_config(entry, tag_config(cfg)), name=entry.name, **tag_options(cfg))
    model.to_empty(device="cpu")
    try:
        with torch.device("cpu"):
            load_checkpoint(model, file)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}\nThe file is the published one, so this version of ld_hub cannot convert it; please report this "
            "message."
        ) from None
    with atomic_directory(directory) as beside:
        save_pretrained(model, beside)
        write_json(beside / RECORD_NAME, record)
