"""The table of README.md: python -m examples.balance.table [LMO_OUT DEMO_OUT] [--write].

Reads the runs of examples/lmo/run.sh and of run.sh; --write also refreshes results.json beside this file and README.md.
Without directories, the table is made from results.json.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from examples.lmo.table import ROWS, SEEDS, read_run, show, spread

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


def collect_all(*places: Path) -> dict:
    return {data: collect(out) for data, out in zip(SETS, places, strict=True)}


if __name__ == "__main__":
    show(HERE, collect_all, table)
