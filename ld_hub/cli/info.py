"""`ld-hub info`: what a model is, without building it in memory."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from torch import nn

from ld_hub.distillation import get_recipe
from ld_hub.models.backbones import timm_name
from ld_hub.models.detector import DenseDetector
from ld_hub.models.factory import create_model
from ld_hub.models.names import parse_source, saved_directory, split_tag
from ld_hub.models.pretrained import load_pretrained
from ld_hub.models.profile import multiply_adds, params
from ld_hub.registry import MODELS, PretrainedCfg

SIZE = (800, 1280)  # height, width: the published tables' "1280x800"


def add_parser(subparsers: Any) -> None:
    """Add the verb's arguments to the frame's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "info",
        help="what a model is",
        description="Parameters, multiply-adds, layers, weights and data settings of a model; for a distilled "
        "name also its student, teacher and recipe.",
        epilog="example: ld-hub info gfocal_r50_ld_r101",
    )
    parser.add_argument("model", help="registered name, or the directory of a saved model")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    model = build_on_meta(args.model)
    print(describe(model))
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
        if not parse_source(name)[0]:
            name = split_tag(name)[0]
        return create_model(name)


def describe(model: DenseDetector) -> str:
    """Everything `ld-hub info` prints."""
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
        *_weight_rows(model.name),
        ("input", f"{data.channel_order}, mean {_numbers(data.mean)}, std {_numbers(data.std)}"),
        ("resize", f"short side {data.image_size[0]}, long side at most {data.image_size[1]} px, "
                   f"padded to a multiple of {data.size_divisor}"),
        ("detections", f"score > {shown.score_threshold:g}, NMS at IoU {shown.nms_iou:g}, "
                       f"at most {shown.max_detections} per image"),
    ]  # fmt: skip
    width = max(len(title) for title, _ in rows)
    facts = "\n".join(f"{title:<{width}}  {text}" for title, text in rows)
    return f"{facts}\n\n{_layers(model, cost)}"


def _layers(model: DenseDetector, cost: dict[str, int]) -> str:
    """One line per part: its kind, its parameters and multiply-adds, and its settings."""
    config = model.config
    settings = {
        "backbone": f"channels {', '.join(map(str, model.backbone.channels))} at strides 8, 16, 32; "
        f"{config.frozen_stages or 'no'} stage(s) frozen" + (" with the stem" if config.frozen_stages else ""),
        "neck": f"{config.fpn_channels} channels, {len(model.spec.strides)} levels",
        "head": f"{config.head_depth} convolutions of {config.head_width} channels per tower; "
        + ("plain boxes" if model.spec.reg_max is None else f"{model.spec.reg_max + 1} bins per box side"),
    }
    lines = [f"{'part':<10}{'module':<14}{'params':>10}{'mult-adds':>12}   settings"]
    for name, child in model.named_children():
        lines.append(
            f"{name:<10}{_kind(child):<14}{params(child).total / 1e6:>8.2f} M{cost.get(name, 0) / 1e9:>10.2f} G   "
            f"{settings.get(name, '')}".rstrip()
        )
    return "\n".join(lines)


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


def _weight_rows(name: str) -> list[tuple[str, str]]:
    if name not in MODELS:
        return []
    tags = MODELS[name].pretrained
    if not tags:
        return [("weights", "none published in this version")]
    return [("weights" if i == 0 else "", _weights(f"{name}.{tag}", cfg)) for i, (tag, cfg) in enumerate(tags.items())]


def _weights(name: str, cfg: PretrainedCfg) -> str:
    facts = [f"COCO AP {cfg.ap:.1f} as published, not run here" if cfg.ap is not None else "", cfg.source, cfg.license]
    return f"{name} ({'; '.join(fact for fact in facts if fact)})"


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
