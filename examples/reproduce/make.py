"""Writes the files of this directory from `rows.py`: ``python -m examples.reproduce.make``.

One YAML per published row, and the table in README.md. A test compares what is here with what this writes.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from examples.reproduce.rows import ROWS, Row

HERE = Path(__file__).parent
BEGIN, END = "<!-- rows:begin -->\n", "<!-- rows:end -->\n"


def configuration(row: Row) -> str:
    """The YAML of a row: what it reproduces, what differs, and the flags."""
    data = "VOCdevkit/" if row.voc else "coco/"
    notes = [
        row.title,
        f"Published: {row.published}",
        "Not run here: no COCO, nor VOC, on the machine this was made on. The figures are the authors'.",
        "",
        f"  accelerate launch --num_processes {row.processes} -m ld_hub.distill \\",
        f"    --config examples/reproduce/{row.file}.yaml --data {data}",
        "",
        f"{row.images_per_step} images per step as published: {row.processes} processes x {row.batch_size}. On one "
        f"device: --num_processes 1 --accumulation {row.processes}.",
        *row.notes,
    ]
    head = "\n".join(line for note in notes for line in _comment(note))
    return head + "\n" + "\n".join(_lines(row.settings())) + "\n"


def _comment(text: str) -> list[str]:
    if text.startswith("  ") or not text:
        return [f"# {text}".rstrip()]
    return textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)


def _lines(settings: dict[str, Any], indent: str = "") -> list[str]:
    """Nested plain values as YAML."""
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, (list, tuple)):
            lines.append(f"{indent}{name}: [{', '.join(map(str, value))}]")
        else:
            lines.append(f"{indent}{name}: {str(value).lower() if isinstance(value, bool) else value}")
    return lines


def table() -> str:
    """All rows, as README.md shows them."""
    lines = ["| file | student | teacher | recipe | published AP | images per step |", "|---|---|---|---|---|---|"]
    for row in ROWS:
        student, teacher = row.names()
        ap = "none" if row.ap is None else f"{row.ap:.1f}{f' ({row.metric})' if row.metric else ''}"
        cells = (f"[{row.file}]({row.file}.yaml)", f"`{student}`", f"`{teacher}`", row.recipe, ap)
        lines.append(f"| {' | '.join(cells)} | {row.processes} x {row.batch_size} |")
    return "\n".join(lines) + "\n"


def files() -> dict[str, str]:
    """Every generated file by name."""
    readme = (HERE / "README.md").read_text()
    before, after = readme.partition(BEGIN)[0], readme.partition(END)[2]
    made = {f"{row.file}.yaml": configuration(row) for row in ROWS}
    return {**made, "README.md": f"{before}{BEGIN}{table()}{END}{after}"}


if __name__ == "__main__":
    for name, text in files().items():
        (HERE / name).write_text(text)
    for path in HERE.glob("*.yaml"):
        if path.name not in files():
            path.unlink()
