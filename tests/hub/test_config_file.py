from __future__ import annotations

import json

import pytest

from ld_hub.errors import CheckpointError, MissingFileError
from ld_hub.hub import read_config, write_json


def test_round_trip_of_text_in_any_script(tmp_path):
    content = {"model_type": "ld_hub", "label_names": ['</td><script>"', "א: ב", "🐈"], "x": [1.5, None, True]}
    file = write_json(tmp_path / "config.json", content)
    assert read_config(file) == content
    assert read_config(tmp_path) == content


def test_not_a_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "config.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_missing_file_names_the_directory(tmp_path):
    with pytest.raises(MissingFileError, match="save_pretrained"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model_type": "ld_hub", "a": NaN}', "NaN is not JSON"),
        ('{"model_type": "ld_hub", "model_type": "ld_hub"}', "twice"),
        ('{"model_type": "ld_hub"', "not readable JSON"),
        ("[1, 2]", "holds a JSON list"),
        ("[" * 100_000, "not readable JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ('{"model_type": "detr"}', '"detr", not "ld_hub"'),
        ('{"architecture": "resnet18", "pretrained_cfg": {}}', "timm"),
        ('{"a": 1}', 'has no "model_type"'),
        ('{"model_type": ["ld_hub"]}', 'has no "model_type"'),
    ],
)
def test_bad_configurations_say_what_they_are(tmp_path, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert words in str(caught.value) and "config.json" in str(caught.value)


def test_binary_and_oversized_files(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="not readable JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "ld_hub", "label_names": ["x" * 1_000_000]}))
    with pytest.raises(CheckpointError, match="at most 1,000,000"):
        read_config(tmp_path)
