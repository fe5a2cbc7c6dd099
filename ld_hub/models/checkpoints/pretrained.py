"""A model as a directory: config.json and model.safetensors, written whole and loaded strictly."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ld_hub.errors import CheckpointError, ConfigError, MissingFileError
from ld_hub.hub import (
    CONFIG_NAME,
    MODEL_TYPE,
    WEIGHTS_NAME,
    atomic_directory,
    download,
    load_safetensors,
    origin_of,
    save_safetensors,
    tensor_shapes,
    write_json,
)
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.checkpoints.differences import LoadReport, compare
from ld_hub.models.checkpoints.saved import SavedModel, read_saved
from ld_hub.models.detector_config import BuildOptions
from ld_hub.models.names import close_field
from ld_hub.preprocessing import DataConfig
from ld_hub.preprocessing.processor_file import PREPROCESSOR_NAME, preprocessor_settings
from ld_hub.registry import ModelEntry
from ld_hub.structures import Teaching
from ld_hub.version import __version__


class Saveable(Protocol):
    """What a detector shows of itself to be saved (`ld_hub.models.detector.DenseDetector` does)."""

    name: str
    config: Any
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    data_config: DataConfig
    postprocess_config: PostprocessConfig
    teaching: Teaching | None

    @property
    def family(self) -> str:
        """Name of the family."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers."""
        ...


def save_pretrained(model: Saveable, directory: str | Path) -> Path:
    """Write ``config.json`` and ``model.safetensors``; `create_model(directory)` gives the model back, bit for bit.

    A new directory appears in one step; in an existing one these files are replaced and all others stay. For readers
    other than this library there is ``preprocessor_config.json``, too.

    Args:
        model: A detector.
        directory: Where to.

    Returns:
        `directory` as a `Path`.

    Raises:
        CheckpointError: If a weight is NaN or infinite.
    """
    content = {
        "model_type": MODEL_TYPE,
        "ld_hub_version": __version__,
        "architecture": model.name,
        "family": model.family,
        "config": asdict(model.config),
        "label_names": list(model.label_names),
        "category_ids": list(model.category_ids),
        "data_config": model.data_config.to_dict(),
        "postprocess": model.postprocess_config.to_dict(),
    }
    if model.teaching is not None:
        content["recipe"] = model.teaching.to_dict()
    with atomic_directory(directory) as beside:
        save_safetensors(model.state_dict(), beside / WEIGHTS_NAME)
        write_json(beside / CONFIG_NAME, content)
        write_json(beside / PREPROCESSOR_NAME, preprocessor_settings(model.data_config))
    return Path(directory)


def load_pretrained(
    source: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    weights: bool = True,
    num_classes: int | None = None,
    label_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    config_overrides: Mapping[str, Any] | None = None,
    **build_options: Any,
) -> Any:
    """Build the model of a saved directory or Hub repository and load its weights strictly.

    The backbone's own weights are never downloaded when `weights` are loaded.

    Args:
        source: Model directory, or ``org/name`` on the Hub.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Cache of downloads.
        token: Access token for private repositories.
        weights: False builds the architecture only, with fresh weights.
        num_classes: C; with another number than the saved one the class predictor starts afresh (fine-tuning),
            everything else is kept, and a warning says so.
        label_names: Names of the classes; as many as were saved are other names for the same classes.
        category_ids: Ids of the classes.
        config_overrides: Configuration fields to change; the weights must still fit.
        **build_options: Handed to the family's class where no weights are loaded.

    Returns:
        The detector, in eval mode if weights were loaded.

    Raises:
        MissingFileError: If there is no such directory.
        HubError: If the download fails.
        CheckpointError: If the directory is not a whole ld_hub model, or its weights do not fit.
        ConfigError: If an override is unknown or cannot work.
    """
    directory = Path(source)
    if not directory.is_dir():
        if isinstance(source, Path) or directory.is_absolute() or len(directory.parts) > 2:
            raise MissingFileError(f"No model directory '{source}'.")
        directory = download(str(source), revision, cache_dir=cache_dir, token=token, weights=weights)
    saved = read_saved(directory)
    config, options = _structure(saved, num_classes, label_names, category_ids, config_overrides or {})
    if weights:
        model = _with_weights(saved, config, options)
    else:
        model = saved.entry.build(config, **options, **build_options, cache_dir=cache_dir)
    model.teaching = saved.teaching
    if weights:
        model.origin = origin_of(directory)
    return model


def load_weights(model: nn.Module, path: str | Path, *, new_classes: bool = False) -> LoadReport:
    """Load a safetensors file of this library into a model, strictly.

    Args:
        model: A detector.
        path: The file.
        new_classes: Whether the file may be of another number of classes; the class predictor then stays as it is.

    Returns:
        What was matched.

    Raises:
        CheckpointError: If a tensor is missing, left over, of another shape or kind, or not finite.
    """
    state = load_safetensors(path)
    own = model.state_dict()
    classes = getattr(getattr(model, "config", None), "num_classes", 0)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    report = compare(str(path), shapes, own).require(classes, new_classes=new_classes)
    require_kinds(str(path), state, own)
    load_matched(model, state, report)
    return report


def require_kinds(source: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Refuse numbers of another kind, which loading would silently convert; other widths (float16) are fine.

    Args:
        source: The file, for messages.
        state: Its tensors, under the model's names.
        own: The model's state dict.

    Raises:
        CheckpointError: If there are whole or complex numbers where the model has real ones, or the other way round.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex():
            raise CheckpointError(f"'{source}': '{name}' has the type {tensor.dtype}, expected {own[name].dtype}.")


def load_matched(model: nn.Module, state: Mapping[str, Tensor], report: LoadReport) -> None:
    """Load the tensors that a report has matched; if some are reset instead, a warning says what was kept.

    Args:
        model: A detector.
        state: Tensors under its names.
        report: Their comparison, which `LoadReport.require` let pass.
    """
    model.load_state_dict({**model.state_dict(), **{name: state[name] for name in report.matched}})
    if report.reset:
        warnings.warn(report.summary, stacklevel=3)


def make_config(entry: ModelEntry, overrides: Mapping[str, Any]) -> Any:
    """The configuration of an architecture with some fields changed.

    Args:
        entry: The architecture.
        overrides: Fields to change.

    Raises:
        ConfigError: If a field is unknown (with close ones) or its value cannot work.
    """
    config_class = entry.build.config_class
    known = config_class.field_names()
    for name in overrides:
        if name not in known:
            raise close_field(name, known, f"Model '{entry.name}'")
    try:
        return config_class(**{**entry.config, **overrides})
    except TypeError as error:
        raise ConfigError(
            f"Model '{entry.name}': a configuration field has a value of the wrong type: {error}."
        ) from None


def _structure(
    saved: SavedModel,
    num_classes: int | None,
    label_names: Sequence[str] | None,
    category_ids: Sequence[int] | None,
    overrides: Mapping[str, Any],
) -> tuple[Any, BuildOptions]:
    """The configuration to build, and the saved options that still go with it."""
    have = len(saved.label_names)
    told = have if label_names is None else len(label_names)
    classes = {"num_classes": told if num_classes is None else num_classes}
    config = make_config(saved.entry, {**saved.config, **classes, **overrides})
    same = config.num_classes == have
    options: BuildOptions = {
        "name": saved.architecture,
        "postprocess_config": saved.postprocess_config,
        "label_names": label_names or saved.label_names if same else label_names,
        "category_ids": category_ids or saved.category_ids if same else category_ids,
    }
    if config.in_chans == saved.config.get("in_chans", config.in_chans):
        options["data_config"] = saved.data_config
    return config, options


def _with_weights(saved: SavedModel, config: Any, options: BuildOptions) -> Any:
    """The model with the directory's weights, in eval mode.

    The file's header is compared with the model on the meta device first, before memory is spent on either.
    """
    path = saved.directory / WEIGHTS_NAME
    new_classes = config.num_classes != len(saved.label_names)
    with torch.device("meta"):
        own = saved.entry.build(config, **options).state_dict()
    found = {name: shape for name, (shape, _) in tensor_shapes(path).items()}
    compare(str(path), found, own).require(config.num_classes, new_classes=new_classes)
    model = saved.entry.build(config, **options)
    load_weights(model, path, new_classes=new_classes)
    return model.eval()
