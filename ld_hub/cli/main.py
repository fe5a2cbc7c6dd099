"""The frame of the command `ld-hub`: finds the verb, runs it, and turns errors into one line."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ld_hub.errors import LdHubError
from ld_hub.plugins import load_plugins
from ld_hub.version import __version__

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE
FAILED = 2


@dataclass(frozen=True)
class Verb:
    """One entry of the table of verbs.

    Attributes:
        module: Imported when the verb is called. It has ``add_parser(subparsers)`` and ``run(args) -> int``,
            or, where `own_parser` is set, ``main(argv)`` that takes the arguments unparsed.
        help: One line for the top-level help.
        own_parser: Whether the module parses by itself.
    """

    module: str
    help: str
    own_parser: bool = False


VERBS: dict[str, Verb] = {
    "demo": Verb("ld_hub.cli.verb_demo", "make a small data set, train, distil and compare, in minutes"),
    "list": Verb("ld_hub.cli.verb_list", "list model names, by wildcard"),
    "info": Verb("ld_hub.cli.verb_info", "parameters, multiply-adds, weights and data settings of a model"),
    "recipes": Verb("ld_hub.cli.verb_recipes", "list distillation recipes, or show the terms of one"),
    "predict": Verb("ld_hub.cli.verb_predict", "detect objects on images and draw them"),
    "app": Verb("ld_hub.cli.verb_app", "a page on which detectors can be tried, side by side"),
    "show": Verb("ld_hub.cli.verb_show", "draw assignment, regions and bins of a student on a photograph"),
    "eval": Verb("ld_hub.cli.verb_eval", "AP of a model on a data set, by COCO's, VOC's or LVIS' rules"),
    "train": Verb("ld_hub.train", "train a detector", own_parser=True),
    "distill": Verb("ld_hub.distill", "train a student from a teacher", own_parser=True),
    "data": Verb("ld_hub.cli.verb_data", "look for problems in a data set, or write it as COCO, VOC or YOLO"),
    "export": Verb("ld_hub.cli.verb_export", "write a model as a program that runs without torch, checked"),
    "convert": Verb("ld_hub.cli.verb_convert", "turn an OpenMMLab, LD or BCKD .pth file into a model directory"),
    "push": Verb("ld_hub.cli.verb_push", "publish a model with its card on the Hugging Face Hub"),
    "card": Verb("ld_hub.cli.verb_card", "write the card of a model, with the AP that eval measured"),
    "verify": Verb("ld_hub.cli.verb_verify", "recompute a model's AP and check its card and evaluation by it"),
    "curves": Verb("ld_hub.cli.verb_curves", "draw losses, gradients and AP of training runs, several on one plot"),
    "analyze": Verb("ld_hub.cli.verb_analyze", "report of what models get wrong, with pictures, as one HTML page"),
    "sweep": Verb("ld_hub.cli.verb_sweep", "compare kinds of NMS and thresholds, in one pass of the network"),
    "benchmark": Verb("ld_hub.cli.verb_benchmark", "measure speed and memory of inference and of a training step"),
}

_EXAMPLES = """\
examples:
  ld-hub demo                      the whole story on a small generated data set
  ld-hub list 'gfocal_r50*'        names that fit a wildcard
  ld-hub info gfocal_r50_ld_r101   its student, teacher, recipe, size
  ld-hub predict photo.jpg --model RUN/model --out pictures
  ld-hub eval RUN/model --data coco/
  accelerate launch -m ld_hub.distill gfocal_r18_ld_r101 --data coco/

`ld-hub VERB --help` explains a verb. Before all else, every verb imports what
--import FILE.py|MODULE names: methods, detectors, backbones of your own. With
LD_HUB_DEBUG=1 errors show where they arose."""


class OneLineParser(argparse.ArgumentParser):
    """Tells what is wrong with a command line in one line, with close flags, instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2, as argparse does."""
        unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
        close = difflib.get_close_matches(unknown[1], self._flags(), n=3, cutoff=0.7) if unknown else []
        hint = f". Did you mean {' or '.join(close)}?" if close else ""
        self.exit(FAILED, f"{self.prog}: error: {' '.join(message.split())}{hint} (usage: {self.prog} --help)\n")

    def _flags(self) -> set[str]:
        """Its flags, and those of the verb's own parser."""
        flags = {flag for action in self._actions for flag in action.option_strings}
        for action in self._actions:
            if isinstance(action.choices, dict):
                flags |= {flag for parser in action.choices.values() for flag in parser._flags()}
        return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ld-hub` and return its exit code.

    Args:
        argv: Arguments after the program's name; those of the process when None.

    Returns:
        0 when all went well, 1 where a verb says no, 2 for errors, 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: _dispatch(arguments))


def _said_once(program: str) -> Callable[..., str]:
    """What stands for `warnings.formatwarning`: one line, and nothing where the same has been said."""
    said: set[str] = set()

    def line(message: Warning | str, *_: object, **__: object) -> str:
        text = f"{program}: warning: {message}\n"
        new = text not in said
        said.add(text)
        return text if new else ""

    return line


def guarded(call: Callable[[], int | None], program: str = "ld-hub") -> int:
    """Call something and turn what a user can cause into one line on stderr.

    Args:
        call: Does the work; its result is the exit code, None means 0.
        program: Name that stands before messages.

    Returns:
        The exit code: 2 after an `LdHubError` or a file the system refuses, 130 after Ctrl-C, 141 when the
        reader of the output went away. Programming errors keep their traceback.
    """
    debug = os.environ.get("LD_HUB_DEBUG", "") not in ("", "0")
    plain = warnings.formatwarning
    warnings.formatwarning = _said_once(program)
    try:
        code = call() or 0
        sys.stdout.flush()  # here, not at interpreter exit, where a broken pipe would print a traceback
    except KeyboardInterrupt as interrupt:  # a run that has left in order says what its process ends with
        code = getattr(interrupt, "code", INTERRUPTED)
    except BrokenPipeError:
        _silence_stdout()
        code = BROKEN_PIPE
    except (LdHubError, OSError) as error:
        if debug:
            raise
        print(f"{program}: error: {error}", file=sys.stderr)
        code = FAILED
    finally:
        warnings.formatwarning = plain
    return code


def _dispatch(arguments: list[str]) -> int | None:
    frame = _frame()
    if not arguments:
        frame.print_help()
        return 0
    name = arguments[0]
    if name.startswith("-"):
        frame.parse_args(arguments)  # --help and --version end here, anything else is an error
        return 0
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=3, cutoff=0.6)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Verbs: {', '.join(VERBS)}."
        frame.exit(FAILED, f"ld-hub: error: unknown verb '{name}'. {hint}\n")
    verb = VERBS[name]
    if verb.own_parser:
        result: int | None = importlib.import_module(verb.module).main(arguments[1:])
        return result
    words = load_plugins(arguments[1:])
    module = importlib.import_module(verb.module)
    module.add_parser(frame.add_subparsers(dest="verb", prog="ld-hub"))
    code: int | None = module.run(frame.parse_args([name, *map(_underscored, words)]))
    return code


def _underscored(argument: str) -> str:
    """``--batch-size=4`` is ``--batch_size=4``, too."""
    flag, equals, value = argument.partition("=")
    return flag[:2] + flag[2:].replace("-", "_") + equals + value if flag.startswith("--") else argument


def _frame() -> argparse.ArgumentParser:
    width = max(map(len, VERBS))
    table = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items())
    parser = OneLineParser(
        prog="ld-hub",
        usage="ld-hub VERB ...",
        description="Distilled dense object detectors, by name.",
        epilog=f"verbs:\n{table}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ld_hub {__version__}")
    return parser


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush has somewhere to go."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
