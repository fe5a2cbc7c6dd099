"""The tables of README.md from the runs' own files: python -m examples.temperature.table [OUT] [--write].

Runs that are not given are taken from results.json beside this file; --write refreshes it and README.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

from examples.lmo.table import show, spread

HERE = Path(__file__).parent
REGIONS = {"main": "`ld`", "vlr": "`ld_vlr`", "crossld": "`crossld`"}
CROSSED = ["alone", "crosskd", *(f"crossld-{cell}" for cell in ("T1-x4", "T2-x4", "T2-x16", "T10-x1"))]
GRID = [f"{region}-T{t}-x{times}" for region in ("main", "vlr") for t in (1, 2, 4, 10) for times in (1, 4)]
PLAN = [  # steps, seeds, students: what the study is to be made of
    (200, (0, 1, 2), CROSSED),
    (200, (0, 1), GRID),
    (1000, (0,), ["alone", *GRID]),
]


def collect(out: Path) -> dict:
    found: dict = json.loads((HERE / "results.json").read_text())
    for file in sorted(out.glob("*-*-*.json")):
        steps, seed, name = file.stem.split("-", 2)
        found["runs"].setdefault(steps, {}).setdefault(name, {})[seed] = json.loads(file.read_text())
    return found


def shapes(found: dict) -> str:
    heads = ["T", *(f"{key}, `{region}`" for region in ("main", "vlr") for key in ("bins", "pull", "peak"))]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    main, vlr = found["shapes"]["main"], found["shapes"]["vlr"]
    for temperature in main:
        cells = [f"{side[temperature][key]:.2f}" for side in (main, vlr) for key in ("bins", "pull", "peak")]
        lines.append(f"| {temperature} | {' | '.join(cells)} |")
    return "\n".join(lines)


def order(name: str) -> tuple[int, float, int]:
    """Students without a temperature first, then by region, temperature and weight."""
    region, _, cell = name.partition("-T")
    if not cell:
        return 0, 0.0, ["alone", "crosskd"].index(name)
    temperature, _, times = cell.partition("-x")
    return 1 + list(REGIONS).index(region), float(temperature), int(times)


def row(name: str, steps: str, runs: dict, alone: dict) -> str:
    region, _, cell = name.partition("-T")
    temperature, _, times = cell.partition("-x")
    title = "student alone" if name == "alone" else REGIONS.get(region, f"`{name}`")
    weight = f"{times} ×" if times else ""
    gains = [run["AP"] - alone[seed]["AP"] for seed, run in runs.items() if seed in alone]
    gain = f"{mean(gains):+.1f}" if gains and name != "alone" else ""
    gain += f" ± {stdev(gains):.1f}" if gain and len(gains) > 1 else ""
    shares = [
        f"`{term}` {mean(run['shares'][term] for run in runs.values()):.2f}"
        for term in next(iter(runs.values()))["shares"]
    ]
    ap = spread([run["AP"] for run in runs.values()])
    cells = (title, temperature, weight, steps, ", ".join(runs), ap, gain, "<br>".join(shares))
    return f"| {' | '.join(cells)} |"


def missing(found: dict) -> str:
    """Which of the planned runs are not made, in words."""
    lines = []
    for steps, seeds, names in PLAN:
        made = found["runs"].get(str(steps), {})
        for seed in seeds:
            left = [name for name in names if not {str(seed), f"{seed}*"} & set(made.get(name, {}))]
            if left:
                which = ", ".join(f"`{name}`" for name in left)
                lines.append(f"- {steps} steps, seed {seed}: {which}.")
    head = "Not made, of the runs that this study was to have:" if lines else "All runs of the study are made."
    return "\n".join([head, "", *lines] if lines else [head])


def runs(found: dict) -> str:
    heads = ("term", "T", "weight", "steps", "seeds", "AP", "AP above alone", "gradient / detection loss's")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for steps in sorted(found["runs"], key=int):
        of_steps = found["runs"][steps]
        lines += [row(name, steps, of_steps[name], of_steps.get("alone", {})) for name in sorted(of_steps, key=order)]
    return "\n".join(lines)


def tables(found: dict) -> str:
    return "\n\n".join([shapes(found), runs(found), missing(found)])


if __name__ == "__main__":
    show(HERE, collect, tables)
