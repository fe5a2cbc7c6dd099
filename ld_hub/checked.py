"""Plain values, as JSON gives them, into dataclasses: every field's type is checked, and a wrong one is named."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from ld_hub.errors import ConfigError, LdHubError

Scalar: TypeAlias = str | int | float | bool | None
SHOWN = 80  # characters of a value in a message
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Checked = TypeVar("Checked", bound=_Dataclass)


def shorten(value: Any) -> str:
    """A value as a message shows it: its literal, cut off after 80 characters."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


@dataclass(frozen=True)
class Source:
    """Where values come from, for what is said about them.

    Attributes:
        where: Start of every message, e.g. the file in quotes.
        error: What is raised.
        way_out: Last sentence of every message.
    """

    where: str
    error: type[LdHubError] = ConfigError
    way_out: str = ""

    def wrong(self, name: str, value: Any, expected: str) -> LdHubError:
        """The error for a field, to be raised by the caller.

        Args:
            name: Of the field, as in ``weights.sha256``.
            value: What was found.
            expected: What should be there.
        """
        end = f" {self.way_out}" if self.way_out else ""
        return self.error(f"{self.where}: '{name[:SHOWN]}' is {shorten(value)}; expected {expected}.{end}")


def read_fields(kind: type[Checked], content: Mapping[str, Any], source: Source, prefix: str = "") -> Checked:
    """A dataclass from plain values; names that it does not have are passed over.

    Fields may be texts, numbers, booleans, Literals, other dataclasses, mappings of texts to such, tuples (from lists),
    and unions of these. A whole number will do for a float, as JSON may write 1.0 so.

    Args:
        kind: The dataclass.
        content: Values by field; those with a default may be missing.
        source: Where they come from.
        prefix: Before the fields' names in messages, as in ``weights.``.

    Raises:
        LdHubError: Of the source's kind, if a value is of another type or one is missing, or if the dataclass itself
            refuses its values; names the field, what it is and what it should be.
    """
    hints = get_type_hints(kind)
    values = {}
    for item in fields(kind):
        name = prefix + item.name
        if item.name in content:
            values[item.name] = _read(hints[item.name], content[item.name], name, source)
        elif item.default is MISSING and item.default_factory is MISSING:
            end = f" {source.way_out}" if source.way_out else ""
            raise source.error(f"{source.where}: '{name}' is missing; expected {_words(hints[item.name])}.{end}")
    try:
        return kind(**values)
    except LdHubError as error:
        raise source.error(f"{source.where}: {error}") from None


def _read(hint: Any, value: Any, name: str, source: Source) -> Any:
    """A value of a type; see `read_fields`."""
    if get_origin(hint) in (Union, types.UnionType):
        return _read_one_of(hint, value, name, source)
    if isinstance(value, Mapping) and (is_dataclass(hint) or _is_mapping(hint)):
        return _read_mapping(hint, value, name, source)
    if isinstance(value, (list, tuple)) and get_origin(hint) is tuple:
        return _read_tuple(hint, value, name, source)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint or hint is Any or (get_origin(hint) is Literal and value in get_args(hint)):
        return value
    raise source.wrong(name, value, _words(hint))


def _read_mapping(hint: Any, value: Mapping[str, Any], name: str, source: Source) -> Any:
    """A dataclass, or a mapping of texts to values of one type."""
    if is_dataclass(hint):
        kind: Any = hint
        return read_fields(kind, value, source, f"{name}.")
    inner = get_args(hint)[1]
    return {str(key): _read(inner, each, f"{name}.{key}", source) for key, each in value.items()}


def _read_one_of(hint: Any, value: Any, name: str, source: Source) -> Any:
    """A value of a union. With a single type beside None the message is that of this type."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if value is None and len(kinds) < len(get_args(hint)):
        return None
    if type(value) in kinds:  # 1 stays a whole number where both kinds may stand
        return value
    if len(kinds) == 1 and isinstance(value, (Mapping, list, tuple)):
        return _read(kinds[0], value, name, source)
    for kind in kinds:
        try:
            return _read(kind, value, name, source)
        except LdHubError:
            continue
    raise source.wrong(name, value, _words(hint))


def _read_tuple(hint: Any, value: list[Any] | tuple[Any, ...], name: str, source: Source) -> tuple[Any, ...]:
    kinds = get_args(hint)
    if kinds[1:] == (Ellipsis,):
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise source.wrong(name, value, f"a list of {len(kinds)}")
    pairs = enumerate(zip(kinds, value, strict=True))
    return tuple(_read(kind, each, f"{name}[{index}]", source) for index, (kind, each) in pairs)


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _words(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(kind) for kind in get_args(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is tuple:
        return "a list"
    return _WORDS.get(hint, "an object")
