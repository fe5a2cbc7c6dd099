"""From detectors and images to report.html and analysis.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ld_hub.analysis import exhibits, plots, sections
from ld_hub.analysis.choice import example_images
from ld_hub.analysis.collect import Progress, Subject, collect
from ld_hub.analysis.numbers import Analysis, analyse
from ld_hub.analysis.page import Content, Section, note, page
from ld_hub.data import DetectionSet
from ld_hub.errors import ConfigError, EvaluationError
from ld_hub.hub import atomic_write
from ld_hub.version import __version__

REPORT, NUMBERS = "report.html", "analysis.json"
EXAMPLES = 8  # images whose maps and edges are read, to choose from


def analyze(
    subjects: Sequence[Subject],
    dataset: DetectionSet,
    out: str | Path,
    *,
    teacher: str | None = None,
    data: str = "",
    score: float = 0.3,
    batch_size: int = 8,
    workers: int = 2,
    progress: Progress | None = None,
) -> Analysis:
    """Compare detectors on a data set, and write ``report.html`` and ``analysis.json``.

    Each detector sees each image once. The report is one file that needs nothing else.

    Args:
        subjects: Detectors of the data set's classes; the first is what the others are compared with.
        dataset: Images with annotations.
        out: Directory for both files, which are replaced in one step each.
        teacher: Name of the subject that taught others; its scores and edges are compared with theirs.
        data: What the report calls the data set.
        score: Detections with a score above it are counted one by one, and drawn.
        batch_size: Images per forward pass.
        workers: Processes that load images.
        progress: Called with the title of a stage and its number of steps; what it returns is called after each.

    Returns:
        All numbers of the report.

    Raises:
        ConfigError: Without matplotlib, or if names are not unlike each other, or the teacher is none of them.
        EvaluationError: If no image has an object, classes are not the data's, or a prediction cannot be scored.
        DataError: If an image cannot be read.
    """
    plots.require_matplotlib()
    _check_names([one.name for one in subjects], teacher)
    _check_boxes(dataset)
    progress = progress or _silent
    collected = collect(
        subjects,
        dataset,
        teacher=teacher,
        examples=example_images(dataset, EXAMPLES),
        score=score,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    analysis = analyse(
        collected,
        subjects,
        dataset,
        teacher=teacher,
        data=data or Path(dataset.annotation_file).stem,
        score=score,
        advance=progress("scoring", len(subjects)),
    )
    _write(analysis, Path(out), progress)
    return analysis


def _check_names(names: Sequence[str], teacher: str | None) -> None:
    if not names or len(set(names)) != len(names) or (teacher is not None and teacher not in names):
        raise ConfigError(
            f"The detectors are called {', '.join(names) or 'nothing'}, the teacher {teacher}; each detector needs a "
            "name of its own, and the teacher is one of them."
        )


def _check_boxes(dataset: DetectionSet) -> None:
    if not (~dataset.records.crowd).any():
        raise EvaluationError(
            f"'{dataset.annotation_file}' has no box to be found on these {len(dataset)} images, so nothing can be "
            "measured. Take images with objects."
        )


def _write(analysis: Analysis, out: Path, progress: Progress) -> None:
    """Both files, after everything that can fail."""
    content = {"ld_hub_version": __version__, **analysis.to_dict()}
    numbers = json.dumps(content, allow_nan=False, ensure_ascii=False)  # one line: indented, maps would fill megabytes
    text = render(analysis, progress)
    atomic_write(out / NUMBERS, numbers + "\n")
    atomic_write(out / REPORT, text)


def render(analysis: Analysis, progress: Progress) -> str:
    """The report as HTML."""
    album = exhibits.Album(analysis)
    taught = analysis.teacher is not None and len(analysis.names) > 1
    makers: list[Callable[[], Section]] = [
        lambda: sections.average_precision(analysis),
        lambda: sections.tide(analysis),
        lambda: exhibits.detections(analysis, album),
        lambda: exhibits.nms(analysis, album),
        *([lambda: exhibits.score_errors(analysis, album)] if taught else []),
        lambda: exhibits.edges(analysis, album),
        lambda: exhibits.ideas(analysis, album),
        lambda: sections.precision_recall(analysis),
        lambda: sections.confusion(analysis),
        lambda: sections.calibration(analysis),
    ]
    advance = progress("drawing", len(makers))
    parts = []
    for make in makers:
        parts.append(make())
        advance()
    return page(f"Detection report: {analysis.data}", _intro(analysis), parts)


def _intro(analysis: Analysis) -> list[Content]:
    boxes = sum(analysis.judged[analysis.names[0]].metrics.boxes.values())
    facts = f"{len(analysis.dataset)} images with {boxes} boxes of {analysis.dataset.num_classes} classes."
    others = f" The others are compared with {analysis.names[0]}." if len(analysis.names) > 1 else ""
    sources = "; ".join(f"{name} from {source}" for name, source in analysis.sources.items() if source)
    return [
        note(f"{facts}{others} Made with ld_hub {__version__}; all numbers are in {NUMBERS}."),
        *sections.in_short(analysis),
        note(f"Detectors: {sources}.") if sources else "",
    ]


def _silent(title: str, steps: int) -> Callable[[], None]:
    """No progress."""
    return lambda: None
