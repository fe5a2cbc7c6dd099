"""Table of README.md from the results of several seeds: python examples/demo/table.py [--write].

Reads seed_*.json beside this file, each the results.json of `ld-hub demo --seed N`; --write also refreshes the tables
in this README.md and in the project's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean

from ld_hub.spread import Spread, paired

HERE = Path(__file__).parent


def spread(values: list[float], digits: int = 1) -> str:
    return Spread.of(values).text(digits)


def tables(results: list[dict]) -> str:
    seeds = ", ".join(str(r["settings"]["seed"]) for r in results)
    steps = results[0]["settings"]
    lines = [
        f"Mean ± standard deviation over seeds {seeds}; teacher {steps['teacher_steps']} steps, students "
        f"{steps['student_steps']} steps of {steps['batch_size']} images.",
        "",
        "| model | AP | AP50 | AP75 | AP above the student alone | parameters | training, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for index, row in enumerate(results[0]["rows"]):
        rows = [r["rows"][index] for r in results]
        cells = [spread([row[key] for row in rows]) for key in ("AP", "AP50", "AP75")]
        gain = ""
        if row["name"].startswith("student") and row["name"] != "student alone":
            gain = paired(_ap(results, index), _ap(results, 1)).text()
        seconds = spread([row["seconds"] for row in rows], 0)
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {gain} | {row['parameters'] / 1e6:.2f} M | {seconds} |")
    return "\n".join(lines)


def _ap(results: list[dict], index: int) -> dict[int, float]:
    return {r["settings"]["seed"]: r["rows"][index]["AP"] for r in results}


def shares(results: list[dict]) -> str:
    lines = ["| recipe | term | gradient / detection loss's |", "|---|---|---|"]
    for recipe in ("ld", "vlr"):
        for name in results[0]["losses"][recipe][0]:
            if name.startswith("share/"):
                values = [mean(record[name] for record in r["losses"][recipe]) for r in results]
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
