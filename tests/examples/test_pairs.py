"""The tables of examples/pairs are what a run of them gives."""

from __future__ import annotations

import pytest

from examples.pairs import table
from ld_hub.distillation import list_recipes

TEXT = table.README.read_text()


def section(mark: str) -> list[str]:
    return TEXT.split(f"<!-- {mark}:begin -->\n")[1].split(f"\n<!-- {mark}:end -->")[0].split("\n")


def test_what_runs_between_families_is_what_the_table_says() -> None:
    """Every pair is set up; each kind takes its steps once as student and once as teacher, in turn with the others."""
    kinds = list(table.KINDS)
    steps = {(kinds[i], kinds[(3 * i + 1) % len(kinds)]) for i in range(len(kinds))}
    assert {t for _, t in steps} == set(kinds)
    cells = table.families(steps)
    assert table.pair_tables(cells) == section("pairs"), "run examples/pairs/table.py --write"
    assert len(cells) == len(kinds) ** 2 and all(set(cell) == set(list_recipes()) for cell in cells.values())


def test_what_else_may_differ_is_what_the_table_says() -> None:
    assert table.difference_table(table.differences()) == section("differences"), "run examples/pairs/table.py --write"


@pytest.mark.slow
def test_every_pair_takes_its_steps() -> None:
    assert table.pair_tables(table.families()) == section("pairs")
