"""The table of README.md: python -m examples.balance.table [LMO_OUT DEMO_OUT] [--write].

Reads the runs of examples/lmo/run.sh and of run.sh; --write also refreshes results.json beside this file and README.md.
Without directories, the table is made from results.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean

from examples.lmo.table import ROWS, SEEDS, read_run, refresh, spread

HERE = Path(__file__).parent
SETS = ("LM-O", "demo data")
SHOWN = ("alone", "vlr", "vlr.balanced", "bckd", "bckd.balanced")


def collect(out: Path) -> dict:
    return {row: [read_run(out / f"{row}-{seed}") for seed in SEEDS] for row in SHOWN}


def table(found: dict) -> str:
    heads = ["training", *(f"AP, {data}" for data in SETS), *(f"gradient, {data}" for data in SETS)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in SHOWN:
        runs = [found[data][row] for data in SETS]
        cells = [spread([run["AP"] for run in each]) for each in runs]
        for each in runs:
            terms = [
                f"`{term.removeprefix('distill_')}` {mean(run['shares'][term] for run in each):.2f}"
                for term in each[0]["shares"]
            ]
            cells.append("<br>".join(terms))
        lines.append(f"| {ROWS[row]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if words:
        found = {data: collect(Path(out)) for data, out in zip(SETS, words, strict=True)}
    else:
        found = json.loads((HERE / "results.json").read_text())
    text = table(found)
    print(text)
    if "--write" in sys.argv:
        refresh(HERE, found, text)


if __name__ == "__main__":
    main()
