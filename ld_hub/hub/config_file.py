"""config.json of a model directory: bounded, strict JSON, and only ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ld_hub.errors import CheckpointError, MissingFileError
from ld_hub.hub.files import atomic_write, describe_bytes
from ld_hub.runtime.exported_files import MODEL_TYPE as EXPORTED_TYPE

CONFIG_NAME = "config.json"
MODEL_TYPE = "ld_hub"
MAX_CONFIG_BYTES = 1_000_000


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON atomically, readable, refusing NaN and infinities, which are not JSON.

    Args:
        path: Target file.
        content: Dictionaries, lists, strings, numbers, booleans and None.

    Returns:
        `path` as a `Path`.
    """
    return atomic_write(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the config.json of a saved model; nothing in it is executed.

    Args:
        path: The file, or the model directory that holds it.

    Returns:
        The dictionary, with ``"model_type": "ld_hub"``.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If it is larger than 1 MB, not strict JSON (NaN and repeated keys included), or the
            configuration of another library's model.
    """
    file = Path(path) / CONFIG_NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise no_model(file.parent)
    size = file.stat().st_size
    if size > MAX_CONFIG_BYTES:
        raise CheckpointError(f"'{file}' has {size:,} bytes; a model configuration has at most {MAX_CONFIG_BYTES:,}.")
    config = parse_json(file, "a model configuration")
    model_type = config.get("model_type")
    if model_type != MODEL_TYPE:
        raise CheckpointError(
            f"'{file}' is not the configuration of an ld_hub model: {_whose(config)}.{_inner_model(file.parent)}"
        )
    return config


def no_model(directory: str | Path) -> MissingFileError:
    """The error for a directory that should be a model's and has no ``config.json``."""
    way_out = _inner_model(directory) or " A model directory is what model.save_pretrained(DIR) writes."
    return MissingFileError(f"'{directory}' is not a model directory: it holds no '{CONFIG_NAME}'.{way_out}")


def _inner_model(directory: str | Path) -> str:
    """Runs of the trainer have a config.json of their own, and a model in ``model/``."""
    inner = Path(directory) / "model"
    return f" Did you mean '{inner}'?" if (inner / CONFIG_NAME).is_file() else ""


def parse_json(file: Path, what: str) -> dict[str, Any]:
    """Read a JSON object strictly: NaN, infinities and repeated keys are refused.

    Args:
        file: An existing file, of a size that was checked.
        what: What it should be, for messages, e.g. ``"a model configuration"``.

    Raises:
        CheckpointError: If it is anything else.
    """
    try:
        content = json.loads(
            file.read_text(encoding="utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_repeats
        )
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        kind = describe_bytes(file)
        raise CheckpointError(f"'{file}' is not readable JSON{f': it is {kind}' if kind else f' ({error})'}.") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"'{file}' holds a JSON {type(content).__name__}; {what} is an object.")
    return content


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key '{repeated[:100]}' occurs twice")
    return content


def _whose(config: Mapping[str, Any]) -> str:
    """Name the library a foreign configuration seems to belong to."""
    model_type = config.get("model_type")
    if model_type == EXPORTED_TYPE:
        return (
            "it is an exported detector's, which `ld-hub predict`, `eval` and `benchmark` take; everything else needs "
            "the model that it was exported from"
        )
    if isinstance(model_type, str):
        return f'its model_type is "{model_type[:100]}", not "{MODEL_TYPE}"; load it with the library that made it'
    if "pretrained_cfg" in config or "num_features" in config:
        return 'it looks like a timm classifier\'s; as a backbone use create_model("gfocal", backbone="TIMM_NAME")'
    return f'it has no "model_type": "{MODEL_TYPE}"'
