"""`ld-hub verify`: whether a card and its evaluation tell the truth about the weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ld_hub.cli.flags import DEFAULT, add_data_flags, add_inference_flags, reading_of, require_data
from ld_hub.errors import ConfigError
from ld_hub.models.names import parse_source, saved_directory

_DESCRIPTION = """\
Recompute a published model's AP on the data and compare everything: the AP in
the card (README.md) with the evaluation artefact in eval/, the artefact's
hashes with the files, its numbers with its detections, and both with what the
weights detect now. Where a run has trained the student alone beside it, the
card's table of that is compared with comparison.json, and this with the runs
that are still there. Exit code 0 if all agrees, 1 if anything differs; then the
differences are listed. Of several evaluations in eval/, those of the given data
are recomputed and the others named as skipped.

Of the directory of a training run, every checkpoint is compared with its
manifest, the weights of model/ and best/ with their digest, and all other files
are read; that takes no --data.

An export, and each of a model's exports/, is compared with its SHA256SUMS file
by file, its evaluations are recomputed with the program, and its row of the
card is compared with them.

Hashes, and what the recorded detections score, have to agree exactly. Another
machine computes other last digits, so recomputed numbers may differ by 0.001
(AP 0.1), those of a class by 0.01, and 1 % of the detections may have no
counterpart within 1 px and a score of 0.01. --tolerance scales all of these."""

_EPILOG = """\
examples:
  ld-hub verify org/name --data coco
  ld-hub verify hf-hub:org/name@v1.0 --data coco --device cuda
  ld-hub verify runs/student/model --data coco
  ld-hub verify runs/student
  ld-hub verify exported --data coco"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "verify",
        help="check a card against the weights and the data",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "model",
        metavar="REPO_OR_DIR",
        help="org/name, hf-hub:org/name@revision, a model's directory, a run's or an export's",
    )
    add_data_flags(parser, split=False)
    add("--evaluation", metavar="NAME", help="recompute this evaluation only: data set, directory in eval/, or file")
    add("--tolerance", type=float, default=1.0, metavar="X", help=f"factor of the tolerances {DEFAULT}")
    add_inference_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Compare and print; returns 0 if all agrees, 1 if not."""
    if args.batch_size < 1 or args.workers < 0 or not args.tolerance > 0:
        raise ConfigError(
            f"--batch_size {args.batch_size} --workers {args.workers} --tolerance {args.tolerance}: at least 1 and 0, "
            "and more than 0, are needed."
        )
    if _is_run(Path(args.model)):
        return _verify_run(Path(args.model))
    saved_directory(args.model)  # which refuses a directory that holds no model
    if args.data is None:
        require_data(args)  # a --data that is not there is one of the differences

    from ld_hub.evaluation.agreement import Tolerance
    from ld_hub.ops.hardware import resolve_device
    from ld_hub.publishing.verify import DataSource, verify

    base, factor = Tolerance(), args.tolerance
    report = verify(
        _directory(args.model),
        DataSource(args.data, args.images, args.annotations, reading_of(args)),
        evaluation=args.evaluation,
        device=resolve_device(args.device),
        batch_size=args.batch_size,
        workers=args.workers,
        tolerance=Tolerance(**{name: factor * value for name, value in vars(base).items()}),
    )
    failed = sum(bool(check.differences) for check in report.checks)
    print(report)
    left = f" Evaluations of other data, not recomputed: {len(report.skipped)}." if report.skipped else ""
    print(f"\n{len(report.checks) - failed} of {len(report.checks)} comparisons agree.{left}")
    return 0 if report.ok else 1


def _is_run(place: Path) -> bool:
    return (place / "checkpoints").is_dir() or (place / "metrics.jsonl").is_file()


def _verify_run(place: Path) -> int:
    """Compare the files of a run with what was written, and print; returns as `run`."""
    from ld_hub.publishing.run_check import verify_run

    report = verify_run(place)
    failed = sum(bool(check.differences) for check in report.checks)
    print(report)
    print(f"\n{len(report.checks) - failed} of {len(report.checks)} parts of the run are what was written.")
    return 0 if report.ok else 1


def _directory(name: str) -> Path:
    """The model directory, or the local copy of a repository with card and evaluations."""
    from ld_hub.export.fetching import find_export
    from ld_hub.hub.evidence import download_evidence

    directory = saved_directory(name)
    if directory is not None:
        return directory
    plain = name if ":" in name else f"hf-hub:{name}"
    source, place = parse_source(plain)
    if source == "local-dir":
        return saved_directory(Path(place)) or Path(place)
    repo, _, revision = place.partition("@")
    export = find_export(plain)
    if export is not None:
        return download_evidence(repo, export.name, exported=True)
    return download_evidence(repo, revision or None)
