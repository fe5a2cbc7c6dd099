"""A Space on the loopback Hub: its files, and what is refused."""

from __future__ import annotations

import ast

import pytest
import yaml

from ld_hub.cli.main import main
from ld_hub.errors import HubError
from ld_hub.publishing.space import publish_space, space_files
from tests.support.hub_client import connected
from tests.support.judged import lively

hub = pytest.fixture(connected)


def test_a_model_and_its_space(hub, tmp_path, capsys):
    place = lively().save_pretrained(tmp_path / "model")
    words = ["push", str(place), "org/student", "--license", "apache-2.0", "--space", "org/try-it", "--no_pictures"]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert "org/student" in said[-2] and "spaces/org/try-it" in said[-1]
    commit = hub.repos["spaces", "org/try-it"].find("main")
    files = {name: blob.content.decode() for name, blob in commit.files.items()}
    assert {"README.md", "requirements.txt", "app.py"} <= set(files)
    metadata = yaml.safe_load(files["README.md"].split("---")[1])
    assert metadata["sdk"] == "gradio" and metadata["app_file"] == "app.py" and metadata["models"] == ["org/student"]
    assert metadata["license"] == "apache-2.0" and metadata["title"] == "student: try it"
    assert files["requirements.txt"].startswith("ld_hub[app]>=")
    assert len(files["app.py"].splitlines()) <= 40
    calls = [node for node in ast.walk(ast.parse(files["app.py"])) if isinstance(node, ast.Call)]
    assert [ast.unparse(call) for call in calls] == ["launch(['org/student'])"]


def test_what_its_owner_wrote_stays(hub, monkeypatch):
    publish_space("org/student", "org/try-it")
    repo = hub.repos["spaces", "org/try-it"]
    first = repo.find("main").files["README.md"].content
    publish_space("org/other", "org/try-it")
    again = hub.repos["spaces", "org/try-it"].find("main").files
    assert again["README.md"].content == first and b"org/other" in again["app.py"].content


def test_a_hub_that_refuses_is_said(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_readonlyreadonly")
    with pytest.raises(HubError, match="Nothing was published"):
        publish_space("org/student", "org/try-it", token="hf_wrongwrongwrong")


def test_a_name_is_a_title_and_no_yaml():
    files = space_files("org/a.b_c", 'x" y: [')
    metadata = yaml.safe_load(files["README.md"].split("---")[1])
    assert metadata["title"] == "a.b_c: try it" and metadata["license"] == 'x" y: ['


def test_no_repository_is_refused(tmp_path, capsys):
    place = lively().save_pretrained(tmp_path / "model")
    assert main(["push", str(place), "org/student", "--space", "a b"]) == 2
    assert "'a b' is no repository on the Hub" in capsys.readouterr().err
