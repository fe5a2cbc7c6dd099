"""`ld-hub analyze`: a report of what detectors get wrong, and what a distilled student does better."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ld_hub.cli.flags import DEFAULT, add_data_flags, add_inference_flags, read_data, require_data
from ld_hub.cli.places import check_directory
from ld_hub.cli.verb_eval import check_classes, data_name
from ld_hub.errors import ConfigError
from ld_hub.models.names import require_weights

if TYPE_CHECKING:
    import torch

    from ld_hub.analysis import Subject
    from ld_hub.data import DetectionSet

_DESCRIPTION = """\
Run detectors on a data set and write report.html, one page that needs no
network, and analysis.json, all numbers in it:

  AP by size and class, and what the others gain over the first MODEL
  TIDE errors side by side
  images on which detection went best, worst, most differently; NMS 0.6 and 0.95
  class scores of student and teacher, level by level (with --teacher)
  edge distributions, and their entropy against IoU (models with bins)
  precision and recall, confusion of classes, score against overlap

Needs matplotlib: pip install "ld_hub[plot]"."""

_EPILOG = """\
examples:
  ld-hub analyze runs/student/model --data coco --out report
  ld-hub analyze runs/alone/model runs/vlr/model --teacher runs/teacher/model \\
      --data coco --limit 500 --out report

in Python:
  from ld_hub.analysis import Subject, analyze
  analyze([Subject("alone", one), Subject("vlr", other)], dataset, "report")"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "analyze",
        help="report of errors, with pictures",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="model directory, name with weights, or hf-hub:org/name")
    add_data_flags(parser)
    add("--out", required=True, metavar="DIR", help="where report.html and analysis.json go")
    add("--teacher", metavar="MODEL", help="the one that the others are compared with place by place; may be a MODEL")
    add("--names", nargs="+", metavar="NAME", help="what the report calls each MODEL, and last a --teacher beside them")
    add("--limit", type=int, metavar="N", help="look at N images, spread evenly over the set (default: all)")
    add("--score", type=float, default=0.3, metavar="S", help=f"least score of single detections {DEFAULT}")
    add_inference_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Analyze and write the report; returns the exit code."""
    _check(args)

    from rich.console import Console

    from ld_hub.analysis import NUMBERS, REPORT, analyze
    from ld_hub.analysis.choice import spread
    from ld_hub.analysis.plots import require_matplotlib
    from ld_hub.cli.stages import Stages
    from ld_hub.ops.hardware import resolve_device

    require_matplotlib()
    device = resolve_device(args.device)
    dataset = read_data(args)
    if args.limit is not None:
        dataset = dataset.select(spread(len(dataset), args.limit))
    subjects, teacher = load_subjects(args.models, args.teacher, args.names, dataset, device)
    with Stages(Console(highlight=False, soft_wrap=True)) as stages:
        analysis = analyze(
            subjects,
            dataset,
            args.out,
            teacher=teacher,
            data=f"{data_name(args)}, {args.split}",
            score=args.score,
            batch_size=args.batch_size,
            workers=args.workers,
            progress=stages,
        )
    wide = max(map(len, analysis.names))
    for name in analysis.names:
        ap, tide = analysis.judged[name].metrics["AP"], analysis.judged[name].tide
        worst = max(tide.main, key=lambda kind: tide.main[kind])
        shown = "–" if ap is None else f"{100 * ap:.1f}"
        print(f"{name:<{wide}}  AP {shown}  AP50 without {worst} errors +{100 * tide.main[worst]:.1f}")
    print(f"\n{REPORT} and {NUMBERS} are in {args.out}")
    return 0


def _check(args: argparse.Namespace) -> None:
    for name, value, least in (("batch_size", args.batch_size, 1), ("workers", args.workers, 0)):
        if value < least:
            raise ConfigError(f"--{name} {value}: at least {least} is needed.")
    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit {args.limit}: at least 1 is needed; leave it out for all images.")
    if not 0 <= args.score < 1:
        raise ConfigError(f"--score {args.score:g}: expected a number from 0 to below 1.")
    check_directory(args.out)
    require_data(args)
    for model in [*args.models, *filter(None, [args.teacher])]:
        require_weights(model)


def load_subjects(
    models: Sequence[str],
    teacher: str | None,
    names: Sequence[str] | None,
    dataset: DetectionSet,
    device: torch.device,
) -> tuple[list[Subject], str | None]:
    """Load the detectors, the teacher last unless it is among them.

    Args:
        models: As on the command line.
        teacher: One of them, another one, or None; without it a first model that is called "teacher" is the one.
        names: Of all, or None to call them after their directories.
        dataset: Whose classes they must have.
        device: Where they are to run.

    Returns:
        The detectors and the teacher's name.

    Raises:
        ConfigError: If a model's classes are not the data's, two models are the same, or names do not fit.
    """
    from ld_hub.analysis import Subject
    from ld_hub.models.checkpoints.pretrained import load_pretrained
    from ld_hub.models.factory import find_weights

    directories = {
        source: find_weights(source).resolve() for source in dict.fromkeys([*models, *filter(None, [teacher])])
    }
    sources = list(models)
    if teacher is not None and directories[teacher] not in [directories[source] for source in sources]:
        sources.append(teacher)
    places = [directories[source] for source in sources]
    twice = [source for source, place in zip(sources, places, strict=True) if places.count(place) > 1]
    if twice:
        raise ConfigError(f"{' and '.join(twice)} are the same model; name each once.")
    if names is not None and (len(names) != len(sources) or len(set(names)) != len(names)):
        raise ConfigError(
            f"--names gives {len(names)} names ({', '.join(names)}) for {len(sources)} models, one each is needed."
        )
    chosen = list(names) if names is not None else short_names(sources)
    subjects = []
    for name, source, place in zip(chosen, sources, places, strict=True):
        model = load_pretrained(place)
        check_classes(source, model.label_names, dataset.source, dataset.label_names)
        subjects.append(Subject(name, model.to(device), source))
    if teacher is not None:
        return subjects, chosen[places.index(directories[teacher])]
    return subjects, "teacher" if chosen[0] == "teacher" and len(chosen) > 1 else None


def short_names(sources: Sequence[str]) -> list[str]:
    """What to call models: the end of each path, as long as it takes to tell them apart.

    Args:
        sources: Model directories or names; a directory ``model`` is called after the run that holds it.
    """
    parts = [
        [part for part in source.replace("\\", "/").split("/") if part not in ("", ".", "..")] for source in sources
    ]
    parts = [
        (part[:-1] if len(part) > 1 and part[-1] == "model" else part) or [source]
        for part, source in zip(parts, sources, strict=True)
    ]
    names = [part[-1] for part in parts]
    for length in range(2, max(map(len, parts)) + 1):
        counts = Counter(names)
        names = [
            "/".join(part[-length:]) if counts[name] > 1 else name for part, name in zip(parts, names, strict=True)
        ]
    counts = Counter(names)
    return [source if counts[name] > 1 else name for source, name in zip(sources, names, strict=True)]
