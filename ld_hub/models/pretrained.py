"""A model as a directory: config.json and model.safetensors, written whole and loaded strictly."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ld_hub.errors import CheckpointError, ConfigError, LdHubError, MissingFileError
from ld_hub.hub import (
    CONFIG_NAME,
    MODEL_TYPE,
    WEIGHTS_NAME,
    atomic_directory,
    download,
    load_safetensors,
    read_config,
    save_safetensors,
    tensor_shapes,
    write_json,
)
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.names import close_field
from ld_hub.models.report import LoadReport, compare
from ld_hub.preprocessing import DataConfig
from ld_hub.registry import MODELS, ModelEntry
from ld_hub.version import __version__

Settings = TypeVar("Settings")


class Saveable(Protocol):
    """What a detector shows of itself to be saved (`ld_hub.models.detector.DenseDetector` does)."""

    name: str
    config: Any
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    data_config: DataConfig
    postprocess_config: PostprocessConfig

    @property
    def family(self) -> str:
        """Name of the family."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers."""
        ...


@dataclass(frozen=True)
class SavedModel:
    """What a model directory says about its model, checked.

    Attributes:
        directory: Where it lies.
        architecture: Registered name it was built by.
        family: Family, should this version not know the name.
        config: Fields of the family's configuration.
        label_names: C names.
        category_ids: C ids.
        data_config: Preprocessing.
        postprocess_config: Inference settings.
        recipe: How it was distilled, as the trainer recorded it; empty if it was not.
    """

    directory: Path
    architecture: str
    family: str
    config: dict[str, Any]
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    data_config: DataConfig
    postprocess_config: PostprocessConfig
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def entry(self) -> ModelEntry:
        """The registered architecture, or its family where this version does not know the name.

        Raises:
            CheckpointError: If this version knows neither.
        """
        for name in (self.architecture, self.family):
            if name in MODELS:
                return MODELS[name]
        raise CheckpointError(
            f"'{self.directory}' holds a '{self.architecture}' of the family '{self.family}', which ld_hub "
            f"{__version__} does not have. A newer version may."
        )


def save_pretrained(model: Saveable, directory: str | Path, *, recipe: Mapping[str, Any] | None = None) -> Path:
    """Write ``config.json`` and ``model.safetensors``; `create_model(directory)` gives the model back, bit for bit.

    A new directory appears in one step; in an existing one both files are replaced and all others stay.

    Args:
        model: A detector.
        directory: Where to.
        recipe: How the model was distilled (JSON values), kept for its card; by default what it was loaded with.

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
        "postprocess": asdict(model.postprocess_config),
        "recipe": dict(getattr(model, "recipe", None) or {} if recipe is None else recipe),
    }
    if not content["recipe"]:
        del content["recipe"]
    with atomic_directory(directory) as beside:
        save_safetensors(model.state_dict(), beside / WEIGHTS_NAME)
        write_json(beside / CONFIG_NAME, content)
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
        num_classes: C that the caller expects.
        label_names: Other names for the same classes.
        category_ids: Other ids for the same classes.
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
    changes = {**_classes(saved, num_classes, label_names, weights), **(config_overrides or {})}
    options = _labels(saved, changes, label_names, category_ids)
    config = make_config(saved.entry, {**saved.config, **changes})
    options |= {"name": saved.architecture, "postprocess_config": saved.postprocess_config}
    if config.in_chans == saved.config.get("in_chans", config.in_chans):
        options["data_config"] = saved.data_config
    if weights:
        _check_shapes(saved, config, options)
    else:
        options |= {**build_options, "cache_dir": cache_dir}
    model = saved.entry.build(config, **options)
    if saved.recipe:
        model.recipe = saved.recipe
    if weights:
        load_weights(model, directory / WEIGHTS_NAME)
        model.eval()
    return model


def load_weights(model: torch.nn.Module, path: str | Path) -> LoadReport:
    """Load a safetensors file of this library into a model, strictly.

    Args:
        model: A detector.
        path: The file.

    Returns:
        What was matched.

    Raises:
        CheckpointError: If a tensor is missing, left over, of another shape or kind, or not finite.
    """
    state = load_safetensors(path)
    own = model.state_dict()
    classes = getattr(getattr(model, "config", None), "num_classes", 0)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    report = compare(str(path), shapes, own).require(classes)
    for name, tensor in state.items():
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex():
            raise CheckpointError(f"'{path}': '{name}' has the type {tensor.dtype}, expected {own[name].dtype}.")
    model.load_state_dict(state)
    return report


def read_saved(directory: str | Path) -> SavedModel:
    """Read and check a model directory's ``config.json``. Unknown fields warn; nothing is executed.

    Raises:
        MissingFileError: If there is no ``config.json``.
        CheckpointError: If it is not an ld_hub model's, or a value cannot work.
    """
    content = read_config(Path(directory))
    where = f"'{Path(directory) / CONFIG_NAME}'"
    known = {"model_type", "ld_hub_version", "architecture", "family", "config", "label_names", "category_ids"}
    _warn_unknown(where, content, known | {"data_config", "postprocess", "recipe"})
    texts = {key: content.get(key) for key in ("architecture", "family")}
    for key, text in texts.items():
        if not isinstance(text, str) or not text or len(text) > 200:
            raise CheckpointError(f"{where}: '{key}' is {_short(text)}; expected a name.")
    names, ids = _listed(where, content, "label_names", str), _listed(where, content, "category_ids", int)
    if len(set(ids)) != len(ids):
        raise CheckpointError(f"{where}: 'category_ids' holds an id twice.")
    config = _object(where, content, "config")
    if not len(names) == len(ids) == config.get("num_classes"):
        raise CheckpointError(
            f"{where}: {len(names)} label_names, {len(ids)} category_ids and "
            f"num_classes {_short(config.get('num_classes'))} must agree."
        )
    return SavedModel(
        directory=Path(directory),
        architecture=str(texts["architecture"]),
        family=str(texts["family"]),
        config=_known_config(where, config, str(texts["architecture"]), str(texts["family"])),
        label_names=names,
        category_ids=ids,
        data_config=_settings(where, DataConfig, _object(where, content, "data_config")),
        postprocess_config=_settings(where, PostprocessConfig, _object(where, content, "postprocess")),
        recipe=_object(where, content, "recipe"),
    )


def make_config(entry: ModelEntry, overrides: Mapping[str, Any]) -> Any:
    """The configuration of an architecture with some fields changed.

    Args:
        entry: The architecture.
        overrides: Fields to change.

    Raises:
        ConfigError: If a field is unknown (with close ones) or its value cannot work.
    """
    config_class = entry.build.config_class  # type: ignore[attr-defined]
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


def _classes(
    saved: SavedModel, num_classes: int | None, label_names: Sequence[str] | None, weights: bool
) -> dict[str, Any]:
    wanted = num_classes if label_names is None else len(label_names)
    have = len(saved.label_names)
    if wanted in (None, have):
        return {}
    if weights:
        shown = ", ".join(saved.label_names[:5]) + (", ..." if have > 5 else "")
        raise CheckpointError(
            f"'{saved.directory}' was trained for {have} classes ({shown}), but {wanted} are asked for. Its weights "
            f"load only with num_classes={have}; the same architecture with fresh weights for {wanted} is "
            f"create_model('local-dir:{saved.directory}', pretrained=False, num_classes={wanted})."
        )
    return {"num_classes": wanted}


def _labels(
    saved: SavedModel, changes: dict[str, Any], names: Sequence[str] | None, ids: Sequence[int] | None
) -> dict[str, Any]:
    """Labels to build with; the saved ones fit as long as the number of classes is the saved one."""
    if "num_classes" in changes:
        return {"label_names": names, "category_ids": ids}
    return {"label_names": names or saved.label_names, "category_ids": ids or saved.category_ids}


def _check_shapes(saved: SavedModel, config: Any, options: dict[str, Any]) -> None:
    """Compare the file's header with the model on the meta device, before any memory is spent on either."""
    with torch.device("meta"):
        own = saved.entry.build(config, **options).state_dict()
    path = saved.directory / WEIGHTS_NAME
    found = {name: shape for name, (shape, _) in tensor_shapes(path).items()}
    compare(str(path), found, own).require(config.num_classes)


def _known_config(where: str, config: dict[str, Any], architecture: str, family: str) -> dict[str, Any]:
    """Drop fields of other versions, and refuse a backbone that is anything but a plain name."""
    entry = next((MODELS[name] for name in (architecture, family) if name in MODELS), None)
    if entry is not None:
        known = set(entry.build.config_class.field_names())  # type: ignore[attr-defined]
        _warn_unknown(f"{where}: 'config'", config, known)
        config = {name: value for name, value in config.items() if name in known}
    for name, value in config.items():
        if not isinstance(value, (str, int, float, bool)) or len(str(value)) > 200:
            raise CheckpointError(f"{where}: config field '{name}' is {_short(value)}; expected a number or a name.")
    backbone = str(config.get("backbone", ""))
    if any(mark in backbone for mark in ":/\\"):  # timm would take it for an address and fetch from there
        raise CheckpointError(f"{where}: backbone {_short(backbone)} is not a plain timm name.")
    return config


def _settings(where: str, kind: type[Settings], values: dict[str, Any]) -> Settings:
    """A settings dataclass from saved values; types are those of the defaults."""
    defaults: dict[str, Any] = {item.name: item.default for item in fields(kind)}  # type: ignore[arg-type]
    _warn_unknown(f"{where}: {kind.__name__}", values, set(defaults))
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name not in defaults:
            continue
        expected = type(defaults[name])
        if (expected, type(value)) in ((tuple, list), (float, int)):  # JSON has no tuples, and writes 1.0 as 1
            kept[name] = expected(value)
        elif type(value) is expected:
            kept[name] = value
        else:
            raise CheckpointError(
                f"{where}: {kind.__name__}.{name} is {_short(value)}; expected a {expected.__name__}, "
                f"e.g. {defaults[name]!r}."
            )
    try:
        return kind(**kept)
    except LdHubError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _object(where: str, content: dict[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: '{key}' is {_short(value)}; expected an object.")
    return value


def _listed(where: str, content: dict[str, Any], key: str, kind: type[Any]) -> tuple[Any, ...]:
    value = content.get(key)
    if not isinstance(value, list) or not value or not all(type(item) is kind for item in value):
        raise CheckpointError(f"{where}: '{key}' is {_short(value)}; expected a list of {kind.__name__}.")
    return tuple(value)


def _warn_unknown(where: str, values: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        shown = ", ".join(repr(name[:60]) for name in unknown[:10])
        warnings.warn(
            f"{where} has fields that ld_hub {__version__} does not know, and ignores: {shown}.", stacklevel=3
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
