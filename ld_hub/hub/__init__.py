"""Files on disk and on the Hub: atomic writes, safetensors, shards, config.json, downloads. Never a pickle.

Names are imported from their files at first use: safetensors brings torch, downloads huggingface_hub, and most callers
want neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_hub.lazy import lazy_names

if TYPE_CHECKING:
    from ld_hub.hub.config_file import CONFIG_NAME, MODEL_TYPE, no_model, read_config, write_json
    from ld_hub.hub.downloads import download, origin_of
    from ld_hub.hub.fetch import disk_errors, fetch_file, offline, one_at_a_time
    from ld_hub.hub.files import (
        WEIGHTS_NAME,
        atomic_directory,
        atomic_file,
        atomic_write,
        cache_root,
        describe_bytes,
        new_directory,
        sha256_of,
    )
    from ld_hub.hub.shards import ShardStore
    from ld_hub.hub.weights_file import load_safetensors, refuse_non_finite, save_safetensors, tensor_shapes

_FILES = {
    "config_file": ("CONFIG_NAME", "MODEL_TYPE", "no_model", "read_config", "write_json"),
    "downloads": ("download", "origin_of"),
    "fetch": ("disk_errors", "fetch_file", "offline", "one_at_a_time"),
    "files": (
        "WEIGHTS_NAME",
        "atomic_directory",
        "atomic_file",
        "atomic_write",
        "cache_root",
        "describe_bytes",
        "new_directory",
        "sha256_of",
    ),
    "shards": ("ShardStore",),
    "weights_file": ("load_safetensors", "refuse_non_finite", "save_safetensors", "tensor_shapes"),
}
_FILE_OF = {name: file for file, names in _FILES.items() for name in names}

__all__ = [
    "CONFIG_NAME",
    "MODEL_TYPE",
    "WEIGHTS_NAME",
    "ShardStore",
    "atomic_directory",
    "atomic_file",
    "atomic_write",
    "cache_root",
    "describe_bytes",
    "disk_errors",
    "download",
    "fetch_file",
    "load_safetensors",
    "new_directory",
    "no_model",
    "offline",
    "one_at_a_time",
    "origin_of",
    "read_config",
    "refuse_non_finite",
    "save_safetensors",
    "sha256_of",
    "tensor_shapes",
    "write_json",
]

__getattr__ = lazy_names(__name__, _FILE_OF)
