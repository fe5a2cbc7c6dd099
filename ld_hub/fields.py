"""Fields of a dataclass as data: name, type, default and what its docstring says, so that flags need no class."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_SIMPLE: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "None": type(None)}
_LITERAL = re.compile(r"Literal(\[.*\])")


@dataclass(frozen=True)
class ConfigField:
    """A field of a configuration.

    Attributes:
        name: Its name.
        hint: Its type.
        default: Its value where none is given.
        text: What the docstring says about it, on one line.
    """

    name: str
    hint: Any
    default: Any
    text: str


def config_fields(kind: type[Any], values: Mapping[str, Any] | None = None) -> tuple[ConfigField, ...]:
    """The fields of a dataclass.

    Args:
        kind: Dataclass with an ``Attributes:`` section in its docstring, or in those of its bases.
        values: Taken for the defaults; None for the defaults of the class.
    """
    hints, texts = get_type_hints(kind), field_texts(kind)
    return tuple(
        ConfigField(
            item.name, hints[item.name], item.default if values is None else values[item.name], texts[item.name]
        )
        for item in dataclasses.fields(kind)
    )


def field_texts(kind: type[Any]) -> dict[str, str]:
    """What the docstring of a dataclass (and of its bases) says about each field, on one line."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")[2].split("\n\n")[0]
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
            texts[name] = " ".join(text.replace("``", "").split())
    return texts


def hint_text(hint: Any) -> str:
    """A simple type as text, e.g. ``"int | float | None"``; the inverse of `parse_hint`.

    Raises:
        TypeError: If it is no bool, int, float, str or None, no union of these, and no Literal of such values.
    """
    if get_origin(hint) is Literal:
        return f"Literal{list(get_args(hint))!r}"
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    names = {known: name for name, known in _SIMPLE.items()}
    if any(part not in names for part in parts):
        raise TypeError(f"{hint} is no simple type; expected {', '.join(_SIMPLE)}, a union of these, or a Literal.")
    return " | ".join(names[part] for part in parts)


def parse_hint(text: str) -> Any:
    """A type from its text; see `hint_text`."""
    literal = _LITERAL.fullmatch(text)
    if literal:
        return Literal[tuple(ast.literal_eval(literal.group(1)))]
    hint: Any = _SIMPLE[text.split(" | ", maxsplit=1)[0]]
    for part in text.split(" | ")[1:]:
        hint = hint | _SIMPLE[part]
    return hint
