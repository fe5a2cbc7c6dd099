"""Files on disk and on the Hub: atomic writes, safetensors, config.json, downloads. Never a pickle."""

from ld_hub.hub.config import CONFIG_NAME, MODEL_TYPE, no_model, read_config, write_json
from ld_hub.hub.download import download
from ld_hub.hub.files import atomic_directory, atomic_file, atomic_write, describe_bytes
from ld_hub.hub.weights import WEIGHTS_NAME, load_safetensors, save_safetensors, tensor_shapes

__all__ = [
    "CONFIG_NAME",
    "MODEL_TYPE",
    "WEIGHTS_NAME",
    "atomic_directory",
    "atomic_file",
    "atomic_write",
    "describe_bytes",
    "download",
    "load_safetensors",
    "no_model",
    "read_config",
    "save_safetensors",
    "tensor_shapes",
    "write_json",
]
