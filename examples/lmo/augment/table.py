"""The table of README.md from the runs' own files: python -m examples.lmo.augment.table OUT [--write].

Without OUT the stored runs are taken from results.json beside this file.
"""

from __future__ import annotations

from pathlib import Path

from examples.lmo.table import read_run, show
from ld_hub.spread import Spread, paired

HERE = Path(__file__).parent
PRESETS = ("none", "flip", "standard", "strong")
KINDS = {"alone": "student alone", "auto": "`auto`"}


def collect(out: Path) -> dict:
    """AP and seconds by kind, preset and seed."""
    found: dict = {kind: {preset: {} for preset in PRESETS} for kind in KINDS}
    for result in sorted(out.glob("*.*-*/result.json")):
        name, seed = result.parent.name.rsplit("-", 1)
        kind, preset = name.split(".")
        run = read_run(result.parent)
        found[kind][preset][seed] = {"AP": run["AP"], "AP50": run["AP50"], "steps": run["steps"]}
    return found


def table(found: dict) -> str:
    lines = ["| training | augment | seeds | AP | AP50 | above `flip` |", "|---|---|---|---|---|---|"]
    for kind, title in KINDS.items():
        usual = {seed: run["AP"] for seed, run in found[kind]["flip"].items()}
        for preset, runs in found[kind].items():
            if runs:
                points = {seed: run["AP"] for seed, run in runs.items()}
                gain = paired(points, usual) if preset != "flip" else None
                ap50 = Spread.of([run["AP50"] for run in runs.values()]).text()
                above = "" if gain is None else gain.text(sign="+")
                ap = Spread.of(list(points.values())).text()
                lines.append(f"| {title} | `{preset}` | {', '.join(runs)} | {ap} | {ap50} | {above} |")
    return "\n".join(lines)


if __name__ == "__main__":
    show(HERE, collect, table)
