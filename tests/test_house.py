"""The house stays in order: rooms have one purpose, names tell where one is, nothing grows past the plan's sizes."""

from __future__ import annotations

import ast
import re
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest

import ld_hub

HOUSE = Path(ld_hub.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))


def lines(file: Path) -> int:
    return file.read_text(encoding="utf-8").count("\n")


def test_no_file_name_stands_in_two_rooms():
    counts = Counter(file.stem for file in FILES if file.stem != "__init__")
    assert [name for name, count in counts.items() if count > 1] == []


def test_no_room_is_a_hall():
    total = sum(map(lines, FILES))
    rooms = {
        room: sum(map(lines, files))
        for room, files in groupby(FILES, key=lambda file: file.relative_to(HOUSE).parts[0])
        if (HOUSE / room).is_dir()
    }
    assert {room: size for room, size in rooms.items() if size > 0.13 * total} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_files_and_functions_stay_small(file):
    assert lines(file) <= 400
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [node.name for node in functions if node.end_lineno - node.lineno + 1 > 60] == []


def test_most_functions_are_short():
    sizes = sorted(
        node.end_lineno - node.lineno + 1
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    assert sizes[int(0.9 * len(sizes))] <= 35


def test_where_do_i_find_names_files_that_exist():
    text = (HOUSE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("## Where do I find")[2].partition("\n## ")[0]
    answers = re.findall(r"^\| \.\.\. .* \| `([^`]+)` \|$", section, re.MULTILINE)
    assert len(answers) == section.count("| ...") >= 12
    assert [answer for answer in answers if not (HOUSE.parent / answer).is_file()] == []


def test_few_types_are_ignored_and_each_with_its_reason():
    text = "\n".join(file.read_text(encoding="utf-8") for file in FILES)
    ignored = re.findall(r"# type: ignore(.*)", text)
    assert len(ignored) <= 10
    assert [rest for rest in ignored if not re.fullmatch(r"\[[\w, -]+\]  # .+", rest)] == []


def test_what_travels_together_has_named_fields():
    """Open dictionaries are for JSON that enters or leaves; everything else is a dataclass or a TypedDict."""
    found = [
        line for file in FILES for line in file.read_text(encoding="utf-8").splitlines() if "dict[str, Any]" in line
    ]
    assert len(found) <= 40, found
