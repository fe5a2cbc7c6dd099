"""`--import`: a term and a recipe of the user's, from the page that shows them to a run that is continued."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ld_hub.cli.main import main
from ld_hub.errors import ConfigError, MissingFileError
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.plugins import load_plugins
from tests.engine.runs import SMALL, detector, write_data

ROOT = Path(__file__).resolve().parents[2]
SHAPE = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
QUICK = "--pretrained_backbone false --workers 0 --image_size 64 64 --batch_size 4 --steps 2 --log_every 1".split()

# What is typed one after the other, in one process that nobody else's names are in.
SCRIPT = """
import json, sys
from pathlib import Path
from ld_hub import distill
from ld_hub.cli.main import main
run, *words = json.loads(sys.argv[1])
print("CODE", main(["recipes", "chances", "--import", "my_method.py"]))
print("CODE", main(["recipes", "installed"]))
print("CODE", distill.main(words))
Path("my_method.py").write_text(Path("my_method.py").read_text() + "# changed\\n")
print("CODE", distill.main([*words, "--resume"]))
"""


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The directory, the file as it was, and what was printed."""
    place = tmp_path_factory.mktemp("own")
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("### From outside the package")[2]
    method = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    (place / "my_method.py").write_text(method)
    (place / "site/pack-1.dist-info").mkdir(parents=True)
    (place / "site/pack-1.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: pack\nVersion: 1\n")
    (place / "site/pack-1.dist-info/entry_points.txt").write_text("[ld_hub.plugins]\npack = pack\n")
    (place / "site/pack.py").write_text(
        "from ld_hub.distillation import Recipe, get_recipe, register_recipe\n"
        "register_recipe(Recipe('installed', get_recipe('ld').terms, 'of an installed package'))\n"
    )
    torch.set_num_threads(1)
    data, teacher = write_data(place / "data"), save_pretrained(detector(seed=1), place / "teacher")
    words = ["run", "gfocal_tiny", "--data", str(data), "--teacher", str(teacher), "--output_dir", "run"]
    words += ["--import", "my_method.py", "--recipe", "chances", "--terms.chances.weight", "3", *SHAPE, *QUICK]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(words)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{place / 'site'}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return place, method, done.stdout + done.stderr


def test_every_verb_knows_what_was_imported_and_what_is_installed(typed):
    place, _, said = typed
    assert re.findall(r"^CODE (\d+)", said, re.MULTILINE) == ["0"] * 4, said
    assert "recipe chances: squared differences of probabilities" in said
    assert "recipe installed: of an installed package" in said
    records = [json.loads(line) for line in (place / "run/metrics.jsonl").read_text().splitlines()]
    assert records[0]["distill_chances"] > 0
    assert json.loads((place / "run/model/config.json").read_text())["architecture"] == "gfocal_tiny"


def test_the_run_keeps_a_copy_and_its_hash_and_says_what_changed(typed):
    place, method, said = typed
    changed = (place / "my_method.py").read_text()
    then, now = (hashlib.sha256(text.encode()).hexdigest() for text in (method, changed))
    assert changed == method + "# changed\n"
    assert (
        f"my_method.py is not what the run was begun with: its sha256 was {then[:12]}, and is {now[:12]} now." in said
    )
    assert (place / "run/imports/my_method.py").read_text() == changed  # what the last start ran
    assert json.loads((place / "run/imports/imports.json").read_text())["my_method.py"] == now


def test_a_model_that_was_taught_so_is_read_without_the_file(typed, capsys):
    assert main(["info", str(typed[0] / "run/model")]) == 0
    assert "chances" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file 'own.py'"),
        ("1 / 0\n", "failed with ZeroDivisionError: division by zero .*own.py, line 1"),
        ("import nosuchpackage\n", "imports 'nosuchpackage', which is not installed"),
        ("def\n", "failed with SyntaxError"),
    ],
)
def test_code_that_does_not_run_is_refused_in_one_line(content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "own.py").write_text(content)
    with pytest.raises(MissingFileError if content is None else ConfigError, match=words) as caught:
        load_plugins(["list", "--import=own.py"])
    assert "\n" not in str(caught.value)
    assert "own" not in sys.modules


def test_the_flag_needs_a_name_and_leaves_the_others(monkeypatch):
    monkeypatch.setattr("ld_hub.plugins._imported", {})
    assert load_plugins(["a", "--import", "json,re", "--b=1"]) == ["a", "--b=1"]
    for words in (["--import"], ["--import="], ["--import", "--b"]):
        with pytest.raises(ConfigError, match="needs a file or the name of a module"):
            load_plugins(words)
    with pytest.raises(ConfigError, match="there is no module of that name"):
        load_plugins(["--import", "nosuchmodule"])


def test_a_configuration_cannot_import(tmp_path, capsys):
    (tmp_path / "own.py").write_text("raise SystemExit(7)\n")
    (tmp_path / "run.yaml").write_text(f"import: {tmp_path / 'own.py'}\n")
    assert main(["train", "gfocal_r18", "--config", str(tmp_path / "run.yaml")]) == 2
    assert "import" in capsys.readouterr().err
