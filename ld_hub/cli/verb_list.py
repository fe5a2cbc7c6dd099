"""`ld-hub list`: which models there are."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from ld_hub.errors import UnknownNameError
from ld_hub.models.names import available, list_models, right_name
from ld_hub.registry import MODELS, PretrainedCfg


def add_parser(subparsers: Any) -> None:
    """Add the verb's arguments to the frame's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "list",
        help="list model names",
        description="List model names, by wildcard.",
        epilog="example: ld-hub list 'gfocal_r50*'",
    )
    parser.add_argument("pattern", nargs="?", default="", help="shell wildcard, in quotes; a plain word fits anywhere")
    parser.add_argument("--pretrained", action="store_true", help="only names with weights, with their tags")
    parser.add_argument("--markdown", action="store_true", help="a table with teacher, recipe and weights")


def run(args: argparse.Namespace) -> int:
    """Print the names.

    Raises:
        UnknownNameError: If none fits.
    """
    pattern = args.pattern
    if pattern and not any(mark in pattern for mark in "*?["):
        pattern = f"*{pattern}*"
    names = list_models(pattern, pretrained=args.pretrained)
    if not names:
        raise UnknownNameError(_nothing(args.pattern, args.pretrained))
    print(markdown(names) if args.markdown else "\n".join(names))
    return 0


def markdown(names: list[str]) -> str:
    """A table of the names with weights or a teacher (model_cards/README.md), and a sentence that lists the others.

    Args:
        names: Registered names, with or without tags.
    """
    rows, others = [], []
    for name in names:
        plain, _, tag = name.partition(".")
        entry, teacher, recipe = MODELS[plain], "", ""
        if entry.distilled is not None:
            teacher, recipe = f"`{entry.distilled.teacher}`", entry.distilled.recipe
        tags = {known: cfg for known, cfg in entry.pretrained.items() if tag in ("", known) and available(cfg)}
        weights = ", ".join(_weights(known, cfg) for known, cfg in tags.items())
        if teacher or weights:
            rows.append(f"| `{plain}` | {teacher} | {recipe} | {weights} |")
        else:
            others.append(f"`{plain}`")
    head = ["| model | taught by | recipe | weights (AP on COCO val2017, as published) |", "|---|---|---|---|"]
    blocks = ["\n".join(head + rows)] if rows else []
    if others:
        blocks.append("\n".join(textwrap.wrap(f"To be trained: {', '.join(others)}.", 118, break_on_hyphens=False)))
    return "\n\n".join(blocks)


def _weights(tag: str, cfg: PretrainedCfg) -> str:
    return f"`{tag}`" + ("" if cfg.ap is None else f" ({cfg.ap:.1f})")


def _nothing(pattern: str, pretrained: bool) -> str:
    if pretrained and list_models(f"*{pattern}*" if pattern else ""):
        return f"No model{f' that fits {pattern!r}' if pattern else ''} has published weights in this version."
    right = right_name(pattern)
    hint = f"Did you mean {right}?" if right else f"There are {len(list_models())} models; `ld-hub list` shows all."
    return f"No model fits '{pattern}'. {hint}"
