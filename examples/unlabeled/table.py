"""The tables of README.md from the runs' own files: python -m examples.unlabeled.table [demo=OUT] [lmo=OUT] [--write].

What is not given is taken from results.json beside this file; --write refreshes it and the tables in README.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from examples.lmo.table import read_run, refresh, spread
from ld_hub.spread import paired

HERE = Path(__file__).parent
DATA = {
    "demo": "Generated images, 60 with labels and 1440 without",
    "lmo": "Photographs, 30 with labels and 80 without",
}
ROWS = {
    "alone": "student alone",
    "alone.twice": "student alone, twice the steps",
    "vlr": "`vlr` on the labelled images",
    "crosskd": "`crosskd` on the labelled images",
    "terms.vlr": "`vlr` on all images",
    "terms.crosskd": "`crosskd` on all images",
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


def above_alone(found: dict, row: str) -> str:
    """AP above the student alone, seed by seed."""
    ap, alone = ({seed: run["AP"] for seed, run in found[name].items()} for name in (row, "alone"))
    gain = paired(ap, alone)
    return "" if gain is None else gain.text(sign="+")


def table(data: str, found: dict) -> str:
    lines = [
        f"{DATA[data]}; teacher: AP {found['teacher']['AP']:.1f}.",
        "",
        "| training | seeds | steps | AP | AP50 | AP above the student alone | CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, title in ROWS.items():
        runs = list(found.get(row, {}).values())
        if runs:
            ap, ap50, seconds = (
                spread([run[k] for run in runs], d) for k, d in (("AP", 1), ("AP50", 1), ("seconds", 0))
            )
            gain = "" if row == "alone" else above_alone(found, row)
            seeds = ", ".join(found[row])
            lines.append(f"| {title} | {seeds} | {runs[0]['steps']} | {ap} | {ap50} | {gain} | {seconds} |")
    return "\n".join(lines)


def main() -> None:
    stored = HERE / "results.json"
    found = json.loads(stored.read_text()) if stored.is_file() else {}
    for word in sys.argv[1:]:
        if not word.startswith("--"):
            data, _, out = word.partition("=")
            found[data] = collect(Path(out))
    text = "\n\n".join(table(data, found[data]) for data in DATA if data in found)
    print(text)
    if "--write" in sys.argv:
        refresh(HERE, found, text)


if __name__ == "__main__":
    main()
