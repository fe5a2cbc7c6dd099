"""Curves of runs as a picture, where matplotlib is installed (extra `plot`)."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.analysis.curves import Curve
from ld_hub.hub import atomic_file

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

COLUMNS = 3
MISSING = "matplotlib is not installed (`pip install 'ld_hub[plot]'`)"
_PANELS = {  # beginning of a name -> label of the axis, factor, logarithmic
    "eval/": ("x100", 100.0, False),
    "share/": ("gradient / detection's", 1.0, True),
    "scale/": ("factor of the term", 1.0, True),
    "grad_norm": ("norm before clipping", 1.0, False),
    "lr": ("learning rate", 1.0, False),
    "": ("weighted loss", 1.0, False),
}
LOWEST = 0.5  # of the least mean: where a logarithmic axis begins at the latest
_LINES = ("-", "--", ":", "-.")


def plot_curves(panels: Mapping[str, Mapping[str, Curve]], path: Path) -> bool:
    """Draw each quantity over the steps, one line per group of runs, mean and standard deviation.

    Args:
        panels: Curves by quantity and group, as of `ld_hub.analysis.curves.panels`.
        path: PNG to be written.

    Returns:
        Whether it was drawn: False without matplotlib, or without curves.
    """
    if importlib.util.find_spec("matplotlib") is None or not panels:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    rows = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.7 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    lines: dict[str, Line2D] = {}
    for index, (name, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, COLUMNS, index + 1)
        single = all(len(curve.steps) == 1 for curve in curves.values())
        for group, curve in curves.items():
            number = groups.index(group)
            place = (number,) if single else curve.steps  # points of one step lie side by side
            lines[group] = _line(axes, curve, place, number, _axis(name)[1])
        _finish(axes, name, sorted({curve.steps[-1] for curve in curves.values()}) if single else [])
    spread = any(curve.runs > 1 for curves in panels.values() for curve in curves.values())
    title = "mean over runs; bands and bars: ± 1 standard deviation" if spread else None
    if len(groups) > 1 or spread:
        counts = {group: _runs(panels, group) for group in groups}
        names = [f"{group} ({count} runs)" if count > 1 else group for group, count in counts.items()]
        columns = min(4, len(groups), max(1, 110 // (6 + max(map(len, names)))))
        handles = [lines[group] for group in groups]
        figure.legend(handles, names, loc="outside upper center", ncols=columns, frameon=False, title=title)
    with atomic_file(path) as beside:
        figure.savefig(beside, dpi=90, format="png")
    return True


def _line(axes: Any, curve: Curve, place: Sequence[int], number: int, factor: float) -> Line2D:
    """Mean and band of a curve; a few points alone are marked, with bars instead of a band."""
    mean, std = ([factor * value for value in values] for values in (curve.mean, curve.std))
    style = {"color": f"C{number % 10}", "linestyle": _LINES[number // 10 % len(_LINES)]}
    few = len(place) < 4
    line: Line2D
    (line,) = axes.plot(place, mean, linewidth=1.4, marker="o" if few else "", markersize=4, **style)
    if curve.runs > 1 and few:
        axes.errorbar(place, mean, yerr=std, fmt="none", ecolor=style["color"], capsize=4)
    elif curve.runs > 1:
        low = [max(m - s, 0.02 * m) for m, s in zip(mean, std, strict=True)]  # a logarithmic axis has no 0
        high = [m + s for m, s in zip(mean, std, strict=True)]
        axes.fill_between(place, low, high, color=style["color"], alpha=0.2, linewidth=0)
    return line


def _finish(axes: Any, name: str, single: Sequence[int]) -> None:
    """Axes, names and units; `single`: the steps of curves that have only one each."""
    label, _, logarithmic = _axis(name)
    axes.margins(0.15 if single else 0.02, 0.08)
    if logarithmic and all(value > 0 for line in axes.get_lines() for value in line.get_ydata()):
        axes.set_yscale("log")
        # a band whose std is about its mean would reach down without end
        least = min(min(line.get_ydata()) for line in axes.get_lines())
        axes.set_ylim(bottom=max(axes.get_ylim()[0], LOWEST * least))
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "125" else "")
    elif not single:
        axes.set_ylim(0, None)
    axes.set(title=name.removeprefix("eval/"), xlabel="optimizer step", ylabel=label)
    if single:
        steps = "..".join(str(step) for step in dict.fromkeys((single[0], single[-1])))
        axes.set(title=f"{name.removeprefix('eval/')} after step {steps}", xlabel="", xticks=[])
    axes.grid(alpha=0.3)


def _axis(name: str) -> tuple[str, float, bool]:
    return next(values for start, values in _PANELS.items() if name.startswith(start))


def _runs(panels: Mapping[str, Mapping[str, Curve]], group: str) -> int:
    return max(curves[group].runs for curves in panels.values() if group in curves)
