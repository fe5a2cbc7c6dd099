"""Names to things: the one registry type, used for models, recipes, terms and regions.

The models of the catalogue (`ld_hub.catalog`) are known before the code of their families is imported, so that names
cost nothing.
"""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Generic, TypeVar

from ld_hub import catalog
from ld_hub.checked import Scalar
from ld_hub.errors import ConfigError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary that refuses to overwrite silently and answers near misses.

    Args:
        kind: What is registered, for messages, e.g. ``"recipe"``.
        hint: Appended to the error for unknown names, e.g. how to list them.
    """

    def __init__(self, kind: str, hint: str = "") -> None:
        self.kind, self.hint = kind, hint
        self._entries: dict[str, T] = {}

    def register(self, name: str, entry: T, *, replace: bool = False) -> T:
        """Add an entry.

        Raises:
            ConfigError: If the name is taken and `replace` is False.
        """
        if name in self._entries and not replace:
            raise ConfigError(f"The {self.kind} '{name}' is already registered; pass replace=True to overwrite it.")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown_name(self.kind, name, self._entries, self.hint)
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def match(self, pattern: str = "*") -> list[str]:
        """Names that fit a shell wildcard, sorted."""
        return [name for name in self if fnmatch.fnmatch(name, pattern)]


@dataclass(frozen=True)
class PretrainedCfg:
    """Weights that exist for a model name, under one tag.

    What belongs to these weights and not to the name stands here: classes, settings, preprocessing.

    Attributes:
        url: Where the original file lies; the empty string where there is no stable address.
        sha256: Leading hex digits of its sha256, as published in the file name.
        hf_hub_id: ``org/name`` on the Hub; goes first when set.
        file: Local file or directory; goes before everything.
        num_classes: C of the weights.
        label_names: Names of the C classes; empty for the defaults.
        config: Fields of the family's configuration that differ from the name's.
        data_config: Fields of `DataConfig` that differ from its defaults; empty for what the backbone wants.
        ap: Published average precision in percent, or None.
        metric: What `ap` is, and on which images.
        source: Who made the weights.
        paper: Address of the paper.
        license: SPDX id of the weights; empty where none is stated.
        note: What a user should know before relying on them.
    """

    url: str = ""
    sha256: str = ""
    hf_hub_id: str = ""
    file: str = ""
    num_classes: int = 80
    label_names: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    data_config: Mapping[str, Any] = field(default_factory=dict)
    ap: float | None = None
    metric: str = "COCO val2017 AP"
    source: str = ""
    paper: str = ""
    license: str = ""
    note: str = ""


@dataclass(frozen=True)
class Distilled:
    """What a distilled name stands for: this student, taught by that teacher, by that recipe."""

    student: str
    teacher: str
    recipe: str


@dataclass(frozen=True)
class ModelEntry:
    """One registered architecture name.

    Attributes:
        name: ``family_backbone`` or ``student_recipe_teacherbackbone``.
        family: Module of `ld_hub.models` that builds it.
        builder: Class of the detector, or ``"module:Class"``, which is imported at its first use.
        config: Configuration fields that differ from the family's defaults.
        distilled: Set for distilled names.
        pretrained: Weights by tag; the first tag that has weights is the default.
        terms: Of a family's own name: fields of distillation terms, by term, that its students have differently. What a
            recipe itself says of the family goes first.
    """

    name: str
    family: str
    builder: Any  # a class of ld_hub.models, which this floor does not know
    config: Mapping[str, Scalar] = field(default_factory=dict)
    distilled: Distilled | None = None
    pretrained: dict[str, PretrainedCfg] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=dict)

    @property
    def build(self) -> Any:
        """The detector's class: called with a configuration and options, it returns the detector."""
        if not isinstance(self.builder, str):
            return self.builder
        module, _, name = self.builder.partition(":")
        return getattr(importlib.import_module(module), name)

    @property
    def built_by(self) -> str:
        """``"module:Class"`` of the detector."""
        if isinstance(self.builder, str):
            return self.builder
        return f"{self.builder.__module__}:{self.builder.__qualname__}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without what has its default; the inverse of `from_dict`."""
        usual = PretrainedCfg()
        tags = {
            tag: {f.name: value for f in fields(cfg) if (value := getattr(cfg, f.name)) != getattr(usual, f.name)}
            for tag, cfg in self.pretrained.items()
        }
        taught = self.distilled and asdict(self.distilled)
        parts = {"config": self.config, "distilled": taught, "pretrained": tags, "terms": self.terms}
        return {"family": self.family, "builder": self.built_by, **{key: part for key, part in parts.items() if part}}

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> ModelEntry:
        """An entry of the catalogue; lists of JSON become tuples."""
        tags = {tag: PretrainedCfg(**_tuples(values)) for tag, values in data.get("pretrained", {}).items()}
        distilled = Distilled(**data["distilled"]) if "distilled" in data else None
        config, terms = _tuples(data.get("config", {})), _tuples(data.get("terms", {}))
        return cls(name, data["family"], data["builder"], config, distilled, tags, terms)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings within as dictionaries, lists as tuples."""
    return {
        key: tuple(value) if isinstance(value, list) else _tuples(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }


class ModelRegistry(Registry[ModelEntry]):
    """The models: at first those of the catalogue, whose families are imported when one is built."""

    def __init__(self, kind: str, hint: str = "") -> None:
        super().__init__(kind, hint)
        self._catalogued = {
            name: ModelEntry.from_dict(name, data) for name, data in catalog.content()["models"].items()
        }
        self._entries.update(self._catalogued)

    def register(self, name: str, entry: ModelEntry, *, replace: bool = False) -> ModelEntry:
        """Add an entry. A family's module, when it is imported, repeats what the catalogue says of its names.

        Raises:
            ConfigError: If the name is taken and `replace` is False.
        """
        known = self._entries.get(name)
        if known is not None and isinstance(known.builder, str):
            if replace:
                known.build  # noqa: B018  # the family's module comes first, and not afterwards over this entry
            elif known.built_by == entry.built_by:
                if known is not self._catalogued.get(name):
                    return known  # replaced already
                replace = True
        return super().register(name, entry, replace=replace)


MODELS = ModelRegistry("model", "List them with `ld-hub list` or ld_hub.list_models().")
# Recipes and kinds of terms are registered when `ld_hub.distillation` is imported; before that the catalogue has them.
RECIPES: Registry[Any] = Registry("recipe", "List them with `ld-hub recipes` or ld_hub.list_recipes().")
AUTO = "auto"  # the recipe we stand for; of teachers that it does not suit, what suits them
FEATURE_RECIPE = "cosine"  # of an image encoder: alone where no other is asked for, beside a detector always
