"""Table of README.md from the results of several seeds: python examples/demo/table.py [--write].

Reads seed_*.json beside this file, each the results.json of `ld-hub demo --seed N`; --write also refreshes the tables
in this README.md and in the project's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean

from ld_hub.demo.story import BEST, LONGER, RECIPES, Row, title
from ld_hub.spread import Spread, paired

HERE = Path(__file__).parent


def spread(values: list[float], digits: int = 1) -> str:
    return Spread.of(values).text(digits)


def tables(results: list[dict]) -> str:
    seeds, settings = ", ".join(str(r["settings"]["seed"]) for r in results), results[0]["settings"]
    lines = [
        f"Mean ± standard deviation over seeds {seeds}, and gains over the student alone with their 95 % interval over "
        f"the same seeds; teacher {settings['teacher_steps']} steps, students {settings['student_steps']} steps of "
        f"{settings['batch_size']} images.",
        "",
        "| model | AP | AP50 | gain at equal steps | gain at equal seconds | training, s |",
        "|---|---|---|---|---|---|",
    ]
    labels = None
    for index, row in enumerate(results[0]["rows"]):
        if row["name"] != "teacher" and row["labels"] != labels:
            labels = row["labels"]
            lines.append(f"| **student, {labels} images with labels** | | | | | |")
        rows = [r["rows"][index] for r in results]
        ap, ap50 = (spread([each[key] for each in rows]) for key in ("AP", "AP50"))
        gains = [gain(results, row, other) for other in ("alone", "alone_longer")]
        seconds = spread([each["seconds"] for each in rows], 0)
        lines.append(f"| {title(Row(**row)).strip()} | {ap} | {ap50} | {' | '.join(gains)} | {seconds} |")
    return "\n".join(lines)


def gain(results: list[dict], row: dict, other: str) -> str:
    """AP above the student alone, seed by seed; of the recipe alone that the longer training lasts as long as."""
    if row["name"] not in RECIPES or (other == LONGER and row["name"] != BEST):
        return ""
    found = paired(ap_of(results, row["name"], row["labels"]), ap_of(results, other, row["labels"]))
    return f"{found.mean:+.1f}" if found.low is None else f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"


def ap_of(results: list[dict], name: str, labels: int) -> dict[int, float]:
    rows = {r["settings"]["seed"]: r["rows"] for r in results}
    return {
        seed: each["AP"]
        for seed, found in rows.items()
        for each in found
        if (each["name"], each["labels"]) == (name, labels)
    }


def shares(results: list[dict]) -> str:
    lines = ["| recipe | term | gradient / detection loss's |", "|---|---|---|"]
    for recipe in RECIPES:
        for name in results[0]["losses"][f"student_{recipe}"][0]:
            if name.startswith("share/"):
                values = [mean(record[name] for record in r["losses"][f"student_{recipe}"]) for r in results]
                lines.append(f"| `{recipe}` | `{name.removeprefix('share/')}` | {spread(values, 2)} |")
    return "\n".join(lines)


def put(file: Path, text: str) -> None:
    begin, end = "<!-- demo:begin -->", "<!-- demo:end -->"
    head, rest = file.read_text().split(begin)
    file.write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def main() -> None:
    results = [json.loads(path.read_text()) for path in sorted(HERE.glob("seed_*.json"))]
    text = tables(results)
    print(text, shares(results), sep="\n\n")
    if "--write" in sys.argv:
        put(HERE / "README.md", f"{text}\n\n{shares(results)}")
        put(HERE.parents[1] / "README.md", text)


if __name__ == "__main__":
    main()
