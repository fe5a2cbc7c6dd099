"""`ld-hub info`: what a model is, without building it in memory."""

from __future__ import annotations

import argparse
import textwrap
import warnings
from typing import Any

import torch
from torch import nn

from ld_hub.benchmark.profile import multiply_adds, params
from ld_hub.distillation import get_recipe
from ld_hub.models.backbones import timm_name
from ld_hub.models.checkpoints.pretrained import load_pretrained
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.models.names import available, parse_source, saved_directory, split_tag
from ld_hub.registry import MODELS, PretrainedCfg

SIZE = (800, 1280)  # height, width: the published tables' "1280x800"
INDENT = 15  # columns of a row's title
PREFILTERS = {"location": "locations", "pair": "pairs of location and class"}


def add_parser(subparsers: Any) -> None:
    """Add the verb's arguments to the frame's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "info",
        help="what a model is",
        description="Parameters, multiply-adds, layers, weights and data settings of a model; for a distilled "
        "name also its student, teacher and recipe.",
        epilog="example: ld-hub info gfocal_r50_ld_r101",
    )
    parser.add_argument("model", help="registered name with or without tag, or the directory of a saved model")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    directory = saved_directory(args.model)
    tag = "" if directory is not None or parse_source(args.model)[0] else split_tag(args.model)[1]
    print(describe(build_on_meta(args.model), tag))
    return 0


def build_on_meta(name: str) -> DenseDetector:
    """The model without memory for its weights.

    Args:
        name: Registered name with or without tag, ``local-dir:PATH``, ``hf-hub:org/name``, or a model directory.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fresh weights")  # none are wanted here
        directory = saved_directory(name)
        if directory is not None:
            model: DenseDetector = load_pretrained(directory, weights=False)
            return model
        return create_model(name)


def describe(model: DenseDetector, tag: str = "") -> str:
    """Everything `ld-hub info` prints, in lines of at most 80 columns.

    Args:
        model: A detector; may lie on the meta device.
        tag: Only these weights of its name; the empty string for all.
    """
    count, cost = params(model), multiply_adds(model, SIZE)
    data, shown = model.data_config, model.postprocess_config
    rows = [
        ("model", model.name),
        ("family", model.family),
        ("backbone", f"{model.config.backbone} ({timm_name(model.config.backbone)})"),
        ("classes", _labels(model)),
        ("parameters", f"{count.total / 1e6:.2f} M, {count.trainable / 1e6:.2f} M trainable"),
        ("multiply-adds", f"{sum(cost.values()) / 1e9:.2f} G at {SIZE[1]}x{SIZE[0]} (without decoding and NMS)"),
        *_distilled_rows(model.name),
        ("input", f"{data.channel_order}, mean {_numbers(data.mean)}, std {_numbers(data.std)}"),
        ("resize", f"short side {data.image_size[0]}, long side at most {data.image_size[1]} px, "
                   f"padded to a multiple of {data.size_divisor}"),
        ("detections", f"score > {shown.score_threshold:g}, the best {shown.nms_pre} {PREFILTERS[shown.prefilter]} "
                       f"of each level, {'' if shown.nms == 'hard' else f'{shown.nms} '}NMS at IoU {shown.nms_iou:g}, "
                       f"at most {shown.max_detections} per image"),
    ]  # fmt: skip
    facts = [line for title, text in rows for line in _wrapped(f"{title:<{INDENT}}{text}", INDENT)]
    return "\n".join([*facts, "", *_layers(model, cost), "", *_weights(model.name, tag)])


def _wrapped(text: str, indent: int, first: int = 0) -> list[str]:
    """Lines of at most 80 columns; those after the first are indented. No word is broken."""
    return textwrap.wrap(
        text,
        width=80,
        initial_indent=" " * first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _layers(model: DenseDetector, cost: dict[str, int]) -> list[str]:
    """Of each part its kind, its parameters and multiply-adds, and below them its settings."""
    config = model.config
    settings = {
        "backbone": f"channels {', '.join(map(str, model.backbone.channels))} at strides 8, 16, 32; "
        f"{config.frozen_stages or 'no'} stage(s) frozen" + (" with the stem" if config.frozen_stages else ""),
        "neck": f"{config.fpn_channels} channels, {len(model.spec.strides)} levels",
        "head": f"{config.head_depth} convolutions of {config.head_width} channels per tower; "
        + ("plain boxes" if model.spec.reg_max is None else f"{model.spec.reg_max + 1} bins per box side"),
    }
    lines = [f"{'part':<{INDENT}}{'module':<16}{'parameters':>12}{'multiply-adds':>16}"]
    for name, child in model.named_children():
        size, adds = params(child).total / 1e6, cost.get(name, 0) / 1e9
        lines.append(f"{name:<{INDENT}}{_kind(child):<16}{size:>10.2f} M{adds:>14.2f} G")
        lines += _wrapped(settings.get(name, ""), INDENT, INDENT)
    return lines


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def _labels(model: DenseDetector) -> str:
    names = model.label_names
    return f"{len(names)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"


def _distilled_rows(name: str) -> list[tuple[str, str]]:
    distilled = MODELS[name].distilled if name in MODELS else None
    if distilled is None:
        return []
    recipe = f"{distilled.recipe}: {get_recipe(distilled.recipe).summary}"
    return [("student", distilled.student), ("teacher", distilled.teacher), ("recipe", recipe)]


def _weights(name: str, only: str) -> list[str]:
    """The tags of a name, each with what its authors say and what is known about it here."""
    tags = MODELS[name].pretrained if name in MODELS else {}
    if not tags:
        return [f"{'weights':<{INDENT}}none published in this version"]
    default = next((tag for tag, cfg in tags.items() if available(cfg)), "")
    lines: list[str] = []
    for tag, cfg in tags.items():
        if only in ("", tag):
            title = "" if lines else "weights"
            lines.append(f"{title:<{INDENT}}{name}.{tag}{' (default)' * (tag == default)}")
            lines += [line for text in _tag_facts(cfg) for line in _wrapped(text, INDENT + 4, INDENT + 2)]
    return lines


def _tag_facts(cfg: PretrainedCfg) -> list[str]:
    settings = [f"{name}={_shown(value)}" for name, value in {**cfg.config, **cfg.data_config}.items()]
    if cfg.label_names:
        settings.insert(0, f"{cfg.num_classes} classes ({', '.join(cfg.label_names[:3])}, ...)")
    facts = [
        f"{cfg.metric} {cfg.ap:.1f} as published, not measured here" if cfg.ap is not None else "",
        ", ".join(fact for fact in (cfg.source, cfg.license or "licence not stated", cfg.paper) if fact),
        f"its own settings: {', '.join(settings)}" if settings else "",
        cfg.note,
    ]
    return [fact for fact in facts if fact]


def _shown(value: Any) -> str:
    return _numbers(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:.10g}" for value in values)
