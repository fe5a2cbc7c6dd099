"""Names, helps and refusals come without torch and timm."""

import re
import shlex
import subprocess
import sys

import pytest

from ld_hub.benchmark.answers import ANSWERS, time_answers
from ld_hub.cli.main import VERBS

HEAVY = {"torch", "torchvision", "timm", "accelerate", "datasets", "huggingface_hub", "matplotlib", "numpy"}

REFUSED = ("no_such", "no/such", "gfl_", "vrl", "lsit", "convnext", "r10 ", "verify", "mian")  # words in them


def imported(words: list[str]) -> tuple[int, set[str], str]:
    """Exit code of ``python -m ld_hub WORDS``, the packages it imported, and the last line that it printed."""
    command = [sys.executable, "-X", "importtime", "-m", "ld_hub", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    log = re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert "ld_hub.cli.main" in log  # the log was read
    return done.returncode, {name.partition(".")[0] for name in log}, "\n".join([*said, done.stdout])


@pytest.mark.parametrize("command", ANSWERS)
def test_answers_import_nothing_heavy(command):
    code, packages, said = imported(shlex.split(command))
    assert not packages & HEAVY, said
    refused = any(word in command for word in REFUSED)
    assert code == (2 if refused else 0), said
    if refused:
        assert "error: " in said
        assert "Traceback" not in said


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_help_imports_nothing_heavy(verb):
    code, packages, said = imported([verb, "--help"])
    assert code == 0
    assert "usage:" in said
    assert not packages & HEAVY


def test_import_of_the_package_and_its_lists_imports_nothing_heavy():
    script = "import ld_hub; ld_hub.list_models('*r18*'); ld_hub.list_pretrained(); ld_hub.is_model('gfocal')"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", script], capture_output=True, text=True, check=True
    )
    assert not {name.partition(".")[0] for name in re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)} & HEAVY


def test_answers_are_timed_as_processes():
    (answer,) = time_answers(("recipes vrl",), repeats=1)
    assert answer.command == "recipes vrl"
    assert answer.code == 2
    assert 0 < answer.cpu
    assert 0 < answer.seconds
