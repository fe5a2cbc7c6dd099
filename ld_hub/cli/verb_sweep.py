"""`ld-hub sweep`: AP of a model with several settings of its post-processing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.cli.flags import add_data_flags, add_inference_flags, read_data, require_data
from ld_hub.cli.places import check_file
from ld_hub.errors import ConfigError
from ld_hub.models.names import require_weights

if TYPE_CHECKING:
    from ld_hub.analysis.sweep import SweepRow

_DESCRIPTION = """\
Compare settings of post-processing: kinds of NMS, their IoU, score thresholds.

The network looks at each image once; every combination of the given settings
then treats the same predictions. Prints AP, AP50, AP75 (times 100) and the time
of post-processing, the best figure of each column marked with "*". Settings
that are not given are the model's own."""

_EPILOG = """\
kinds of NMS:
  hard            boxes that overlap a better one are dropped
  soft_linear     Soft-NMS: their score is multiplied by 1 - IoU
  soft_gaussian   Soft-NMS: by exp(-IoU^2 / sigma), without an IoU threshold
  score_voting    hard by DIoU; then each box is the mean of its neighbours,
                  weighted by score and IoU (score-voting Cluster-DIoU NMS)

examples:
  ld-hub sweep runs/student/model --data coco --nms_iou 0.5 0.6 0.7
  ld-hub sweep NAME --data coco --nms hard soft_gaussian score_voting
  ld-hub sweep NAME --data coco --score_threshold 0.01 0.05 --json sweep.json

in Python:
  from ld_hub.analysis.sweep import grid, sweep
  settings = grid(model.postprocess_config, nms_iou=(0.5, 0.6))
  for row in sweep(model, dataset, settings):
    print(row.config.nms_iou, row.metrics["AP"], row.seconds)"""

NMS = ("hard", "soft_linear", "soft_gaussian", "score_voting")
_NAMES = ("AP", "AP50", "AP75")


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "sweep",
        help="compare NMS and score thresholds in one pass",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name that has weights (see `ld-hub list`), or a model directory")
    add("--nms", nargs="+", default=[], metavar="KIND", help="kinds of NMS, see below")
    add("--nms_iou", nargs="+", type=float, default=[], metavar="IOU", help="IoU thresholds of NMS")
    add("--score_threshold", nargs="+", type=float, default=[], metavar="P", help="score thresholds before NMS")
    add_data_flags(parser)
    add_inference_flags(parser)
    add("--json", metavar="FILE", help="also write all metrics to this file")


def run(args: argparse.Namespace) -> int:
    """Evaluate all settings and print them; returns the exit code."""
    if args.batch_size < 1 or args.workers < 0:
        raise ConfigError(f"--batch_size {args.batch_size} --workers {args.workers}: at least 1 and 0 are needed.")
    for kind in args.nms:
        if kind not in NMS:
            raise ConfigError(f"--nms is {kind!r}; expected {', '.join(NMS)}.")
    for flag in ("nms_iou", "score_threshold"):
        if not all(0 <= value <= 1 for value in getattr(args, flag)):
            raise ConfigError(f"--{flag} {' '.join(map(str, getattr(args, flag)))}: expected numbers from 0 to 1.")
    if args.json:
        check_file(args.json, "--json")
    require_data(args)
    require_weights(args.model)

    from ld_hub.analysis.sweep import grid, sweep
    from ld_hub.cli.verb_eval import check_classes
    from ld_hub.hub import write_json
    from ld_hub.hub.evidence import TITLES
    from ld_hub.models.factory import create_model
    from ld_hub.ops.hardware import hardware, resolve_device

    device = resolve_device(args.device)
    dataset = read_data(args)
    model = create_model(args.model, pretrained=True).to(device)
    check_classes(args.model, model.label_names, dataset.source, dataset.label_names)
    settings = grid(model.postprocess_config, nms=args.nms, nms_iou=args.nms_iou, score_threshold=args.score_threshold)
    plural = "s" if len(settings) > 1 else ""
    print(f"{args.model}\n{len(settings)} setting{plural} on {dataset.source}: {len(dataset)} images")
    print(f"{TITLES[dataset.protocol]}, x100")
    print(f"{hardware(device)}\n", flush=True)
    rows = list(sweep(model, dataset, settings, batch_size=args.batch_size, workers=args.workers))
    print("\n".join(table(rows)))
    if args.json:
        content = {"model": args.model, "data": str(args.data or args.annotations), "split": args.split,
                   "hardware": hardware(device), "rows": [row.to_dict() for row in rows]}  # fmt: skip
        write_json(Path(args.json), content)
        print(f"all metrics are in {args.json}")
    return 0


def table(rows: Sequence[SweepRow]) -> list[str]:
    """Lines of at most 80 columns; the best of each column has a "*", equal ones too."""
    columns = {name: [row.metrics[name] for row in rows] for name in _NAMES}
    best = {name: max((value for value in values if value is not None), default=None)
            for name, values in columns.items()}  # fmt: skip
    least = min(row.seconds for row in rows)
    lines = [f"{'NMS':<14}{'IoU':>6}{'score >':>9}" + "".join(f"{name:>8} " for name in _NAMES) + f"{'ms/image':>11}"]
    for k, row in enumerate(rows):
        cells = (_cell(columns[name][k], best[name]) for name in _NAMES)
        mark = "*" if row.seconds == least else " "
        iou = "–" if row.config.nms == "soft_gaussian" else f"{row.config.nms_iou:g}"
        lines.append(f"{row.config.nms:<14}{iou:>6}{row.config.score_threshold:>9g}"
                     + "".join(cells) + f"{1e3 * row.seconds:>11.2f}{mark}")  # fmt: skip
    return lines


def _cell(value: float | None, best: float | None) -> str:
    return f"{'–':>8} " if value is None else f"{100 * value:>8.1f}{'*' if value == best else ' '}"
