"""Which models there are: the questions timm's registry answers, and the right name for a near miss."""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ld_hub import catalog
from ld_hub.errors import ConfigError, HubError, MissingFileError, UnknownNameError, unknown_name
from ld_hub.hub import CONFIG_NAME, no_model
from ld_hub.registry import MODELS, ModelEntry, PretrainedCfg

Filters = str | Iterable[str]

SOURCES = ("hf-hub", "local-dir")
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


def list_models(
    filter: Filters = "",
    module: Filters = "",
    pretrained: bool = False,
    exclude_filters: Filters = "",
    *,
    include_tags: bool | None = None,
) -> list[str]:
    """Names of registered models, in natural order.

    Args:
        filter: Shell wildcards; a name is listed if one of them fits. A filter without a tag fits all tags.
        module: Only these families, e.g. ``"gfocal"``.
        pretrained: Only names with weights.
        exclude_filters: Shell wildcards of names to leave out.
        include_tags: List ``name.tag`` instead of ``name``; None means: as `pretrained`.

    Example:
        >>> list_models("gfocal_r18*")  # doctest: +SKIP
        ['gfocal_r18', 'gfocal_r18_bckd_r101', 'gfocal_r18_ld_r18', 'gfocal_r18_ld_r101', 'gfocal_r18_vlr_r101']
    """
    modules = _strings(module)
    tagged = pretrained if include_tags is None else include_tags
    names = []
    for name in MODELS:
        if modules and MODELS[name].family not in modules:
            continue
        tags = MODELS[name].pretrained
        names += [f"{name}.{tag}" for tag in tags] if tagged and tags else [name]
    wanted, unwanted = _expanded(filter, tagged), _expanded(exclude_filters, tagged)
    if wanted:
        names = [name for name in names if _fits(name, wanted)]
    names = [name for name in names if not _fits(name, unwanted) and (not pretrained or _has_weights(name))]
    return sorted(names, key=_natural)


def list_pretrained(filter: Filters = "", exclude_filters: Filters = "") -> list[str]:
    """All ``name.tag`` that have weights; arguments as in `list_models`."""
    return list_models(filter, pretrained=True, exclude_filters=exclude_filters, include_tags=True)


def list_modules() -> list[str]:
    """Families, i.e. the modules of `ld_hub.models` that hold detectors."""
    return sorted({MODELS[name].family for name in MODELS})


def is_model(model_name: str) -> bool:
    """Whether an architecture is registered; a tag is ignored."""
    return split_tag(model_name)[0] in MODELS


def get_pretrained_cfg(model_name: str, allow_unregistered: bool = True) -> PretrainedCfg | None:
    """Where the weights of a name come from.

    Args:
        model_name: ``name`` (its default tag: the first one with weights) or ``name.tag``.
        allow_unregistered: Return None instead of raising for a name without a default tag.

    Raises:
        UnknownNameError: If the model or the tag does not exist, or there are no weights and
            `allow_unregistered` is False.
    """
    name, tag = split_tag(model_name)
    entry = find(name)
    if tag:
        if tag not in entry.pretrained:
            tags = ", ".join(f"{name}.{known}" for known in entry.pretrained)
            have = f"Its tags: {tags}." if tags else f"'{name}' has no published weights in this version."
            raise UnknownNameError(f"Model '{name}' has no weights with the tag '{tag}'. {have}")
        return entry.pretrained[tag]
    chosen = next((cfg for cfg in entry.pretrained.values() if available(cfg)), None)
    if chosen is None and not allow_unregistered:
        raise UnknownNameError(f"Model '{name}' has no published weights in this version.")
    return chosen


def split_tag(model_name: str) -> tuple[str, str]:
    """``"name.tag"`` to ``("name", "tag")``; the tag is empty where there is none."""
    name, _, tag = model_name.partition(".")
    return name, tag


def parse_source(model_name: str) -> tuple[str, str]:
    """``"hf-hub:org/name"`` and ``"org/name"`` to ``("hf-hub", "org/name")``; of registered names the source is empty.

    Args:
        model_name: No directory of this machine, which would go first (`saved_directory`).

    Raises:
        ConfigError: If the prefix is unknown, nothing follows it, or a name without prefix looks like a path.
    """
    if _REPOSITORY.fullmatch(model_name) and not os.path.isdir(model_name.partition("/")[0]):
        return "hf-hub", model_name
    source, colon, rest = model_name.partition(":")
    if not colon or len(source) < 2:  # one letter is a drive of Windows
        if any(mark in model_name for mark in "/\\:"):
            raise ConfigError(
                f"'{model_name}' is neither a registered model nor a directory with a config.json. "
                f"From the Hub it is 'hf-hub:{model_name}', from a directory 'local-dir:PATH'."
            )
        return "", model_name
    source = source.lower().replace("_", "-")
    if source not in SOURCES:
        raise ConfigError(
            f"Unknown source '{source}:' in '{model_name}'; known: {', '.join(f'{s}:' for s in SOURCES)}."
        )
    if not rest:
        raise ConfigError(f"Nothing follows '{source}:' in '{model_name}'.")
    return source, rest


def saved_directory(model_name: str | Path) -> Path | None:
    """The model directory that is meant; None for registered names and for what names no place of this machine.

    Args:
        model_name: A name or a place. A `Path` is always a place; a text is one if there is such a directory and no
            registered model of that name.

    Raises:
        MissingFileError: If there is no such directory, or it holds no model.
        ConfigError: If it is a file.
    """
    place = Path(model_name)
    if isinstance(model_name, str) and (not model_name or is_model(model_name) or not os.path.exists(place)):
        return None
    if place.is_file():
        raise ConfigError(
            f"'{model_name}' is a file, not a model directory. Weights are loaded by "
            "create_model(NAME, checkpoint_path=FILE)."
        )
    if not place.is_dir():
        raise MissingFileError(f"No model directory '{model_name}'.")
    if not (place / CONFIG_NAME).is_file():
        raise no_model(place)
    return place


def find(name: str) -> ModelEntry:
    """The entry of an architecture.

    Raises:
        UnknownNameError: With the right name, where a habit from elsewhere can be recognised, else close ones.
    """
    if name in MODELS:
        return MODELS[name]
    right = right_name(name)
    if right is not None:
        raise UnknownNameError(f"Unknown model '{name}'. Did you mean {right}?")
    known = list_modules()
    hint = MODELS.hint
    if _normal(name).split("_")[0] not in MODELS:
        hint = f"Families in this version: {', '.join(known)}. {hint}"
    raise unknown_name("model", name, MODELS, hint)


def right_name(name: str) -> str | None:
    """The registered name, or the call, that somebody with other habits meant; None where it is not clear.

    Knows spellings of other libraries (``gfl_r50``, ``GFocal-R50``, ``gfocal_v2_r50``, ``gfocal_resnet50``),
    configuration names of OpenMMLab and LD (``ld_r18_gflv1_r101_fpn_coco_1x``), unfinished distilled names
    (``gfocal_r18_ld``) and timm backbones behind a family (``gfocal_convnext_tiny``).
    """
    normal = _normal(name)
    if normal in MODELS:
        return f"'{normal}'"
    longer = [known for known in list_models() if known.startswith(normal + "_")]
    if longer and "_" in normal:
        return " or ".join(f"'{known}'" for known in longer[:4])
    family, _, rest = _VERSION.sub(r"\1\2", name).partition("_")
    family = _normal(family)
    if family in MODELS and rest in timm_architectures():
        return f"create_model('{family}', backbone='{rest}')"
    return None


def require_model(model_name: str | Path) -> None:
    """Refuse what names no model, without making one.

    Args:
        model_name: As of `create_model`.

    Raises:
        UnknownNameError: If the model or its tag does not exist.
        MissingFileError: If there is no such directory, or it holds no model.
        ConfigError: If it is a file, or its source is unknown.
    """
    if saved_directory(model_name) is not None:
        return
    source, place = parse_source(str(model_name))
    if source == "local-dir":
        saved_directory(Path(place))
    elif not source:
        get_pretrained_cfg(place)


def require_weights(model_name: str | Path) -> None:
    """Refuse what names no model with weights, as `require_model`; whether they can be fetched is not asked.

    Raises:
        HubError: If the name has none that could be.
        LdHubError: As `require_model`.
    """
    require_model(model_name)
    if saved_directory(model_name) is None and not parse_source(str(model_name))[0]:
        cfg = get_pretrained_cfg(str(model_name))
        if cfg is None or not available(cfg):
            raise no_weights(str(model_name), cfg)


def no_weights(model_name: str, cfg: PretrainedCfg | None) -> HubError:
    """The error for a name whose weights nobody can fetch.

    Args:
        model_name: With or without a tag.
        cfg: Of its tag, where it has one.
    """
    name = split_tag(model_name)[0]
    if cfg is not None:
        where = f"({cfg.source}) are at no address that lasts ({cfg.note})"
        return HubError(f"The weights of '{model_name}' {where}. {weights_otherwise(model_name)}")
    tags = [f"'{name}.{tag}'" for tag in MODELS[name].pretrained]
    known = f" Published without an address that lasts: {', '.join(tags)}." if tags else ""
    return HubError(
        f"There are no weights for '{name}' to download in this version.{known} {weights_otherwise(model_name)}"
    )


def weights_otherwise(model_name: str) -> str:
    """What else can be done about a name without weights, for messages."""
    return (
        "Weights of your own: checkpoint_path=FILE, or create_model('local-dir:PATH', pretrained=True). "
        f"A published .pth file: `ld-hub convert FILE.pth DIR --model {model_name}`. To train it: pretrained=False, "
        "with pretrained_backbone=True or backbone_checkpoint=FILE."
    )


def require_backbone(name: str, kind: str = "backbone") -> None:
    """Refuse what names no network of timm, without importing timm where nobody has.

    Args:
        name: A backbone's short name, or timm's with or without a tag; addresses on the Hub are left to timm.
        kind: What it is to be, for the message; only backbones have short names.

    Raises:
        UnknownNameError: If timm has no such network; names close ones.
    """
    shorts = catalog.content()["backbones"] if kind == "backbone" else []
    plain, timm = split_tag(name)[0], sys.modules.get("timm")
    if ":" in name or name in shorts or plain in timm_architectures() or (timm is not None and timm.is_model(plain)):
        return
    raise unknown_name(kind, name, [*shorts, *timm_architectures()], f"Any timm model with features fits as a {kind}.")


@lru_cache(maxsize=1)
def timm_architectures() -> frozenset[str]:
    """Names of timm's models, read from its source: importing timm takes seconds."""
    spec = find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    files = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    return frozenset(name for file in files for name in _TIMM_MODEL.findall(file.read_text(encoding="utf-8")))


def available(cfg: PretrainedCfg) -> bool:
    """Whether weights stand behind a tag."""
    return bool(cfg.url or cfg.hf_hub_id or cfg.file)


def close_field(name: str, known: Iterable[str], owner: str) -> ConfigError:
    """The error for an argument that `owner` does not have; lists what it has."""
    fields = sorted(known)
    message = str(unknown_name("argument", name, fields))
    return ConfigError(f"{owner}: {message} Fields of its configuration: {', '.join(fields)}.")


_TIMM_MODEL = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
_FAMILY_HABITS = {
    "gfl": "gfocal",
    "gflv1": "gfocal",
    "gfocalv1": "gfocal",
    "gflv2": "gfocalv2",
    "gfocalnet": "gfocal",
    "gfocalnetv2": "gfocalv2",
    "generalizedfocalloss": "gfocal",
    "retina": "retinanet",
}
_NOISE = {"fpn", "coco", "1x", "2x", "mstrain", "ms2x", "1333x800", "detector"}
_VERSION = re.compile(r"(?i)(?<![a-z0-9])(gfl|gfocal|gfocalnet)_(v[12])(?![a-z0-9])")
_SPELLINGS = (
    (_VERSION, r"\1\2"),
    (re.compile(r"resnext_?(\d+)"), r"x\1"),
    (re.compile(r"res_?net_?(\d+)"), r"r\1"),
    (re.compile(r"(?<![a-z0-9])([rx])_(\d+)"), r"\1\2"),
    (re.compile(r"_?(dconv_c\d_c\d|dcn(v[12])?)(?![a-z0-9])"), "_dcn"),
    (re.compile(r"mobilenet_v2"), "mobilenetv2"),
    (re.compile(r"(?<![a-z0-9])swin_?(t|tiny)$"), "swin_t"),
)
_MMDET_DISTILLED = re.compile(
    r"(ld|vlr|bckd|crosskd|kd)_(\w+?)_(gfl|gflv1|gflv2|gfocal|gfocalv2|atss|fcos|retinanet|retina)_(r\w+|x\w+)"
)


def _normal(name: str) -> str:
    """A name as this library would spell it; not necessarily a registered one."""
    text = re.sub(r"[\s\-]+", "_", name.strip().lower())
    for pattern, ours in _SPELLINGS:
        text = pattern.sub(ours, text)
    parts = [part for part in text.split("_") if part and part not in _NOISE]
    published = _MMDET_DISTILLED.fullmatch("_".join(parts))
    if published:
        recipe, student, family, teacher = published.groups()
        parts = [family, *student.split("_"), recipe, *teacher.split("_")]
    if parts:
        parts[0] = _FAMILY_HABITS.get(parts[0], parts[0])
    return "_".join(parts)


def _strings(value: Filters) -> list[str]:
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


def _expanded(filters: Filters, tagged: bool) -> list[str]:
    """Filters without a tag fit every tag of the names they fit."""
    listed = _strings(filters)
    return listed + [f"{one}.*" for one in listed if tagged and "." not in one]


def _fits(name: str, filters: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, one) for one in filters)


def _has_weights(name: str) -> bool:
    plain, tag = split_tag(name)
    tags = MODELS[plain].pretrained
    return any(available(cfg) for known, cfg in tags.items() if tag in ("", known))


def _natural(name: str) -> list[tuple[int, Any]]:
    """Sort key that puts r18 before r101."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]
