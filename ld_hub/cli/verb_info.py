"""`ld-hub info`: what a model is."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from ld_hub import catalog
from ld_hub.catalog import ModelFacts
from ld_hub.models.names import available, require_model, saved_directory, split_tag
from ld_hub.registry import MODELS, RECIPES, PretrainedCfg

INDENT = 15  # columns of a row's title


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
    parser.add_argument("--measure", action="store_true", help="build a registered model, instead of looking it up")


def run(args: argparse.Namespace) -> int:
    """Print the facts."""
    require_model(args.model)
    registered = saved_directory(args.model) is None and ":" not in args.model
    name, tag = split_tag(args.model) if registered else (args.model, "")
    facts = catalog.model_facts(name, tag) if registered and not args.measure else None
    taught: list[tuple[str, str]] | None = None
    if facts is None:
        facts, taught = measure(args.model)
    print(describe(facts, tag, taught))
    return 0


def measure(name: str) -> tuple[ModelFacts, list[tuple[str, str]] | None]:
    """What a model is, found by building it without memory for its weights, and who taught it; None if nobody did.

    Args:
        name: Registered name with or without tag, ``local-dir:PATH``, ``hf-hub:org/name``, or a model directory.
    """
    import warnings

    import torch

    from ld_hub.benchmark.profile import facts_of
    from ld_hub.models.checkpoints.pretrained import load_pretrained
    from ld_hub.models.factory import create_model

    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fresh weights")  # none are wanted here
        directory = saved_directory(name)
        model = create_model(name) if directory is None else load_pretrained(directory, weights=False)
        teaching = model.teaching
        if teaching is None:
            return facts_of(model), None
        rows = [("teacher", teaching.who()), ("recipe", f"{teaching.recipe}: {teaching.summary}"),
                ("no labels", teaching.without_labels())]  # fmt: skip
        return facts_of(model), [(title, text) for title, text in rows if text]


def describe(facts: ModelFacts, tag: str = "", taught: list[tuple[str, str]] | None = None) -> str:
    """Everything `ld-hub info` prints, in lines of at most 80 columns.

    Args:
        facts: What the model is.
        tag: Only these weights of its name; the empty string for all.
        taught: Rows of who taught these very weights; None for those of the name.
    """
    rows = [
        ("model", facts.name),
        ("family", facts.family),
        ("backbone", facts.backbone),
        ("classes", facts.classes),
        ("parameters", f"{facts.parameters / 1e6:.2f} M, {facts.trainable / 1e6:.2f} M trainable"),
        ("multiply-adds", f"{facts.multiply_adds / 1e9:.2f} G at {facts.size[1]}x{facts.size[0]} "
                          "(without decoding and NMS)"),
        *(_distilled_rows(facts.name) if taught is None else taught),
        ("input", facts.input),
        ("resize", facts.resize),
        ("detections", facts.detections),
    ]  # fmt: skip
    lines = [line for title, text in rows for line in _wrapped(f"{title:<{INDENT}}{text}", INDENT)]
    return "\n".join([*lines, "", *_layers(facts), "", *_weights(facts.name, tag)])


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


def _layers(facts: ModelFacts) -> list[str]:
    """Of each part its kind, its parameters and multiply-adds, and below them its settings."""
    lines = [f"{'part':<{INDENT}}{'module':<16}{'parameters':>12}{'multiply-adds':>16}"]
    for part in facts.parts:
        size, adds = part.parameters / 1e6, part.multiply_adds / 1e9
        lines.append(f"{part.name:<{INDENT}}{part.kind:<16}{size:>10.2f} M{adds:>14.2f} G")
        lines += _wrapped(part.settings, INDENT, INDENT)
    return lines


def _distilled_rows(name: str) -> list[tuple[str, str]]:
    distilled = MODELS[name].distilled if name in MODELS else None
    if distilled is None:
        return []
    known = catalog.recipes().get(distilled.recipe)
    summary = known.summary if known is not None else RECIPES[distilled.recipe].summary
    return [
        ("student", distilled.student), ("teacher", distilled.teacher), ("recipe", f"{distilled.recipe}: {summary}")
    ]  # fmt: skip


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
    if isinstance(value, tuple):
        return "/".join(f"{each:.10g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
