"""`create_model`: a name does everything."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ld_hub.errors import ConfigError, HubError, UnknownNameError
from ld_hub.hub import download
from ld_hub.models.checkpoints.convert import load_checkpoint
from ld_hub.models.checkpoints.pretrained import load_pretrained, make_config
from ld_hub.models.checkpoints.published import model_directory, tag_config, tag_options
from ld_hub.models.detector import DenseDetector
from ld_hub.models.detector_config import BuildOptions
from ld_hub.models.names import find, get_pretrained_cfg, no_weights, parse_source, saved_directory, split_tag
from ld_hub.registry import MODELS, PretrainedCfg


def create_model(
    model_name: str | Path,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    label_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    pretrained_backbone: bool = False,
    backbone_checkpoint: str | Path | None = None,
    checkpoint_path: str | Path | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    **config_overrides: Any,
) -> DenseDetector:
    """Make a detector.

    Args:
        model_name: A registered name, ``"gfocal_r50"``, or ``"name.tag"`` for certain weights, with the classes and
            settings that belong to them (see `list_models`); ``"local-dir:PATH"`` or ``"hf-hub:org/name@revision"``
            for a saved model, as in timm; or a directory that `save_pretrained` wrote: always with its weights.
        pretrained: Load the weights of the name; they are downloaded once. The backbone's own are then not needed.
        num_classes: C; 80 unless `label_names` or the tag says otherwise.
        label_names: Names of the classes, in the order of the logits.
        category_ids: The data set's ids of the classes, for results in COCO format.
        pretrained_backbone: Start the backbone from timm's weights (fetched once). False never downloads anything.
        backbone_checkpoint: safetensors file with the backbone's weights under timm's names; no download.
        checkpoint_path: Weights of the whole detector: ours (``.safetensors`` or a model directory) or an
            OpenMMLab, LD or BCKD ``.pth`` file.
        cache_dir: Cache of downloads; by default huggingface_hub's own, and for published ``.pth`` files
            ``$LD_HUB_CACHE`` or ``~/.cache/ld_hub``.
        token: Access token of the Hub for private repositories, or True to require the stored one; goes nowhere else.
        **config_overrides: Fields of the family's configuration; None leaves one as it is. Every family has those of
            `DetectorConfig`: ``backbone`` (a short name or any timm model with features at strides 8, 16 and 32),
            ``in_chans``, ``fpn_channels``, ``head_width``, ``head_depth``, ``frozen_stages``, ``norm_eval``. With
            bins ``reg_max``, the largest box-edge distance in strides; with anchors ``anchor_scale``, their side.

    Returns:
        The detector; in eval mode if weights were loaded, in training mode otherwise.

    Raises:
        UnknownNameError: If the model or tag does not exist; names close ones.
        ConfigError: If an argument does not exist, cannot work or contradicts another.
        CheckpointError: If weights do not fit.
        HubError: If weights are asked for that cannot be had.
    """
    overrides = {name: value for name, value in config_overrides.items() if value is not None}
    classes = _count_classes(num_classes, label_names, category_ids)
    options: BuildOptions = {"label_names": label_names, "category_ids": category_ids, "cache_dir": cache_dir}
    if checkpoint_path is None:  # else full weights follow: the backbone's own are not needed
        options |= {"pretrained_backbone": pretrained_backbone, "backbone_checkpoint": backbone_checkpoint}
    place, weights = _locate(model_name, pretrained and checkpoint_path is None, cache_dir, token)
    if place is None:
        return _with_checkpoint(_fresh(str(model_name), classes, overrides, options), checkpoint_path, classes)
    weights = weights and checkpoint_path is None
    model: DenseDetector = load_pretrained(
        place, weights=weights, num_classes=classes, config_overrides=overrides, **options
    )
    if not weights and checkpoint_path is None:
        warnings.warn(f"'{model_name}' is built with fresh weights; pretrained=True loads its own.", stacklevel=2)
    return _with_checkpoint(model, checkpoint_path, classes)


def model_entrypoint(model_name: str, module_filter: str | None = None) -> Callable[..., DenseDetector]:
    """A function that builds one architecture, as timm's entry points do; a tag is ignored.

    Args:
        model_name: Registered name.
        module_filter: Family it has to belong to.

    Returns:
        ``function(pretrained=False, **arguments of create_model)``, whose ``__name__`` is the model's.

    Raises:
        UnknownNameError: If there is no such model in that family.
    """
    entry = find(split_tag(model_name)[0])
    if module_filter and entry.family != module_filter:
        raise UnknownNameError(f"Model '{entry.name}' belongs to the family '{entry.family}', not '{module_filter}'.")

    def entrypoint(pretrained: bool = False, **arguments: Any) -> DenseDetector:
        return create_model(entry.name, pretrained, **arguments)

    entrypoint.__name__ = entrypoint.__qualname__ = entry.name
    entrypoint.__doc__ = f"`create_model('{entry.name}', pretrained, ...)`."
    return entrypoint


def find_weights(model_name: str | Path, cache_dir: str | Path | None = None) -> Path:
    """The model directory that `create_model(model_name, pretrained=True)` loads; fetched where it is not here yet.

    Args:
        model_name: As of `create_model`.
        cache_dir: As of `create_model`.

    Raises:
        HubError: If there are no weights to be had; and as `create_model`.
    """
    place, _ = _locate(model_name, True, cache_dir)
    if place is None:  # pragma: no cover  # pretrained names always have a place, or raise
        raise HubError(f"There are no weights of '{model_name}'.")
    return place


def _locate(
    model_name: str | Path, pretrained: bool, cache_dir: str | Path | None, token: str | bool | None = None
) -> tuple[Path | None, bool]:
    """``(directory of a saved model, load its weights)``; None where a registered name is built afresh."""
    directory = saved_directory(model_name)
    if directory is not None:
        return directory, True
    model_name = str(model_name)
    source, place = parse_source(model_name)
    if source == "local-dir":
        if not Path(place).is_dir():
            raise ConfigError(f"'{model_name}': there is no directory '{place}'.")
        return Path(place), pretrained
    if source:
        repo, _, revision = place.partition("@")
        return download(repo, revision or None, cache_dir=cache_dir, token=token, weights=pretrained), pretrained
    cfg = get_pretrained_cfg(model_name)  # also refuses unknown names and tags
    if not pretrained:
        return None, False
    return _published(model_name, cfg, cache_dir, token), True


def _fresh(model_name: str, classes: int | None, overrides: Mapping[str, Any], options: BuildOptions) -> DenseDetector:
    """A registered architecture with new weights; a tag brings the classes and settings of its weights."""
    name, tag = split_tag(model_name)
    entry = find(name)
    config, own = dict(overrides), options.copy()
    if classes is not None:
        config["num_classes"] = classes
    if tag:
        cfg = entry.pretrained[tag]
        config = {**tag_config(cfg), **config}
        brought = tag_options(cfg)
        if config["num_classes"] != cfg.num_classes or own["label_names"] is not None:
            brought.pop("label_names", None)
        if overrides.keys() & {"backbone", "in_chans"}:  # then the images of the tag's weights are not this model's
            brought.pop("data_config", None)
        own |= brought
    model: DenseDetector = entry.build(make_config(entry, config), name=entry.name, **own)
    return model


def _published(
    model_name: str, cfg: PretrainedCfg | None, cache_dir: str | Path | None, token: str | bool | None
) -> Path:
    """The model directory behind a tag."""
    if cfg is not None and cfg.file:
        return Path(cfg.file)
    if cfg is not None and cfg.hf_hub_id:
        try:
            return download(cfg.hf_hub_id, cache_dir=cache_dir, token=token)
        except HubError:
            if not cfg.url:
                raise  # else the original file, which may be converted already
    if cfg is not None and cfg.url:
        try:
            return model_directory(MODELS[split_tag(model_name)[0]], cfg, cache_dir)
        except HubError as error:
            raise HubError(f"The weights of '{model_name}' are not here: {error}") from None
    raise no_weights(model_name, cfg)


def _with_checkpoint(model: DenseDetector, path: str | Path | None, classes: int | None) -> DenseDetector:
    if path is not None:
        load_checkpoint(model, path, new_classes=classes is not None)
        model.eval()
    return model


def _count_classes(
    num_classes: int | None, label_names: Sequence[str] | None, category_ids: Sequence[int] | None
) -> int | None:
    """C, from whichever argument tells it; all that do must agree."""
    if isinstance(label_names, str):
        raise ConfigError(f"label_names is the text {label_names!r}; expected a list of names.")
    told = {"num_classes": num_classes}
    told |= {"label_names": None if label_names is None else len(label_names)}
    told |= {"category_ids": None if category_ids is None else len(category_ids)}
    counts = {name: count for name, count in told.items() if count is not None}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise ConfigError(f"The number of classes is not clear ({found}); they must agree.")
    if category_ids is not None and len(set(category_ids)) != len(category_ids):
        raise ConfigError("category_ids holds an id twice.")
    return next(iter(counts.values()), None)
