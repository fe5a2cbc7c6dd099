"""The command line that started a run, for its directory and its card: as it was typed, without secrets."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ld_hub.hub.downloads import TOKEN_TEXT, secrets_in_use

COMMAND_NAME = "command.txt"  # of a run directory: a line for its start, and one for each continuation
HIDDEN = "***"

_SECRET_FLAG = re.compile(r"--?[\w.-]*(token|password|secret|api_?key)[\w.-]*", re.IGNORECASE)


def typed_command(
    arguments: Sequence[str], typed: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> str | None:
    """The shell command of this process, if it is one that was typed with these arguments.

    Of accelerate's own flags (and its configuration file) the number of processes and the precision are told; it keeps
    the others from the processes that it starts.

    Args:
        arguments: Of `ld_hub.train` or `ld_hub.distill`, after the program's name.
        typed: ``sys.argv``.
        environment: Of the process.

    Returns:
        One line for a POSIX shell, tokens and passwords in it replaced by ``***``; None if something else called, a
        script or a notebook.
    """
    typed = sys.argv if typed is None else typed
    program = _program(typed, len(arguments), os.environ if environment is None else environment)
    if program is None or list(typed[len(typed) - len(arguments) :]) != list(arguments):
        return None
    return shlex.join([*program, *redact(arguments)])


def redact(words: Sequence[str]) -> list[str]:
    """Command-line words with tokens, passwords and the credentials of addresses replaced by ``***``.

    Args:
        words: Arguments of a command.
    """
    secrets, out, hide = secrets_in_use(None), [], False
    for word in words:
        flag, equals, _ = word.partition("=")
        secret = _SECRET_FLAG.fullmatch(flag) is not None
        text = HIDDEN if hide else f"{flag}={HIDDEN}" if secret and equals else TOKEN_TEXT.sub(HIDDEN, word)
        for known in secrets:
            text = text.replace(known, HIDDEN)
        out.append(_without_credentials(text))
        hide = secret and not equals
    return out


def with_this_start(run: Path, arguments: Sequence[str]) -> str | None:
    """What `COMMAND_NAME` of a run is to say: the lines that are there already, and this process's command.

    Args:
        run: Directory of the run, which may be a continued one.
        arguments: As of `typed_command`.

    Returns:
        Text, a line for each start; None if nothing was typed.
    """
    command, file = typed_command(arguments), run / COMMAND_NAME
    if command is None:
        return None
    before = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return f"{before.rstrip()}\n{command}\n".lstrip()


def _program(typed: Sequence[str], arguments: int, environment: Mapping[str, str]) -> list[str] | None:
    """How the process was started: ``ld-hub VERB``, or a module by Python or by a launcher; None for anything else."""
    first, between = Path(typed[0] if typed else ""), list(typed[1 : len(typed) - arguments])
    name = "ld-hub" if first.parts[-2:] == ("ld_hub", "__main__.py") else first.stem
    if name == "ld-hub" and between in (["train"], ["distill"]):
        return [name, *between]
    if between or first.parts[-2:] not in (("ld_hub", "train.py"), ("ld_hub", "distill.py")):
        return None
    processes, precision = environment.get("WORLD_SIZE", "1"), environment.get("ACCELERATE_MIXED_PRECISION")
    if precision is not None:  # `accelerate launch` always sets it
        said = {"--num_processes": (processes, "1"), "--mixed_precision": (precision, "no")}
        launcher = ["accelerate", "launch"]
        launcher += [word for flag, (value, usual) in said.items() if value != usual for word in (flag, value)]
    elif "TORCHELASTIC_RUN_ID" in environment:
        launcher = ["torchrun", "--nproc_per_node", environment.get("LOCAL_WORLD_SIZE", processes)]
    else:
        launcher = ["python"]
    return [*launcher, "-m", f"ld_hub.{name}"]


def _without_credentials(word: str) -> str:
    """A word that is an address, without its user and password."""
    try:
        split = urlsplit(word)
    except ValueError:
        return word
    if not split.scheme or "@" not in split.netloc:
        return word
    return word.replace(f"{split.netloc.rpartition('@')[0]}@", f"{HIDDEN}@", 1)
