"""Curves of a run as a picture, where matplotlib is installed (extra `plot`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from ld_hub.hub import atomic_file


def plot_losses(courses: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> bool:
    """Draw each loss over the steps, one line per run.

    Args:
        courses: Records of each run by name: ``step`` and losses; other entries (shares) are left out.
        path: PNG to be written.

    Returns:
        Whether it was drawn: False without matplotlib.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    every = {name for records in courses.values() for record in records for name in record}
    names = sorted((n for n in every if n.startswith(("loss_", "distill_"))), key=lambda n: (n[0] != "l", n))
    columns = 3
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for index, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, index + 1)
        for color, (run, records) in enumerate(courses.items()):
            points = [(record["step"], record[name]) for record in records if name in record]
            if points:
                axes.plot(*zip(*points, strict=True), label=run, color=f"C{color}", linewidth=1.4)
        axes.set(title=name, xlabel="optimizer step", ylabel="weighted loss", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
    with atomic_file(path) as beside:
        figure.savefig(beside, dpi=90)
    return True
