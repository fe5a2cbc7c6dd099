"""Dataclasses on the command line and in YAML: each field of `ld_hub.launch.arguments` is a flag.

Distilling parses twice: once to learn the recipe, then with a flag for each field of each of its terms.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import textwrap
from argparse import ArgumentError
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar, get_args, get_origin

from ld_hub.checked import Scalar
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.fields import ConfigField, config_fields
from ld_hub.launch.arguments import (
    ComparisonArguments,
    DistillArguments,
    HubArguments,
    ModelArguments,
    TeacherArguments,
    TrialArguments,
    UnlabeledArguments,
)
from ld_hub.launch.data_arguments import DataArguments
from ld_hub.preprocessing.augmentation import AugmentationFlags

Arguments = TypeVar("Arguments")
WIDTH = 78  # columns of texts in --help

GROUPS: dict[type[Any], str] = {
    DataArguments: "data",
    ModelArguments: "model",
    DistillArguments: "distillation",
    TeacherArguments: "teacher's training (with --train_teacher)",
    UnlabeledArguments: "images without labels",
    ComparisonArguments: "comparison",
    AugmentationFlags: "augmentation",
    TrainConfig: "training",
    HubArguments: "publishing",
    TrialArguments: "trial",
}
TERMS_FLAG = re.compile(r"--terms\.[\w.]+(=.*)?$", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One of the two commands.

    Attributes:
        program: How it is called.
        summary: What it does.
        name_help: What its NAME is.
        groups: Dataclasses whose fields are its flags.
        examples: Last lines of the help.
        more: What the help says about a flag beside its field's text, by name.
    """

    program: str
    summary: str
    name_help: str
    groups: tuple[type[Any], ...]
    examples: str
    more: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TermFlags:
    """A term of a recipe, on the command line.

    Attributes:
        name: In the recipe.
        kind: As of `ld_hub.distillation.TERMS`.
        fields: Its fields with the recipe's values.
    """

    name: str
    kind: str
    fields: tuple[ConfigField, ...]


@dataclass(frozen=True)
class RecipeFlags:
    """A recipe, on the command line.

    Attributes:
        name: Of the recipe.
        terms: Its terms.
    """

    name: str
    terms: tuple[TermFlags, ...]


class _Typed(TypedDict, total=False):
    """Keywords of `argparse.ArgumentParser.add_argument` that say what values a flag takes."""

    type: Any
    nargs: str | int
    const: bool
    default: Any


@dataclass(frozen=True)
class Parsed:
    """A parsed command line.

    Attributes:
        name: Positional NAME.
        values: All flags by name, as plain values.
        terms: Values of the terms' flags by term and field.
        yaml: The same as text for ``--config``.
    """

    name: str
    values: dict[str, Any]
    yaml: str
    terms: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)

    def of(self, kind: type[Arguments], **changes: Any) -> Arguments:
        """The flags that are fields of a dataclass, as that dataclass."""
        names = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]  # any dataclass
        return kind(**{**{name: self.values[name] for name in names}, **changes})


def parse(
    command: Command, argv: Sequence[str], recipe: RecipeFlags | None = None, *, any_terms: bool = False
) -> Parsed:
    """Parse a command line.

    Args:
        command: Which command.
        argv: Arguments after the program's name.
        recipe: Recipe whose terms get flags.
        any_terms: First pass: take any ``--terms`` without looking at it, and leave ``--help`` to the second pass.

    Raises:
        ConfigError: If something is unknown, missing or of the wrong type; names the flag.
        SystemExit: After ``--help`` and ``--print_config``.
    """
    parser = make_parser(command, recipe, any_terms=any_terms)
    try:
        found = parser.parse_args(without_terms(argv) if any_terms else list(argv))
    except ArgumentError as error:
        raise ConfigError(_readable(str(error), parser)) from None
    values = found.as_dict()
    terms = values.pop("terms", None) or {}
    values.pop("config", None)
    text = parser.dump(found)
    return Parsed(name=values.pop("name"), values=values, yaml=text, terms=terms)


def without_terms(argv: Sequence[str]) -> list[str]:
    """The arguments without ``--terms.TERM.FIELD VALUE`` and without ``--help``."""
    kept: list[str] = []
    skip = False
    for argument in argv:
        if skip:
            skip = False
        elif TERMS_FLAG.match(argument):
            skip = "=" not in argument
        elif argument not in ("-h", "--help"):
            kept.append(argument)
    return kept


def make_parser(command: Command, recipe: RecipeFlags | None = None, *, any_terms: bool = False) -> Any:
    """The parser of a command; with a recipe, including a flag for each field of its terms."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=command.program,
        usage=f"{command.program} NAME --data DIR [flags]",
        description=textwrap.fill(command.summary, WIDTH),
        epilog=command.examples,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_formatter(),
    )
    parser.add_argument("name", type=str, metavar="NAME", help=command.name_help)
    parser.add_argument("--config", action="config", help="YAML file with values of these flags.")
    known: set[str] = set()
    for kind in command.groups:
        group = parser.add_argument_group(GROUPS[kind], _first_line(kind))
        fresh = [each for each in config_fields(kind) if each.name not in known]  # a base's flags stand in its group
        known |= {each.name for each in fresh}
        _add_fields(group, fresh, more=command.more)
    if any_terms:
        parser.add_argument("--terms", type=dict, default=None)  # in a YAML file
    if recipe is not None:
        for term in recipe.terms:
            title = f"term {term.name} of the recipe {recipe.name} ({term.kind}; other recipes have other terms)"
            _add_fields(parser.add_argument_group(title), term.fields, f"terms.{term.name}.")
    return parser


def _add_fields(
    group: Any, known: Iterable[ConfigField], prefix: str = "", more: Mapping[str, str] | None = None
) -> None:
    for each in known:
        text = " ".join([each.text, *filter(None, [(more or {}).get(each.name)])])
        group.add_argument(f"--{prefix}{each.name}", help=text, **_typed(each.hint, each.default))


def _typed(hint: Any, default: Any) -> _Typed:
    """How a field's type is written on a command line."""
    inner = [part for part in get_args(hint) if part is not type(None)]
    tuples = [part for part in (hint, *inner) if get_origin(part) is tuple]
    if tuples:
        first, second = get_args(tuples[0])[:2]
        many: Any = "+" if second is Ellipsis else 2
        return {"type": first, "nargs": many, "default": default if default is None else list(default)}
    if hint is bool or bool in inner:  # --flag alone means true
        return {"type": hint, "nargs": "?", "const": True, "default": default}
    return {"type": hint, "default": default}


def _first_line(kind: type[Any]) -> str:
    return textwrap.fill((kind.__doc__ or "").split("\n", 1)[0], WIDTH)


def _formatter() -> type[Any]:
    """Help as of jsonargparse, with the examples' lines left as they are."""
    import argparse

    from jsonargparse import DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    return Formatter


def _readable(message: str, parser: Any) -> str:
    """A message of jsonargparse as one sentence with the flag's name."""
    message = re.sub(r"<class '([\w.]+)'>|typing\.", r"\1", message)
    value = re.search(r"Given value: (.*)", message)
    key = re.search(r'Parser key "([\w.]+)"', message)
    types = re.search(r"Subtypes: \[(.*)\]", message)
    if key and value and types:
        expected = types.group(1).replace(", NoneType", "")
        return f"--{key.group(1)}: expected {expected}, got {value.group(1)!r}."
    if key:
        return f"--{key.group(1)}: {' '.join(message.split(':', 1)[1].split())}."
    unknown = re.search(r"unrecognized arguments: (\S+)|Option '(\S+)' is not accepted", message)
    if unknown:
        name = (unknown.group(1) or f"--{unknown.group(2)}").split("=")[0]
        known = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`--help` lists the flags."
        return f"Unknown flag or key {name}. {hint}"
    return f"{' '.join(message.split())}. `--help` explains the flags."
