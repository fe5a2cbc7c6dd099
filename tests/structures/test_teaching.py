"""How a student was taught: the same in memory and in config.json, older ones included."""

from __future__ import annotations

import json

import pytest

from ld_hub.errors import CheckpointError
from ld_hub.structures import Teaching

# As version 0.1.0 wrote it, terms cut short.
OLD = """{"name": "vlr", "summary": "the method", "reference": null, "family": "gfocal", "paper": "https://a.b",
"terms": {"ld": {"kind": "box_bins_kl", "weight": 0.25, "share": null}}, "teacher": "gfocal_tiny",
"individual_ld": false, "balance": "gradient", "class_map": {"red": "rouge"}}"""
COMMITTEE = """{"name": "ld", "summary": "", "reference": "ld", "family": "fcos", "paper": "", "terms": {},
"teacher": ["a", "b"], "teacher_origin": {"a": "org/a@0123"}, "individual_ld": true, "teacher_scale": 2.0,
"teacher_weights": {"one": 1.0, "two": 0.5}}"""


def test_a_file_is_read_and_written_again_to_the_letter():
    one, two = (Teaching.from_dict(json.loads(text)) for text in (OLD, COMMITTEE))
    assert (one.recipe, one.teachers, one.balance, one.class_map) == (
        "vlr", ("gfocal_tiny",), "gradient", {"red": "rouge"}
    )  # fmt: skip
    assert one.terms["ld"]["weight"] == 0.25 and one.teacher_scale == 1 and one.reference is None
    assert (two.teachers, two.origins, two.individual_ld) == (("a", "b"), {"a": "org/a@0123"}, True)
    assert (two.teacher_weights, two.reference) == ({"one": 1.0, "two": 0.5}, "ld")
    for text, teaching in ((OLD, one), (COMMITTEE, two)):
        assert json.dumps(teaching.to_dict()) == json.dumps(json.loads(text))  # the order of the keys too


def test_the_least_that_a_file_says_will_do():
    assert Teaching.from_dict({"name": "mine", "terms": {}, "of a newer version": 1}) == Teaching("mine")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", 3, "'recipe' is 3; expected a text"),
        ("terms", [], r"'terms' is \[\]; expected an object"),
        ("terms", {"ld": 3}, "'terms.ld' is 3; expected an object"),
        ("teacher", 3, "'teachers' is 3; expected a list"),
        ("teacher", [3], r"'teachers\[0\]' is 3; expected a text"),
        ("teacher_origin", {"a": None}, r"'origins\.a' is None; expected a text"),
        ("reference", 3, "'reference' is 3; expected a text or null"),
        ("balance", True, "'balance' is True; expected one of none, gradient"),
        ("teacher_scale", "2", "'teacher_scale' is '2'; expected a number"),
        ("individual_ld", 1, "'individual_ld' is 1; expected true or false"),
    ],
)
def test_a_wrong_value_is_named(key, value, message):
    with pytest.raises(CheckpointError, match=f"^'x.json': {message}"):
        Teaching.from_dict({**json.loads(OLD), key: value}, "'x.json'")
