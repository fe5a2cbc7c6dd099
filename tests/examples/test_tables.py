"""The tables of measured examples are what their scripts make of the stored results, on the front page too."""

from __future__ import annotations

import json
from pathlib import Path

from examples.balance import table as balance
from examples.benchmarks import table as exports
from examples.demo import table as demo
from examples.lmo import table as lmo
from examples.lmo.augment import table as augment
from examples.temperature import table as temperature
from examples.unlabeled import table as unlabeled

ROOT = Path(__file__).parents[2]


def shown(page: str, mark: str) -> str:
    return (ROOT / page).read_text().split(f"<!-- {mark}:begin -->\n")[1].split(f"\n<!-- {mark}:end -->")[0]


def test_demo() -> None:
    results = [json.loads(file.read_text()) for file in sorted(demo.HERE.glob("seed_*.json"))]
    assert shown("README.md", "demo") == demo.tables(results)
    assert shown("examples/demo/README.md", "demo") == f"{demo.tables(results)}\n\n{demo.shares(results)}"


def test_lmo() -> None:
    found = json.loads((lmo.HERE / "results.json").read_text())
    assert shown("examples/lmo/README.md", "table") == lmo.tables(found)


def test_augment() -> None:
    found = json.loads((augment.HERE / "results.json").read_text())
    assert shown("examples/lmo/augment/README.md", "table") == augment.table(found)


def test_balance() -> None:
    found = json.loads((balance.HERE / "results.json").read_text())
    assert shown("examples/balance/README.md", "table") == balance.table(found)


def test_temperature() -> None:
    found = json.loads((temperature.HERE / "results.json").read_text())
    assert shown("examples/temperature/README.md", "table") == temperature.tables(found)


def test_unlabeled() -> None:
    found = json.loads((unlabeled.HERE / "results.json").read_text())
    assert shown("examples/unlabeled/README.md", "table") == unlabeled.text(found)


def test_exports() -> None:
    found = json.loads((exports.HERE / "cpu_export.json").read_text())
    assert shown("examples/benchmarks/README.md", "export") == exports.tables(found)
