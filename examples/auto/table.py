"""The table of README.md: python -m examples.auto.table [OUT] [--write].

Reads what choose.py has left in OUT, or else results.json beside this file; --write refreshes both.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from examples.auto.choose import REGIMES
from examples.lmo.table import refresh
from ld_hub.spread import Spread, paired

HERE = Path(__file__).parent
TITLES = {
    "alone": "student alone",
    "targets": "scored targets alone",
    "crosskd": "`crosskd`",
    "crosskd.fade": "`crosskd`, fading over the last third",
    "crossld": "`crossld`",
    "ld.T2": "`ld` at T = 2, weight x 4",
}
REGIME_TITLES = {"few": "60 labels, 1440 images without", "all": "all 1500 labels"}


def collect(out: Path) -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text()) for file in sorted(out.glob("*-*-*.json"))}


def table(found: dict[str, dict]) -> str:
    seeds = sorted({key.split("-")[0] for key in found})
    lines = [
        f"Seeds {', '.join(seeds)}; mean ± standard deviation.",
        "",
        "| training | AP | AP above the student alone | seconds over the student alone's |",
        "|---|---|---|---|",
    ]
    for regime, names in REGIMES.items():
        lines.append(f"| **{REGIME_TITLES[regime]}** | | | |")
        for name in ("alone", *names):
            runs = {seed: found[f"{seed}-{regime}-{name}"] for seed in seeds if f"{seed}-{regime}-{name}" in found}
            alone = {seed: found[f"{seed}-{regime}-alone"] for seed in runs}
            if not runs:
                continue
            gain = paired({s: r["AP"] for s, r in runs.items()}, {s: r["AP"] for s, r in alone.items()})
            cost = Spread.of([run["seconds"] / alone[seed]["seconds"] for seed, run in runs.items()])
            cells = ("", "") if name == "alone" else (gain.text(sign="+"), cost.text(1))
            lines.append(
                f"| {TITLES[name]} | {Spread.of([r['AP'] for r in runs.values()]).text()} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def main() -> None:
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    stored = HERE / "results.json"
    found = collect(Path(words[0])) if words else json.loads(stored.read_text())
    print(table(found))
    if "--write" in sys.argv:
        refresh(HERE, found, table(found))


if __name__ == "__main__":
    main()
