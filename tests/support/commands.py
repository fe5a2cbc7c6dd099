"""Command lines of `ld_hub.distill`, parsed."""

from __future__ import annotations

from collections.abc import Sequence

from ld_hub.distillation import Recipe
from ld_hub.launch.commands import parse_distill
from ld_hub.launch.flag_parser import Parsed


def distillation(argv: Sequence[str]) -> tuple[Parsed, Recipe, str]:
    """The flags, the recipe with the changes asked for, and the teacher's name or directory."""
    typed = parse_distill(argv)
    return typed.parsed, typed.make_recipe(), typed.teacher
