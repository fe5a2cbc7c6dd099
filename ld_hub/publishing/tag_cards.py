"""Cards of the published weights that the registry knows: what their authors say, and what is known about them here."""

from __future__ import annotations

from copy import copy
from functools import lru_cache
from typing import Any

import torch

from ld_hub.hub.card_file import card_metadata, escape, fence, render_card, table
from ld_hub.models.checkpoints.pretrained import make_config
from ld_hub.models.checkpoints.published import tag_config, tag_options
from ld_hub.models.checkpoints.weights import NO_FILE
from ld_hub.models.names import available, get_pretrained_cfg, list_models, split_tag
from ld_hub.publishing.cards import (
    architecture,
    card_tags,
    citation_section,
    published_table,
    recipe_section,
    size_section,
)
from ld_hub.publishing.facts import backbone_license, backbone_repo, published_rows
from ld_hub.publishing.taught import code
from ld_hub.registry import MODELS, PretrainedCfg
from ld_hub.structures import Teaching

DATASETS = {"COCO": "coco", "VOC": "pascal-voc"}  # by what a metric's name begins with


def registered_tags() -> list[str]:
    """Every ``name.tag`` of the registry, in natural order."""
    return [name for name in list_models(include_tags=True) if split_tag(name)[1]]


def tag_card(full_name: str, teaching: Teaching | None = None) -> str:
    """The card of published weights.

    Args:
        full_name: ``name.tag``.
        teaching: By the name's recipe and teacher, if it is a distilled name.

    Returns:
        Markdown with YAML metadata.

    Raises:
        UnknownNameError: If there are no such weights.
    """
    name, _ = split_tag(full_name)
    cfg = get_pretrained_cfg(full_name, allow_unregistered=False)
    assert cfg is not None  # noqa: S101
    model = _skeleton(name, cfg)
    metadata = card_metadata(
        full_name,
        license=cfg.license or None,
        datasets=[value for word, value in DATASETS.items() if cfg.metric.startswith(word)],
        base_model=backbone_repo(model.config.backbone),
        tags=card_tags(model.family, teaching),
    )
    sections = [
        _lead(model, name),
        _use(full_name, cfg),
        _average_precision(full_name, cfg),
        recipe_section(teaching, "The terms as this library has them, with their published weights."),
        size_section(model),
        _weights(cfg),
        _licences(cfg, model.config.backbone),
        citation_section(model, teaching, cfg.paper),
    ]
    return render_card(metadata, full_name, sections)


def index_card() -> str:
    """A table of all cards, as ``model_cards/README.md``."""
    rows = []
    for full in registered_tags():
        cfg = MODELS[split_tag(full)[0]].pretrained[split_tag(full)[1]]
        rows.append(
            [
                f"[`{full}`]({full}.md)",
                "" if cfg.ap is None else f"{cfg.ap:.1f}",
                escape(cfg.metric),
                escape(cfg.source),
                "a file at an address" if available(cfg) else "no file" if cfg.note == NO_FILE else "a file to ask for",
            ]
        )
    text = (
        "# Model cards\n\nOne card for each pretrained tag of the registry, `name.tag.md`, written by "
        "`ld-hub card --all`; a test\nkeeps them in step. AP is what the authors published. None of it was measured by "
        "this library, and none of the files\nwas run: each card says what the converter was tested on. Cards of "
        "models trained with this library take AP from `ld-hub\neval` alone, and `ld-hub verify` checks them.\n\n"
    )
    return text + table(["weights", "AP", "on", "published by", "weights are"], rows) + "\n"


@lru_cache
def _structure(build: Any, config: Any) -> Any:
    with torch.device("meta"):
        return build(config)


def _skeleton(name: str, cfg: PretrainedCfg) -> Any:
    """The detector of some weights, without memory for them; tags of the same structure share its layers."""
    entry = MODELS[name]
    model, options = copy(_structure(entry.build, make_config(entry, tag_config(cfg)))), tag_options(cfg)
    model.name, model.data_config = name, options.get("data_config", model.data_config)
    model.set_labels(options.get("label_names"))
    return model


def _lead(model: Any, name: str) -> str:
    distilled = MODELS[name].distilled
    if distilled is None:
        return architecture(model)
    return (
        f"{architecture(model)} Student {code(distilled.student)}, distilled from {code(distilled.teacher)} by the "
        f"recipe {code(distilled.recipe)}."
    )


def _use(full_name: str, cfg: PretrainedCfg) -> str:
    name = split_tag(full_name)[0]
    if cfg.note == NO_FILE:
        if MODELS[name].distilled is None:
            return ""
        return f"## Use\n\nTo train it:\n\n{fence(f'accelerate launch -m ld_hub.distill {name} --data coco/', 'sh')}"
    how = "pretrained=True" if available(cfg) else 'checkpoint_path="FILE.pth"'
    lines = [
        "import ld_hub",
        "",
        f'model = ld_hub.create_model("{full_name}", {how})',
        'print(model.predict("photo.jpg", threshold=0.3))',
    ]
    return f"## Use\n\n{fence(chr(10).join(lines), 'python')}"


def _average_precision(full_name: str, cfg: PretrainedCfg) -> str:
    """Published figures: these weights', their teacher's, and those of the student alone on the same schedule."""
    name, tag = split_tag(full_name)
    rows = [("these weights", full_name, cfg)] if cfg.ap is not None else []
    distilled = MODELS[name].distilled
    if distilled is not None:
        rows += [("teacher", full, other) for full, other in published_rows(distilled.teacher) if _alike(other, cfg)]
        schedule = tag.partition("_")[2]
        rows += [
            ("without distillation", full, other)
            for full, other in published_rows(distilled.student)
            if _alike(other, cfg) and full.endswith(f"_{schedule}")
        ]
    if not rows:
        return ""
    return f"## Average precision\n\nAs published; this library has not measured it.\n\n{published_table(rows)}"


def _alike(one: PretrainedCfg, other: PretrainedCfg) -> bool:
    return one.metric == other.metric and one.label_names == other.label_names


def _weights(cfg: PretrainedCfg) -> str:
    lines = [f"File: <{cfg.url}> (sha256 starts with `{cfg.sha256}`)." if cfg.url else "", escape(_sentence(cfg.note))]
    return "## Weights\n\n" + " ".join(line for line in lines if line)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _licences(cfg: PretrainedCfg, backbone: str) -> str:
    lines = [f"Weights: {escape(cfg.license)}." if cfg.license else "Its authors state no licence for the weights."]
    base = backbone_repo(backbone)
    if base:
        lines.append(f"Backbone: [{base}](https://huggingface.co/{base}), {escape(backbone_license(backbone))}.")
    if cfg.metric.startswith("COCO"):
        lines.append("Trained on COCO 2017: annotations CC BY 4.0; the images are under the terms of Flickr.")
    return f"## Data and licences\n\n{' '.join(lines)}"
