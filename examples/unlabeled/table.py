"""The tables of README.md from the runs' own files: python -m examples.unlabeled.table [demo=OUT] [lmo=OUT] [--write].

Runs that are not given are taken from results.json beside this file; --write refreshes it and the tables in README.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from examples.lmo.table import read_run, refresh
from ld_hub.spread import Spread, paired

HERE = Path(__file__).parent
TITLES = {
    "demo-few": "Generated images, 60 with labels and 1440 without",
    "demo-all": "Generated images, all 1500 with labels",
    "lmo-few": "Photographs, 30 with labels and 80 without; student from random numbers",
    "lmo-all": "Photographs, all 110 with labels; student from random numbers",
    "lmo-imagenet": "Photographs, 30 with labels and 80 without; student from ImageNet weights",
    "lmo-imagenet.all": "Photographs, all 110 with labels; student from ImageNet weights",
}
ROWS = {
    "alone": "student alone",
    "alone.twice": "student alone, longer",
    "alone.equal": "student alone, for as many seconds as `auto`",
    "alone.long": "student alone, longest",
    "vlr": "`vlr`",
    "bckd": "`bckd`",
    "ld.T2": "`ld` at T = 2, weight × 4",
    "targets": "scored targets",
    "targets.vlr": "scored targets, `vlr` on all images",
    "targets.bckd": "scored targets, `bckd` on all images",
    "targets.crossld": "scored targets, `crossld` on all images",
    "crossld": "`crossld`",
    "targets.crossld.x4": "scored targets, `crossld` with box weights / 4 on all images",
    "crossld.x4": "`crossld` with box weights / 4",
    "auto.fade": "`auto`, terms fading over the last third",
    "auto.balanced": "`auto`, terms at 0.3 of the detection loss's gradient each",
    "auto": "`auto`",
}
ENOUGH = "alone.twice"  # trained about as many seconds as `auto`, or more
EQUAL = {**dict.fromkeys(("demo-all", "lmo-all", "lmo-imagenet.all"), ENOUGH), "lmo-imagenet": "alone.equal"}
FOUND = {"crosskd": "auto", "crosskd.fade": "auto.fade"}  # names of demo.py
TERMS = ("vlr", "bckd", "crossld", "crossld.x4")  # of demo.py; with few labels they come on top of scored targets
SEEDS = (0, 1, 2)


def collect_demo(out: Path) -> dict[str, dict]:
    """What demo.py has left: ``SEED-REGIME-NAME.json``."""
    found: dict[str, dict] = {}
    for file in sorted(out.glob("*-*-*.json")):
        seed, regime, name = file.stem.split("-", 2)
        row = FOUND.get(name, f"targets.{name}" if regime == "few" and name in TERMS else name)
        found.setdefault(f"demo-{regime}", {}).setdefault(row, {})[seed] = json.loads(file.read_text())
    return found


def collect_lmo(out: Path) -> dict[str, dict]:
    """What lmo.sh has left: a run directory ``NAME-SEED`` for each."""
    found: dict[str, dict] = {}
    for result in sorted(out.glob("*-*/result.json")):
        name, seed = result.parent.name.rsplit("-", 1)
        part = next((part for part in ("imagenet.all", "imagenet", "all") if name.startswith(f"{part}.")), "few")
        row = name.removeprefix(f"{part}.")
        run = read_run(result.parent)
        facts = {"AP": run["AP"], "steps": run["steps"], "seconds": run["seconds"]}
        found.setdefault(f"lmo-{part}", {}).setdefault(row, {})[seed] = facts
    for rows in found.values():  # seconds mean something beside those of the same machine alone
        for runs in rows.values():
            for seed, run in runs.items():
                if seed in rows.get("alone", {}):
                    run["cost"] = run["seconds"] / rows["alone"][seed]["seconds"]
    return found


def table(key: str, rows: dict[str, dict]) -> str:
    lines = [
        f"**{TITLES[key]}**",
        "",
        "| training | seeds | steps | AP | above the student alone | and for as many seconds | cost |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, title in ROWS.items():
        runs = rows.get(row, {})
        if runs:
            gain = "" if row == "alone" else above(runs, rows["alone"])
            same = above(runs, rows.get(EQUAL.get(key, "alone.long"), {})) if row == "auto" else ""
            ap, steps = Spread.of([run["AP"] for run in runs.values()]).text(), next(iter(runs.values()))["steps"]
            cells = [title, ", ".join(runs), str(steps), ap, gain, same, cost(runs)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def above(runs: dict, others: dict) -> str:
    """AP above other runs, seed by seed."""
    found = paired({seed: run["AP"] for seed, run in runs.items()}, {seed: run["AP"] for seed, run in others.items()})
    return "" if found is None else found.text(sign="+")


def cost(runs: dict) -> str:
    """Seconds over those of the student alone, seed by seed, as far as both were measured at one time."""
    ratios = [run["cost"] for run in runs.values() if "cost" in run]
    return f"{Spread.of(ratios).mean:.1f} ×" if ratios else ""


def text(found: dict[str, dict]) -> str:
    return "\n\n".join(table(key, found[key]) for key in TITLES if key in found)


def main() -> None:
    stored = HERE / "results.json"
    found = json.loads(stored.read_text()) if stored.is_file() else {}
    for word in sys.argv[1:]:
        data, _, out = word.partition("=")
        if data in COLLECT:
            for key, rows in COLLECT[data](Path(out)).items():
                for row, runs in rows.items():
                    found.setdefault(key, {}).setdefault(row, {}).update(runs)
    print(text(found))
    if "--write" in sys.argv:
        refresh(HERE, found, text(found))


COLLECT = {"demo": collect_demo, "lmo": collect_lmo}

if __name__ == "__main__":
    main()
