"""Plain values into dataclasses: what is taken, and which field is named where one is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from ld_hub.checked import Scalar, Source, read_fields, shorten
from ld_hub.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class Wheel:
    size: float
    spokes: int = 0


@dataclass(frozen=True)
class Cart:
    name: str
    front: Wheel
    colour: Literal["red", "blue"] = "red"
    used: bool = False
    owner: str | None = None
    spare: Wheel | None = None
    wheels: tuple[Wheel, ...] = ()
    corner: tuple[int, int] = (0, 0)
    prices: Mapping[str, float | None] = field(default_factory=dict)
    notes: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "broken":
            raise ConfigError("name is 'broken'; carts have to be whole.")


SOURCE = Source("'cart.json'", CheckpointError, "Paint it again.")
WORDS = ("a text", "a whole number", "a number", "true or false", "null")
PLAIN = {"name": "a", "front": {"size": 2}}


def test_every_kind_of_field_is_read():
    content = {
        **PLAIN, "colour": "blue", "used": True, "owner": None, "spare": {"size": 1.5, "spokes": 3, "unknown": 1},
        "wheels": [{"size": 1}, {"size": 2}], "corner": [3, 4], "prices": {"x": None, "y": 1}, "unknown": {},
        "notes": {"a": 1, "b": 1.0, "c": True, "d": "t", "e": None},
    }  # fmt: skip
    cart = read_fields(Cart, content, SOURCE)
    assert cart == Cart(
        "a", Wheel(2.0), "blue", True, None, Wheel(1.5, 3), (Wheel(1.0), Wheel(2.0)), (3, 4), {"x": None, "y": 1.0},
        {"a": 1, "b": 1.0, "c": True, "d": "t", "e": None},
    )  # fmt: skip
    assert type(cart.front.size) is type(cart.prices["y"]) is float
    assert [type(value) for value in cart.notes.values()] == [int, float, bool, str, type(None)]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("name", 3, "'name' is 3; expected a text."),
        ("front", [], "'front' is []; expected an object."),
        ("front", {"size": "2"}, "'front.size' is '2'; expected a number."),
        ("front", {"size": True}, "'front.size' is True; expected a number."),
        ("front", {}, "'front.size' is missing; expected a number."),
        ("colour", "green", "'colour' is 'green'; expected one of red, blue."),
        ("used", 1, "'used' is 1; expected true or false."),
        ("owner", 1, "'owner' is 1; expected a text or null."),
        ("spare", {"size": 1, "spokes": 1.5}, "'spare.spokes' is 1.5; expected a whole number."),
        ("spare", "x", "'spare' is 'x'; expected an object or null."),
        ("wheels", {}, "'wheels' is {}; expected a list."),
        ("wheels", [{"size": 1}, {"size": None}], "'wheels[1].size' is None; expected a number."),
        ("corner", [1], "'corner' is [1]; expected a list of 2."),
        ("corner", [1, 2.5], "'corner[1]' is 2.5; expected a whole number."),
        ("prices", {"x": "1"}, "'prices.x' is '1'; expected a number or null."),
        (
            "notes",
            {"x": []},
            "'notes.x' is []; expected " + " or ".join(WORDS) + ".",
        ),
    ],
)
def test_a_wrong_value_is_named(name, value, message):
    with pytest.raises(CheckpointError) as error:
        read_fields(Cart, {**PLAIN, name: value}, SOURCE)
    assert str(error.value) == f"'cart.json': {message} Paint it again."


def test_what_the_dataclass_refuses_is_of_the_source_too():
    with pytest.raises(CheckpointError, match=r"^'cart.json': name is 'broken'; carts have to be whole\.$"):
        read_fields(Cart, {**PLAIN, "name": "broken"}, SOURCE)


def test_long_values_are_cut():
    assert shorten("x" * 10) == repr("x" * 10)
    assert len(shorten("x" * 1000)) == 80 and shorten("x" * 1000).endswith("...")
