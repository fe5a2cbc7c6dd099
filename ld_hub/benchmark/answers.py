"""What it costs to be told something: names, helps and refusals, as processes of their own."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

# Command lines that answer from data: none of them imports torch or timm (tests/cli/test_answers.py).
ANSWERS = (
    "list",
    "list 'gfocal_r50*' --pretrained",
    "list --markdown",
    "recipes",
    "recipes vlr --family retinanet --reference ld",
    "info gfocal_r50_ld_r101",
    "info gfocal_r18.no_such_tag",
    "info gfl_r50",
    "info gfocal_convnext_tiny",
    "recipes vrl",
    "lsit",
    "--help",
    "distill --help",
    "distill gfocal_r18_ld_r101 --no_such_flag 1",
    "distill gfocal_r18_ld_r101 --data no/such/place",
    "distill gfocal_r18_ld_r101 --recipe vrl --data no/such/place",
    "distill gfocal_r18_ld_r10 --data no/such/place",
    "train gfocal_r18 --data no/such/place",
    "predict no/such/photo.jpg --model gfocal_r18",
    "predict README.md --model gfl_r18",
    "eval gfocal_r18 --data no/such/place",
    "sweep gfocal_r18 --data no/such/place",
    "analyze gfocal_r18 --data no/such/place --out report",
    "verify org/name",
    "data doctor no/such/place",
    "push no/such/place org/name",
    "card gfl_r18",
    "curves no/such/place",
    "convert no/such/file.pth out --model gfocal_r18",
    "benchmark gfl_r18",
    "show gfl_r18 README.md --out no_such.png",
    "show gfocal_r18 README.md --regions mian --out no_such.png",
)


@dataclass(frozen=True)
class Answer:
    """A measured command.

    Attributes:
        command: After ``ld-hub``.
        cpu: Seconds of processor time, user and system.
        seconds: From start to end.
        code: Its exit code.
    """

    command: str
    cpu: float
    seconds: float
    code: int


def time_answers(commands: tuple[str, ...] = ANSWERS, repeats: int = 3) -> Iterator[Answer]:
    """Run each command as a process, repeatedly, and yield the run of least processor time.

    Args:
        commands: After ``ld-hub``, as for a shell.
        repeats: Runs of each.
    """
    for command in commands:
        yield min((_run(command) for _ in range(repeats)), key=lambda answer: answer.cpu)


def _run(command: str) -> Answer:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", "ld_hub", *shlex.split(command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Answer(command, cpu, seconds, done.returncode)
