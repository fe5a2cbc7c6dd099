"""The sections of numbers and curves: AP, TIDE, precision and recall, confusion, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ld_hub.analysis import plots
from ld_hub.analysis.numbers import Analysis, minus
from ld_hub.analysis.page import Content, Html, Section, cell, grid, heading, note, table, tag
from ld_hub.evaluation.tide import MAIN, SPECIAL

NONE = "–"
SIZES = {"APs": "small, < 32² px", "APm": "medium", "APl": "large, > 96² px"}
MATRIX_CLASSES = 20  # more classes are shown as a list of the most frequent confusions
LISTED = 25


def percent(value: float | None, *, sign: bool = False) -> str:
    """A fraction times 100 with one decimal, as papers print AP."""
    if value is None or not np.isfinite(value):
        return NONE
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def in_short(analysis: Analysis) -> list[Content]:
    """A few sentences: what each detector gains over the first, and what its AP is lost to."""
    first = analysis.names[0]
    lines = []
    for name, one in analysis.judged.items():
        worst = max(MAIN, key=lambda kind: one.tide.main[kind])
        lost = f"without {worst} errors, its costliest, AP50 would be {percent(one.tide.main[worst])} higher"
        if name == first:
            lines.append(f"{name}: AP {percent(one.metrics['AP'])}; {lost}.")
            continue
        before = analysis.judged[first].metrics
        changes = ", ".join(
            f"{key} {percent(minus(one.metrics[key], before[key]), sign=True)}" for key in ("AP", "AP50", "AP75")
        )
        gains = [(label, gain) for label, gain in analysis.gains(name).items() if gain is not None]
        ends = ""
        if len(gains) > 1:
            (best, most), (last, least) = gains[0], gains[-1]
            ends = f" (by class from {percent(least, sign=True)}, {last}, to {percent(most, sign=True)}, {best})"
        lines.append(f"{name} against {first}: {changes}{ends}; {lost}.")
    return [tag("ul", *(tag("li", line) for line in lines))]


def average_precision(analysis: Analysis) -> Section:
    """AP of the detectors, by size and by class."""
    stats = {name: one.metrics.stats for name, one in analysis.judged.items()}
    keys = list(next(iter(stats.values())))
    lead = "A better detector has larger numbers in its row; all are fractions times 100."
    body: list[Content] = [
        table(["detector", *keys], ([name, *map(percent, row.values())] for name, row in stats.items()))
    ]
    sizes = [key for key in SIZES if key in keys]
    if sizes:
        values = {name: [_times_100(row[key]) for key in sizes] for name, row in stats.items()}
        alt = f"AP by box size of {', '.join(stats)}"
        chart = plots.bars([key for key in sizes], values, unit="AP, times 100", alt=alt)
        words = "; ".join(f"{key}: {SIZES[key]}" for key in sizes)
        body.append(grid([chart.html(f"AP by box size ({words}). No bar: 0, or no such boxes.")]))
    body += [heading("By class"), *_classes(analysis)]
    return Section("ap", "Average precision", lead, body)


def _classes(analysis: Analysis) -> list[Content]:
    """AP of each class, and what the others gain over the first detector."""
    names = analysis.names
    judged = analysis.judged
    boxes = judged[names[0]].metrics.boxes
    if len(names) == 1:
        aps = judged[names[0]].metrics.per_class
        order = sorted((label for label in aps if boxes[label]), key=lambda label: (-(aps[label] or 0.0), label))
        rows: Iterable[list[Content]] = ([label, boxes[label], percent(aps[label])] for label in order)
        return [table(["class", "boxes", f"AP of {names[0]}"], rows), *_unseen(boxes)]
    gains = {name: analysis.gains(name) for name in names[1:]}
    head = ["class", "boxes", *(f"AP of {name}" for name in names), *(f"{name} − {names[0]}" for name in names[1:])]
    rows = (
        [
            label,
            boxes[label],
            *(percent(judged[name].metrics.per_class[label]) for name in names),
            *(_gain(gains[name][label]) for name in names[1:]),
        ]
        for label in gains[names[1]]
        if boxes[label]
    )
    words = f"Sorted by the gain of {names[1]} over {names[0]}. Few boxes: a gain there may be chance."
    return [table(head, rows), note(words), *_unseen(boxes)]


def _unseen(boxes: Mapping[str, int]) -> list[Content]:
    """The classes without boxes in one line: of 80 there may be many."""
    names = [label for label, count in boxes.items() if not count]
    return [note(f"No boxes, so no AP ({NONE}): {', '.join(names)}.")] if names else []


def _gain(value: float | None) -> Html:
    kind = "" if value is None or abs(value) < 0.0005 else "gain" if value > 0 else "loss"
    return cell(percent(value, sign=True), class_=kind)


def _times_100(value: float | None) -> float | None:
    return None if value is None else 100 * value


def tide(analysis: Analysis) -> Section:
    """What AP is lost to."""
    errors = {name: one.tide for name, one in analysis.judged.items()}
    lead = "Each bar is the AP50 that mending one type of error would gain: the tallest is what to work on."
    words = (
        "Cls: right place, wrong class. Loc: right class, IoU 0.1 to 0.5. Both: wrong class and place. Dupe: a second "
        "detection of an object. Bkg: nothing there. Miss: an object that no detection is near. "
        "FP, FN: without any false detection, without any missed object."
    )
    alt = f"TIDE errors of {', '.join(errors)}"
    main = {name: [100 * one.main[kind] for kind in MAIN] for name, one in errors.items()}
    special = {name: [100 * one.special[kind] for kind in SPECIAL] for name, one in errors.items()}
    figures = [
        plots.bars(MAIN, main, unit="gain in AP50, times 100", alt=alt).html("The six types of TIDE."),
        plots.bars(SPECIAL, special, unit="gain in AP50, times 100", alt=f"{alt}, FP and FN").html(
            "All false, all missed."
        ),
    ]
    rows = (
        [
            name,
            percent(one.ap50),
            *(percent(one.main[kind]) for kind in MAIN),
            *(percent(one.special[kind]) for kind in SPECIAL),
        ]
        for name, one in errors.items()
    )
    counts: Iterable[list[Content]] = ([name, *(one.counts[kind] for kind in MAIN)] for name, one in errors.items())
    body = [
        grid(figures),
        table(["detector", "AP50", *MAIN, *SPECIAL], rows),
        note(words),
        heading("Number of errors"),
        table(["detector", *MAIN], counts),
        note("Of all detections, those with low scores too."),
    ]
    return Section("tide", "Types of error (TIDE)", lead, body)


def precision_recall(analysis: Analysis) -> Section:
    """Curves at three IoU thresholds."""
    curves = {name: one.curves for name, one in analysis.judged.items()}
    first = next(iter(curves.values()))
    figures = [
        plots.precision_recall(first.recall, {name: one.precision[iou] for name, one in curves.items()}, iou=iou).html(
            f"Precision over recall, IoU ≥ {iou:g}, mean over classes."
        )
        for iou in first.precision
    ]
    lead = "A curve further up and right is better; curves that part only at a high IoU differ in how well boxes fit."
    return Section("curves", "Precision and recall", lead, [grid(figures)])


def confusion(analysis: Analysis) -> Section:
    """Which class was taken for which."""
    names = analysis.dataset.label_names
    few = len(names) <= MATRIX_CLASSES
    body: list[Content] = []
    for name, one in analysis.judged.items():
        counts = one.confusion.counts
        body += [heading(name), _matrix(counts, names) if few else _confusions(counts, names)]
    first = next(iter(analysis.judged.values())).confusion
    body.append(
        note(
            f"Detections with a score above {first.score:g}; a detection belongs to a box from IoU {first.iou:g}. "
            "Last row: detections where nothing is. Last column: boxes that were missed."
        )
    )
    shown = "Rows are true classes, columns detected ones" if few else "The most frequent mistakes"
    lead = f"{shown}; without mistakes all detections of a class would be its own."
    return Section("confusion", "Confusion of classes", lead, body)


def _matrix(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], names: tuple[str, ...]) -> Html:
    """All counts, shaded by their share of the row."""
    words = (*names, "background")
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    rows = []
    for index, word in enumerate(words):
        line: list[Content] = [word]
        for column in range(len(words)):
            hue = "26,127,55" if index == column else "211,84,0"
            style = f"background:rgba({hue},{0.65 * share[index, column]:.2f})"
            line.append(cell(int(counts[index, column]) or "", style=style))
        rows.append(line)
    return table(["true \\ detected", *words], rows)


def _confusions(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], names: tuple[str, ...]) -> Html:
    """The largest counts off the diagonal."""
    words = (*names, "background")
    wrong = counts * (1 - np.eye(len(words), dtype=np.int64))
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    places = [divmod(int(place), len(words)) for place in order]
    rows: Iterable[list[Content]] = (
        [words[true], words[found], int(wrong[true, found]), percent(wrong[true, found] / counts[true].sum())]
        for true, found in places
        if wrong[true, found]
    )
    return table(["true", "detected as", "count", "% of the row"], rows)


def calibration(analysis: Analysis) -> Section:
    """Scores against overlaps."""
    found = {name: one.calibration for name, one in analysis.judged.items()}
    points = {name: (one.score, one.iou, one.count) for name, one in found.items()}
    lead = "On the dashed line a score says how well a box fits; below it scores promise too much."
    figure = plots.calibration(points).html(
        "Mean IoU of the detections with the best box of their class, in ten bins of score. Larger dots: more of them."
    )
    body: list[Content] = [grid([figure])]
    for name, one in found.items():
        rows: Iterable[list[Content]] = (
            [f"{low:.1f}–{high:.1f}", int(count), _number(score), _number(iou), percent(share)]
            for low, high, count, score, iou, share in zip(
                one.edges[:-1], one.edges[1:], one.count, one.score, one.iou, one.share, strict=True
            )
        )
        body += [heading(name), table(["score", "detections", "mean score", "mean IoU", "% with IoU ≥ 0.5"], rows)]
    return Section("calibration", "Score against overlap", lead, body)


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else NONE
