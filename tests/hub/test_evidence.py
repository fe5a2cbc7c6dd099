"""Evaluation artefacts: what is read, and what is refused."""

from __future__ import annotations

import copy
import json

import pytest

from ld_hub.errors import EvaluationError, MissingFileError
from ld_hub.hub.evidence import Evidence, find_evidence, read_evidence
from tests.support.evidence import GOOD


def changed(path, value):
    content = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    part = content
    for name in parents:
        part = part[name]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    return content


def test_a_good_one_is_read_and_found(tmp_path):
    file = tmp_path / "eval" / "second" / "metrics.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(GOOD))
    (tmp_path / "eval" / "detections.json").write_text("[]")
    (tmp_path / "eval" / "notes.json").write_text('{"AP": 1}')
    assert read_evidence(file).to_dict() == GOOD
    assert find_evidence(tmp_path) == {file: Evidence.from_dict(GOOD)}
    assert find_evidence(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", ...),
        ("format", "other"),
        ("format_version", 2),
        ("format_version", True),
        ("stats", {"AP": 0.5}),
        ("protocol", "voc"),
        ("protocol", None),
        ("protocol", ["coco"]),
        ("not_counted", -1),
        ("stats.AP", 1.5),
        ("stats.AP", -1),
        ("stats.AP", "0.5"),
        ("stats.AP", True),
        ("per_class.cat", 40.3),
        ("per_class", [0.5]),
        ("boxes.cat", -1),
        ("images", 2.5),
        ("detections", True),
        ("weights.sha256", "0" * 63),
        ("weights.sha256", ...),
        ("data", None),
        ("data.sha256", "Z" * 64),
        ("data.name", ""),
        ("command", "x" * 30_000),
        ("model.config", None),
        ("model.recipe", 3),
        ("versions", ...),
        ("detections_file.file", "../../secret.json"),
    ],
)
def test_anything_else_is_refused_by_name(path, value):
    with pytest.raises(EvaluationError, match=path.split(".")[-1] if "file" not in path else "file"):
        Evidence.from_dict(changed(path, value), "'x.json'")


def test_artefacts_of_older_versions_are_of_coco():
    old = {name: value for name, value in GOOD.items() if name not in ("protocol", "not_counted")}
    assert Evidence.from_dict(old).to_dict() == {**GOOD, "not_counted": 0}


@pytest.mark.parametrize("protocol", ["voc07", "voc12"])
def test_each_protocol_has_its_own_numbers(protocol):
    names = ["AP", "AP50", "AP55", "AP60", "AP65", "AP70", "AP75", "AP80", "AP85", "AP90", "AP95"]
    voc = {**GOOD, "protocol": protocol, "stats": dict.fromkeys(names, 0.5)}
    assert Evidence.from_dict(voc).to_dict() == voc
    for mixed in ({**voc, "protocol": "coco"}, {**GOOD, "protocol": protocol}):
        with pytest.raises(EvaluationError, match=r"'stats' is .*expected the names AP, AP50"):
            Evidence.from_dict(mixed)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[1]", "list"),
        ('{"format": NaN}', "NaN"),
        ('{"a": 1, "a": 2}', "twice"),
        ("{", "not readable JSON"),
        ("version https://git-lfs.github.com/spec/v1", "LFS pointer"),
        ('{"step": 5, "stats": {"AP": 0.9}}', "Only what `ld-hub eval` writes"),
        ('{"x": "' + "y" * 9_000_000 + '"}', "bytes"),
    ],
)
def test_other_files_are_refused(tmp_path, text, word):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(EvaluationError, match=word):
        read_evidence(tmp_path / "metrics.json")


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(MissingFileError, match="ld-hub eval"):
        read_evidence(tmp_path / "metrics.json")
