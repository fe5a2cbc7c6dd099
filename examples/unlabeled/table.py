"""The table of README.md from the runs' own files: python examples/unlabeled/table.py OUT [--write].

--write also refreshes results.json beside this file and the table in README.md. Without runs at hand, the table is
made from results.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, stdev

from examples.lmo.table import read_run, refresh, spread

HERE = Path(__file__).parent
ROWS = {
    "alone": "student alone",
    "alone.twice": "student alone, twice the steps",
    "vlr": "`vlr` on the labelled images",
    "terms.vlr": "`vlr` on all images",
    "targets": "scored targets",
    "targets.vlr": "scored targets, `vlr` on all images",
    "targets.bckd": "scored targets, `bckd` on all images",
    "targets.crosskd": "scored targets, `crosskd` on all images",
}
SEEDS = (0, 1, 2)


def collect(out: Path) -> dict:
    found: dict = {"teacher": read_run(out / "teacher")}
    for row in ROWS:
        runs = {seed: out / f"{row}-{seed}" for seed in SEEDS}
        done = {str(seed): read_run(run) for seed, run in runs.items() if (run / "result.json").is_file()}
        if done:
            found[row] = done
    return found


def paired(found: dict, row: str) -> str:
    """AP above the student alone, seed by seed."""
    seeds = [seed for seed in found[row] if seed in found["alone"]]
    gains = [found[row][seed]["AP"] - found["alone"][seed]["AP"] for seed in seeds]
    return f"{mean(gains):+.1f} ± {stdev(gains):.1f}" if len(gains) > 1 else f"{gains[0]:+.1f}"


def tables(found: dict) -> str:
    lines = [
        f"Teacher: AP {found['teacher']['AP']:.1f}.",
        "",
        "| training | seeds | steps | AP | AP50 | AP above the student alone | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, title in ROWS.items():
        runs = list(found.get(row, {}).values())
        if runs:
            ap, ap50 = (spread([run[key] for run in runs]) for key in ("AP", "AP50"))
            gain = "" if row == "alone" else paired(found, row)
            seconds = spread([run["seconds"] for run in runs], 0)
            lines.append(f"| {title} | {len(runs)} | {runs[0]['steps']} | {ap} | {ap50} | {gain} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    found = collect(Path(words[0])) if words else json.loads((HERE / "results.json").read_text())
    text = tables(found)
    print(text)
    if "--write" in sys.argv:
        refresh(HERE, found, text)


if __name__ == "__main__":
    main()
