"""What README shows runs as it stands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ld_hub.cli.main import VERBS, main

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^(?:accelerate launch -m ld_hub\.|ld-hub )(.+)$", README, re.MULTILINE)


def test_the_python_blocks_run_one_after_another(demo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ld_hub_demo").symlink_to(demo)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block.replace("steps=20", "steps=2, workers=0"), "README.md", "exec"), names)
    assert (tmp_path / "found.png").is_file()
    assert (tmp_path / "my_model" / "config.json").is_file()
    assert (tmp_path / "runs/tiny/model/model.safetensors").is_file()
    assert len(BLOCKS) >= 4


def test_the_table_of_models_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    shown = README.partition("<!-- models:begin -->\n")[2].partition("<!-- models:end -->")[0]
    assert main(["list", "--markdown"]) == 0
    assert shown == capsys.readouterr().out


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_and_their_flags_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line.split("  #", maxsplit=1)[0])
    assert words[0] in VERBS
    with pytest.raises(SystemExit) as stop:
        main([words[0], "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in words[1:]:
        if word.startswith("--terms"):
            continue
        assert not word.startswith("--") or word in text, word
