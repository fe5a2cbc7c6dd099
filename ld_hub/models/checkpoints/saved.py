"""Reading the config.json of a model directory: every value is checked, nothing is executed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ld_hub.checked import Scalar, shorten
from ld_hub.errors import CheckpointError, LdHubError
from ld_hub.hub import CONFIG_NAME, read_config
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.preprocessing import DataConfig
from ld_hub.registry import MODELS, ModelEntry
from ld_hub.structures import Teaching
from ld_hub.version import __version__

Settings = TypeVar("Settings", DataConfig, PostprocessConfig)


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
        teaching: How it was distilled, as the trainer recorded it; None if it was not.
    """

    directory: Path
    architecture: str
    family: str
    config: Mapping[str, Scalar]
    label_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    data_config: DataConfig
    postprocess_config: PostprocessConfig
    teaching: Teaching | None = None

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
            raise CheckpointError(f"{where}: '{key}' is {shorten(text)}; expected a name.")
    names, ids = _listed(where, content, "label_names", str), _listed(where, content, "category_ids", int)
    if len(set(ids)) != len(ids):
        raise CheckpointError(f"{where}: 'category_ids' holds an id twice.")
    config = _object(where, content, "config")
    if not len(names) == len(ids) == config.get("num_classes"):
        raise CheckpointError(
            f"{where}: {len(names)} label_names, {len(ids)} category_ids and "
            f"num_classes {shorten(config.get('num_classes'))} must agree."
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
        teaching=Teaching.from_dict(_object(where, content, "recipe"), where) if content.get("recipe") else None,
    )


def _known_config(where: str, config: Mapping[str, Any], architecture: str, family: str) -> Mapping[str, Scalar]:
    """Drop fields of other versions, and refuse a backbone that is anything but a plain name."""
    entry = next((MODELS[name] for name in (architecture, family) if name in MODELS), None)
    if entry is not None:
        known = set(entry.build.config_class.field_names())
        _warn_unknown(f"{where}: 'config'", config, known)
        config = {name: value for name, value in config.items() if name in known}
    for name, value in config.items():
        if not isinstance(value, (str, int, float, bool)) or len(str(value)) > 200:
            raise CheckpointError(f"{where}: config field '{name}' is {shorten(value)}; expected a number or a name.")
    backbone = str(config.get("backbone", ""))
    if any(mark in backbone for mark in ":/\\"):  # timm would take it for an address and fetch from there
        raise CheckpointError(f"{where}: backbone {shorten(backbone)} is not a plain timm name.")
    return config


def _settings(where: str, kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """A settings dataclass from saved values; types are those of the defaults."""
    defaults = vars(kind())
    _warn_unknown(f"{where}: {kind.__name__}", values, set(defaults))
    kept = {}
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
                f"{where}: {kind.__name__}.{name} is {shorten(value)}; expected a {expected.__name__}, "
                f"e.g. {defaults[name]!r}."
            )
    try:
        return kind(**kept)
    except LdHubError as error:
        raise CheckpointError(f"{where}: {error}") from None


def _object(where: str, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: '{key}' is {shorten(value)}; expected an object.")
    return value


def _listed(where: str, content: Mapping[str, Any], key: str, kind: type[Any]) -> tuple[Any, ...]:
    value = content.get(key)
    if not isinstance(value, list) or not value or not all(type(item) is kind for item in value):
        raise CheckpointError(f"{where}: '{key}' is {shorten(value)}; expected a list of {kind.__name__}.")
    return tuple(value)


def _warn_unknown(where: str, values: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        shown = ", ".join(repr(name[:60]) for name in unknown[:10])
        warnings.warn(
            f"{where} has fields that ld_hub {__version__} does not know, and ignores: {shown}.", stacklevel=3
        )
