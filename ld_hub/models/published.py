"""Files that were published elsewhere: found in the cache, checked, converted once, then loaded as ours."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from ld_hub.errors import CheckpointError
from ld_hub.hub import CONFIG_NAME, WEIGHTS_NAME
from ld_hub.models.convert import load_checkpoint
from ld_hub.models.pretrained import make_config, save_pretrained
from ld_hub.registry import ModelEntry, PretrainedCfg


def cache_place(cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path:
    """Where a published file is looked for: its own name in the cache.

    Args:
        cfg: Weights with a url.
        cache_dir: The cache; by default ``$LD_HUB_CACHE``, or ``~/.cache/ld_hub``.
    """
    root = Path(cache_dir or os.environ.get("LD_HUB_CACHE") or Path("~/.cache/ld_hub"))
    return root.expanduser() / cfg.url.rpartition("/")[2]


def model_directory(entry: ModelEntry, cfg: PretrainedCfg, cache_dir: str | Path | None = None) -> Path | None:
    """The model directory of published weights whose file lies in the cache.

    The file is compared with its published sha256 before anything of it is read. It is converted once; the model
    directory stays beside it, and the file is then no longer needed.

    Args:
        entry: The architecture.
        cfg: Its weights, with a url.
        cache_dir: See `cache_place`.

    Returns:
        The directory, or None where the file is not in the cache.

    Raises:
        CheckpointError: If the file is not the published one, or does not fit.
    """
    file = cache_place(cfg, cache_dir)
    directory = file.with_suffix("")
    if all((directory / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME)):
        return directory
    if not file.is_file():
        return None
    check_sha256(file, cfg.sha256)
    config = make_config(entry, {"num_classes": cfg.num_classes})
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # the first call draws no other numbers than the next
        model = entry.build(config, name=entry.name)
    load_checkpoint(model, file)
    return save_pretrained(model, directory)


def check_sha256(file: Path, expected: str) -> None:
    """Compare a file with the leading digits of its published sha256.

    Raises:
        CheckpointError: If they differ.
    """
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    found = digest.hexdigest()
    if not found.startswith(expected.lower()):
        raise CheckpointError(
            f"'{file}' is not the published file: its sha256 is {found}, expected to start with {expected}. "
            "It may be incomplete; nothing of it was read. Delete it and download it again."
        )
