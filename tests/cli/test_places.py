"""Places to write to that cannot be written to: told before any work, nothing is touched."""

from __future__ import annotations

import shlex

import pytest

from ld_hub.cli.main import main


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("eval {0} --data {0} --out {0}/file", "--out {0}/file: {0}/file is a file; name a directory."),
        ("analyze {0} --data {0} --out {0}/file/deep", "--out {0}/file/deep: {0}/file is a file; name a directory."),
        ("predict {0} --model {0} --out {0}/file", "--out {0}/file: {0}/file is a file; name a directory."),
        ("curves {0} --out {0}/file", "--out {0}/file: {0}/file is a file; name a directory."),
        ("sweep {0} --data {0} --json {0}", "--json {0} is a directory; name a file."),
        ("sweep {0} --data {0} --json {0}/file/x.json", "--json {0}/file: {0}/file is a file; name a directory."),
    ],
)
def test_a_place_that_cannot_be_written_to(line, words, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("mine")
    assert main(shlex.split(line.format(tmp_path))) == 2
    assert capsys.readouterr().err == f"ld-hub: error: {words.format(tmp_path)}\n"
    assert (tmp_path / "file").read_text() == "mine"
