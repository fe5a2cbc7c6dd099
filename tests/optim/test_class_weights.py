from __future__ import annotations

import json

import pytest

from ld_hub.errors import ConfigError, MissingFileError
from ld_hub.optim.class_weights import read_class_weights

NAMES = ("person", "car", "traffic light", "a=b")


def test_pairs_files_and_mappings_say_the_same(tmp_path):
    expected = {"person": 2.0, "traffic light": 0.5}
    (tmp_path / "w.json").write_text(json.dumps(expected))
    (tmp_path / "w.yaml").write_text("person: 2\ntraffic light: 0.5\n")
    for given in ("person=2, traffic light=0.5", expected, str(tmp_path / "w.json"), str(tmp_path / "w.yaml")):
        assert read_class_weights(given, NAMES) == expected
    assert read_class_weights("a=b=3", NAMES) == {"a=b": 3.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("persn=2", "no class 'persn' in the data; did you mean person"), ("person", "expected NAME=WEIGHT"),
        ("person=", "expected NAME=WEIGHT"), ("person=0", "'person' is '0'; expected a number above 0"),
        ("person=much", "is 'much'"), ({"car": float("inf")}, "'car' is inf"), ({"car": True}, "'car' is True"),
        ({"zebra": 1.0}, "did you mean person or car or"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(given, message):
    with pytest.raises(ConfigError, match=message):
        read_class_weights(given, NAMES)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.json' cannot be read"):
        read_class_weights(str(tmp_path / "none.json"), NAMES)
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r"list\.json' are no YAML mapping"):
        read_class_weights(str(tmp_path / "list.json"), NAMES)
