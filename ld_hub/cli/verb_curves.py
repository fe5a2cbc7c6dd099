"""`ld-hub curves`: what training runs logged, over their steps, several on one plot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ld_hub.cli.places import check_directory, require_directory
from ld_hub.errors import ConfigError, MissingFileError

_DESCRIPTION = """\
Draw what training runs logged: AP, losses, each distillation term, gradients,
learning rate. Runs that differ only in their seed become one line, mean and
standard deviation, called after what tells it from the others; --group puts
others together. A run with a comparison.json (ld_hub.distill --compare_alone
or --seeds) becomes the lines of that: distilled, alone for as many steps, alone
for as many seconds. Writes OUT/curves.png, OUT/curves.csv, and prints the last
AP."""

_EPILOG = """\
examples:
  ld-hub curves runs/student
  ld-hub curves runs/alone-* runs/vlr-* --out curves
  ld-hub curves --group plain=runs/a,runs/b --group balanced=runs/c,runs/d

share/TERM is the size of the term's gradient over that of the detection loss,
where both act on the model's predictions; grad_norm is of all weights together.
In the CSV, AP is a fraction, and `runs` is how many the mean is over."""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "curves",
        help="draw losses, gradients and AP of training runs",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN_DIR", help="directory of a training run")
    add("--group", action="append", default=[], metavar="NAME=DIR,DIR", help="runs that are one line; repeatable")
    add("--out", type=Path, default=Path("curves"), metavar="DIR", help="where they go (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Write picture and numbers, print the table; returns the exit code."""
    check_directory(args.out)
    named = _named(args.group)
    for run in [*args.runs, *(run for runs in named.values() for run in runs)]:
        require_directory(run, "training run")
        if not any((run / file).is_file() for file in ("config.json", "comparison.json")):
            raise MissingFileError(f"'{run}' is not the directory of a training run: it lacks config.json.")
    if not args.runs and not named:
        raise ConfigError("Name at least one run directory.")

    from ld_hub.analysis.curve_plots import MISSING, plot_curves
    from ld_hub.analysis.curves import comparisons, final_table, group_runs, panels, with_one_end, write_csv

    beside = comparisons(args.runs)
    inside = {run for runs in beside.values() for run in runs}
    groups = group_runs([run for run in args.runs if run not in inside], {**beside, **named})
    curves = panels([with_one_end(group) if group.name in beside else group for group in groups])
    if not curves:
        raise ConfigError(f"Nothing has been logged yet in {', '.join(map(str, args.runs)) or 'these runs'}.")
    print(final_table(groups))
    print("\nAP x100 of the last evaluation, ± standard deviation over the runs.")
    written = [write_csv(curves, args.out / "curves.csv")]
    if plot_curves(curves, args.out / "curves.png"):
        written.append(args.out / "curves.png")
    else:
        print(f"no picture: {MISSING}.")
    print(f"written: {', '.join(map(str, written))}")
    return 0


def _named(texts: Sequence[str]) -> dict[str, list[Path]]:
    """Groups that were put together by hand.

    Raises:
        ConfigError: If one is not ``NAME=DIR,DIR``, or two have the same name.
    """
    groups: dict[str, list[Path]] = {}
    for text in texts:
        name, _, places = text.partition("=")
        paths = [Path(place) for place in places.split(",") if place]
        if not name or not paths or name in groups:
            raise ConfigError(f"--group '{text}': expected NAME=DIR,DIR,..., each name once.")
        groups[name] = paths
    return groups
