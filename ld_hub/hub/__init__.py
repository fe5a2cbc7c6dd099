"""Files on disk and on the Hub: atomic writes, safetensors, config.json, downloads. Never a pickle."""

from ld_hub.hub.config_file import CONFIG_NAME, MODEL_TYPE, no_model, read_config, write_json
from ld_hub.hub.download import download, origin_of
from ld_hub.hub.fetch import disk_errors, fetch_file, offline, one_at_a_time
from ld_hub.hub.files import (
    atomic_directory,
    atomic_file,
    atomic_write,
    cache_root,
    describe_bytes,
    new_directory,
    sha256_of,
)
from ld_hub.hub.weights_file import WEIGHTS_NAME, load_safetensors, refuse_non_finite, save_safetensors, tensor_shapes

__all__ = [
    "CONFIG_NAME",
    "MODEL_TYPE",
    "WEIGHTS_NAME",
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
