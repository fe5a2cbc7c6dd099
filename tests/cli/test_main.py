from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from ld_hub.cli import main as frame
from ld_hub.cli.main import VERBS, Verb, main
from ld_hub.errors import ConfigError
from ld_hub.version import __version__

ROOT = Path(frame.__file__).parents[2]


@pytest.fixture
def verb(monkeypatch):
    """Put a function behind the verb `demo`."""

    def install(run, own_parser=False):
        module = types.ModuleType("a_verb")
        if own_parser:
            module.main = run
        else:
            module.run = run
            module.add_parser = lambda subparsers: subparsers.add_parser("demo").add_argument("--number", type=int)
        monkeypatch.setitem(sys.modules, "a_verb", module)
        monkeypatch.setitem(VERBS, "demo", Verb("a_verb", "help", own_parser))

    return install


def test_help_shows_every_verb_and_version(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for name, entry in VERBS.items():
        assert name in shown and entry.help in shown
    assert "accelerate launch -m ld_hub.distill" in shown
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out == f"ld_hub {__version__}\n"


def test_unknown_verb_names_the_close_one(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["predcit", "x.jpg"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "ld-hub: error: unknown verb 'predcit'. Did you mean predict?\n"


def test_arguments_and_exit_code(verb, capsys):
    verb(lambda args: args.number)
    assert main(["demo", "--number", "1"]) == 1
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--numer", "1"])
    assert caught.value.code == 2 and "usage: ld-hub" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert capsys.readouterr().out.startswith("usage: ld-hub demo [-h] [--number NUMBER]")


def test_a_verb_with_its_own_parser_gets_everything_unparsed(verb):
    seen = []
    verb(seen.append, own_parser=True)
    assert main(["demo", "name", "--help", "--terms.ld.weight", "2"]) == 0
    assert seen == [["name", "--help", "--terms.ld.weight", "2"]]


@pytest.mark.parametrize("error", [ConfigError("reg_max is 0"), PermissionError(13, "Permission denied", "/x")])
def test_errors_are_one_line(verb, capsys, monkeypatch, error):
    def fail(args):
        raise error

    verb(fail)
    monkeypatch.delenv("LD_HUB_DEBUG", raising=False)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == f"ld-hub: error: {error}\n"
    monkeypatch.setenv("LD_HUB_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["demo"])


def test_programming_errors_keep_their_traceback(verb):
    def fail(args):
        raise ZeroDivisionError

    verb(fail)
    with pytest.raises(ZeroDivisionError):
        main(["demo"])


def test_interrupt_is_quiet(verb, capsys):
    def stop(args):
        raise KeyboardInterrupt

    verb(stop)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == ""


def test_warnings_have_no_source_line(verb, capsys, recwarn):
    import warnings

    before = warnings.formatwarning
    verb(lambda args: print(warnings.formatwarning(UserWarning("old field"), UserWarning, "f.py", 3)))
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == "ld-hub: warning: old field\n\n"
    assert warnings.formatwarning is before


def test_the_same_warning_is_said_once(verb, capsys):
    def said(args):
        for line, text in ((3, "held out"), (9, "held out"), (9, "repaired")):
            print(warnings.formatwarning(UserWarning(text), UserWarning, "f.py", line), end="")

    import warnings

    verb(said)
    assert main(["demo"]) == 0
    assert capsys.readouterr().out == "ld-hub: warning: held out\nld-hub: warning: repaired\n"


def test_every_module_of_the_table_is_named_after_its_verb():
    for name, entry in VERBS.items():
        assert entry.module in (f"ld_hub.cli.verb_{name}", f"ld_hub.{name}")
        assert entry.own_parser == (not entry.module.startswith("ld_hub.cli"))


def test_module_call_and_light_help():
    """`python -m ld_hub --help` answers without loading torch."""
    code = "import sys, runpy; sys.argv = ['ld-hub']; runpy.run_module('ld_hub', run_name='__main__')"
    check = "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules))\n" + code
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert "usage: ld-hub" in done.stdout
    assert done.stdout.rstrip().endswith("False")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_goes_away_is_no_error():
    code = "import sys; from ld_hub.cli.main import guarded; sys.exit(guarded(lambda: print('x' * 10_000_000)))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as process:
        process.stdout.read(1)
        process.stdout.close()
        stderr = process.stderr.read()
    assert process.returncode == frame.BROKEN_PIPE and stderr == b""


@pytest.mark.parametrize("spelling", ["--number=1", "--num-ber=1"])
def test_flags_may_be_written_with_dashes(monkeypatch, spelling):
    module = types.ModuleType("a_verb")
    module.run = lambda args: args.num_ber
    module.add_parser = lambda subparsers: subparsers.add_parser("demo").add_argument("--num_ber", "--number", type=int)
    monkeypatch.setitem(sys.modules, "a_verb", module)
    monkeypatch.setitem(VERBS, "demo", Verb("a_verb", "help"))
    assert main(["demo", spelling]) == 1


OWN = [name for name, verb in VERBS.items() if verb.own_parser]


@pytest.mark.parametrize("line", ["", *(name for name in VERBS if name not in OWN), "data demo"])
def test_help_is_80_columns_wide(line, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*line.split(), "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
