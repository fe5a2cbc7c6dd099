"""Numbers to figures, as SVG; the only user of matplotlib here (extra `plot`)."""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ld_hub.analysis.page import Picture
from ld_hub.errors import ConfigError

Floats = npt.NDArray[np.float64]

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart with any colour vision
WIDTH = 4.6  # inches; narrow, so that letters stay readable where a phone shrinks the figure
LEAST_MASS = 0.01  # bins beyond the last with so much are not shown
SIDES = ("left", "top", "right", "bottom")


def require_matplotlib() -> None:
    """Make sure that figures can be drawn.

    Raises:
        ConfigError: Without matplotlib; says how to get it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError('The report needs matplotlib, which is not installed: pip install "ld_hub[plot]".')


def color_of(index: int) -> str:
    """The colour of the report's detector number `index`, in every figure."""
    return COLORS[index % len(COLORS)]


def plain_text(text: str, most: int = 28) -> str:
    """A name that matplotlib draws as it is: no formula in it, one line, not too long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    short = line if len(line) <= most else line[: most - 1] + "…"
    return short.encode("utf-8", "replace").decode("utf-8").replace("$", r"\$")


def _figure(height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _svg(figure: Any, alt: str) -> Picture:
    import matplotlib

    stream = io.BytesIO()
    # paths instead of text: no font has to be there, and no name stands in the file; no date: same numbers, same file
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "ld_hub"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    wide, high = figure.get_size_inches() * 96
    return Picture(stream.getvalue(), "svg+xml", round(wide), round(high), alt)


def _finish(axes: Any, legend: bool = True) -> None:
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    if legend:
        axes.legend(fontsize=8.5, frameon=False)


def bars(
    groups: Sequence[str], values: Mapping[str, Sequence[float | None]], *, unit: str, alt: str, height: float = 2.9
) -> Picture:
    """Bars side by side, one colour per detector.

    Args:
        groups: Names along the axis.
        values: One number for each group, by detector; None draws nothing.
        unit: Of the numbers.
        alt: What it shows.
        height: Inches.
    """
    figure, ((axes,),) = _figure(height)
    wide = 0.8 / max(1, len(values))
    for index, (name, numbers) in enumerate(values.items()):
        place = np.arange(len(groups)) - 0.4 + (index + 0.5) * wide
        shown = [0.0 if number is None else number for number in numbers]
        axes.bar(place, shown, wide * 0.92, label=plain_text(name), color=color_of(index))
    axes.set_xticks(range(len(groups)), [plain_text(group) for group in groups])
    axes.set_ylabel(unit)
    axes.margins(x=0.02)
    _finish(axes)
    axes.grid(visible=False, axis="x")
    return _svg(figure, alt)


def precision_recall(recall: Floats, precision: Mapping[str, Floats | None], *, iou: float) -> Picture:
    """Precision over recall at one IoU threshold, one line per detector."""
    figure, ((axes,),) = _figure(3.0)
    for index, (name, values) in enumerate(precision.items()):
        if values is not None:
            axes.plot(recall, values, label=plain_text(name), color=color_of(index), linewidth=1.6)
    axes.set(xlabel="recall", ylabel="precision, mean over classes", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"IoU ≥ {iou:g}", fontsize=10)
    _finish(axes)
    return _svg(figure, f"Precision over recall at IoU {iou:g} of {', '.join(precision)}")


def calibration(points: Mapping[str, tuple[Floats, Floats, npt.NDArray[np.int64]]]) -> Picture:
    """Mean IoU over mean score.

    Args:
        points: By detector, mean scores, mean IoUs (NaN in empty bins) and numbers of detections.
    """
    figure, ((axes,),) = _figure(3.2)
    axes.plot([0, 1], [0, 1], color="#888", linestyle="--", linewidth=1, label="score = IoU")
    for index, (name, (score, iou, count)) in enumerate(points.items()):
        known = np.isfinite(score) & np.isfinite(iou)
        size = 14 + 90 * np.sqrt(count[known] / max(1, count.max(initial=1)))
        axes.plot(score[known], iou[known], color=color_of(index), linewidth=1.2, label=plain_text(name))
        axes.scatter(score[known], iou[known], s=size, color=color_of(index), alpha=0.7)
    axes.set(xlabel="mean score of the detections in a bin", ylabel="their mean IoU", xlim=(0, 1), ylim=(0, 1))
    _finish(axes)
    return _svg(figure, f"Mean IoU over mean score of {', '.join(points)}")


def entropy_histogram(entropy: Floats, iou: Floats, limit: float, *, name: str, color: int) -> Picture:
    """How many candidates have which IoU and edge entropy."""
    figure, ((axes,),) = _figure(3.0)
    counts, across, up = np.histogram2d(iou, entropy, bins=(25, 25), range=((0, 1), (0, limit)))
    shown = np.ma.masked_equal(counts.T, 0)
    mesh = axes.pcolormesh(across, up, shown, cmap="viridis", norm="log" if counts.max() > 0 else None, rasterized=True)
    if counts.max() > 0:
        figure.colorbar(mesh, ax=axes, label="candidates (log scale)")
    axes.set(xlabel="IoU with its object", ylabel="mean edge entropy, nats", xlim=(0, 1), ylim=(0, limit))
    axes.set_title(plain_text(name, 40), fontsize=10, color=color_of(color))
    _finish(axes, legend=False)
    return _svg(figure, f"Edge entropy over IoU of the candidates of {name}")


def entropy_means(means: Mapping[str, Floats], colors: Mapping[str, int]) -> Picture:
    """Mean edge entropy over IoU, one line per detector."""
    figure, ((axes,),) = _figure(3.0)
    for name, values in means.items():
        middle = (np.arange(len(values)) + 0.5) / len(values)
        axes.plot(middle, values, marker="o", markersize=4, label=plain_text(name), color=color_of(colors[name]))
    axes.set(xlabel="IoU with its object", ylabel="mean edge entropy, nats", xlim=(0, 1), ylim=(0, None))
    _finish(axes)
    return _svg(figure, f"Mean edge entropy over IoU of {', '.join(means)}")


def edges(truth: Floats, bins: Mapping[str, Floats], colors: Mapping[str, int], *, alt: str) -> Picture:
    """The four edge distributions of one object.

    Args:
        truth: ``(4, R+1)`` the ground truth's.
        bins: By detector, ``(4, R+1)`` probabilities.
        colors: Number of each detector's colour.
        alt: What it shows.
    """
    mass = [np.asarray(values).max(axis=0) for values in (truth, *bins.values())]
    used = max(int(np.flatnonzero(some > LEAST_MASS).max(initial=0)) for some in mass)
    figure, grid = _figure(3.7, 2, 2)
    for side, axes in enumerate(grid.flat):
        axes.bar(range(truth.shape[1]), truth[side], 0.95, color="#c9ced4", label="ground truth")
        for name, values in bins.items():
            line = {"color": color_of(colors[name]), "linewidth": 1.5, "marker": ".", "markersize": 4}
            axes.plot(range(values.shape[1]), values[side], label=plain_text(name), **line)
        axes.set_title(SIDES[side], fontsize=9.5)
        axes.set(ylim=(0, 1), xlim=(-0.6, max(4, used) + 0.6))
        axes.xaxis.get_major_locator().set_params(integer=True)
        _finish(axes, legend=False)
    figure.supxlabel("distance from the place to the edge, strides", fontsize=9)
    figure.supylabel("probability", fontsize=9)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8.5, frameon=False, loc="outside upper center", ncols=2)
    return _svg(figure, alt)


def color_bar(largest: float, label: str) -> Picture:
    """What the colours of heat maps mean, from 0 to `largest`."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, ((axes,),) = _figure(0.65)
    figure.colorbar(ScalarMappable(Normalize(0, largest), "inferno"), cax=axes, orientation="horizontal")
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(labelsize=8.5)
    return _svg(figure, f"Colours from 0 (dark) to {largest:.2g} (bright): {label}")


def heat_colors(values: Floats, largest: float) -> npt.NDArray[np.uint8]:
    """``(h, w)`` numbers from 0 to `largest` as ``(h, w, 3)`` colours of `color_bar`."""
    from matplotlib import colormaps

    share = np.clip(values / largest if largest > 0 else values * 0, 0, 1)
    colors: npt.NDArray[np.uint8] = colormaps["inferno"](share, bytes=True)[..., :3]
    return colors
