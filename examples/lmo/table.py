"""Tables of README.md from the runs' own files: python examples/lmo/table.py OUT [--write].

Reads result.json and metrics.jsonl of every run below OUT; --write also refreshes results.json beside this file and the
tables in README.md. Without OUT's runs at hand, the tables are made from results.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

from ld_hub.spread import Spread

HERE = Path(__file__).parent
ROWS = {
    "alone": "plain",
    "kd": "`kd`",
    "ld": "`ld`",
    "vlr": "`vlr`",
    "bckd": "`bckd`",
    "fine_grained": "`fine_grained`",
    "gi": "`gi`",
    "pkd": "`pkd`",
    "crosskd": "`crosskd`",
    "vlr.balanced": "`vlr`, `--balance gradient`",
    "bckd.balanced": "`bckd`, `--balance gradient`",
    "alone.vlr": "plain, as long as `vlr`",
    "alone.crosskd": "plain, as long as `crosskd`",
}
SEEDS = (0, 1, 2)


def read_run(run: Path) -> dict:
    result = json.loads((run / "result.json").read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    shares: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.items():
            if name.startswith("share/"):
                shares.setdefault(name.removeprefix("share/"), []).append(value)
    stats, last = result["metrics"]["stats"], [record for record in records if "loss" in record][-1]
    spent = run / "cpu_seconds"
    return {
        "steps": result["steps"],
        "seconds": float(spent.read_text()) if spent.is_file() else result["seconds"],
        **{key: 100 * stats[key] for key in ("AP", "AP50", "AP75")},
        "shares": {name: mean(values) for name, values in shares.items()},
        "losses": {name: value for name, value in last.items() if name.startswith(("loss", "distill"))},
    }


def collect(out: Path) -> dict:
    found: dict = {"teacher": read_run(out / "teacher")}
    for row in ROWS:
        runs = [out / f"{row}-{seed}" for seed in SEEDS]
        done = [read_run(run) for run in runs if (run / "result.json").is_file()]
        if done:
            found[row] = done
    return found


def spread(values: list[float], digits: int = 1) -> str:
    return Spread.of(values).text(digits)


def tables(found: dict) -> str:
    teacher = found["teacher"]
    lines = [
        f"Teacher: AP {teacher['AP']:.1f}, AP50 {teacher['AP50']:.1f}, AP75 {teacher['AP75']:.1f} after "
        f"{teacher['steps']} steps ({teacher['seconds']:.0f} s).",
        "",
        "| training | steps | AP | AP50 | AP75 | CPU seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row, title in ROWS.items():
        runs = found.get(row)
        if runs:
            cells = [spread([run[key] for run in runs]) for key in ("AP", "AP50", "AP75")]
            steps = spread([float(run["steps"]) for run in runs], 0).replace(" ± 0", "")
            seconds = spread([run["seconds"] for run in runs], 0)
            lines.append(f"| {title} | {steps} | {' | '.join(cells)} | {seconds} |")
    lines += ["", "| training | term | gradient / detection loss's |", "|---|---|---|"]
    for row, title in ROWS.items():
        runs = found.get(row, [])
        for term in runs[0]["shares"] if runs else ():
            lines.append(f"| {title} | `{term}` | {spread([run['shares'][term] for run in runs], 2)} |")
    return "\n".join(lines)


def refresh(here: Path, found: dict, text: str) -> None:
    """Write results.json of a directory, and its README.md with another text between the table's marks."""
    (here / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    readme = (here / "README.md").read_text()
    begin, end = "<!-- table:begin -->", "<!-- table:end -->"
    head, rest = readme.split(begin)
    (here / "README.md").write_text(f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def show(here: Path, collect: Callable[..., dict], tables: Callable[[dict], str]) -> None:
    """What such a script does: print the tables of the places that were typed, or of the stored results; store both.

    Args:
        here: Directory of the script.
        collect: Makes the results from the places typed.
        tables: Makes the text from results.
    """
    places = [Path(word) for word in sys.argv[1:] if not word.startswith("--")]
    found = collect(*places) if places else json.loads((here / "results.json").read_text())
    text = tables(found)
    print(text)
    if "--write" in sys.argv:
        refresh(here, found, text)


if __name__ == "__main__":
    show(HERE, collect, tables)
