"""`ld-hub eval`: average precision of a model on a data set, by the rules of COCO, PASCAL VOC or LVIS."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.cli.flags import (
    DEFAULT,
    add_data_flags,
    add_inference_flags,
    add_tile_flags,
    read_data,
    refuse_tiles,
    require_data,
    tiling_of,
)
from ld_hub.cli.places import check_directory
from ld_hub.errors import ConfigError
from ld_hub.models.names import require_weights
from ld_hub.runtime.exported_files import is_exported

if TYPE_CHECKING:
    from ld_hub.evaluation import DetectionMetrics
    from ld_hub.hub.evidence import Evidence

_DESCRIPTION = """\
Detect objects on every image of a data set and score them.

Prints the 12 COCO numbers and the AP of each class, times 100. Data of PASCAL
VOC are scored by VOC's rules: AP50, AP55, ..., AP95 and their mean AP; LVIS'
files, which say what was looked for on each image, by LVIS' rules: AP also over
rare, common and frequent classes (APr, APc, APf). --protocol chooses another.
--out gets metrics.json (the same numbers as fractions, with hashes of weights,
annotations and detections: what `ld-hub card` takes AP from and `ld-hub verify`
checks) and detections.json (a COCO results file). The numbers do not depend on
the batch size."""

_EPILOG = """\
a data set is a directory such as
  coco/annotations/instances_val2017.json     boxes: instances_SPLIT*.json
  coco/val2017/000000000139.jpg ...           images: SPLIT*
or VOCdevkit/ (VOC2007/, VOC2012/), or a YOLO directory with data.yaml (or that
file itself), or two explicit paths, --images and --annotations.

examples:
  ld-hub eval runs/student/model --data coco --out runs/student/model/eval
  ld-hub eval runs/student/model --data coco --split train --out train_ap
  ld-hub eval NAME --images photos --annotations boxes.json --device cuda

in Python:
  from ld_hub.data import load_data
  from ld_hub.engine.evaluate import evaluate
  metrics, evaluator = evaluate(model, load_data("coco", "val"))
  print(metrics)
  print(metrics["AP"], metrics.per_class)"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "eval",
        help="AP of a model on a data set, by COCO's, VOC's or LVIS' rules",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "model",
        metavar="MODEL",
        help="a name that has weights (see `ld-hub list`), a model directory, or an export",
    )
    add_data_flags(parser)
    add_inference_flags(parser)
    add_tile_flags(parser)
    add("--out", default="evaluation", metavar="DIR", help=f"where the JSON files go {DEFAULT}")
    protocols = "COCO, VOC 2007 (11-point AP), VOC 2012 (area), LVIS (federated); auto: as the data are"
    add("--protocol", default="auto", choices=("auto", "coco", "voc07", "voc12", "lvis"), help=f"{protocols} {DEFAULT}")
    scorers = "what scores by COCO's rules, with the same numbers; auto: hotcoco where it is installed"
    add("--backend", default="auto", choices=("auto", "pycocotools", "hotcoco"), help=f"{scorers} {DEFAULT}")


def run(args: argparse.Namespace) -> int:
    """Evaluate and write the results; returns the exit code."""
    if args.batch_size < 1 or args.workers < 0:
        raise ConfigError(f"--batch_size {args.batch_size} --workers {args.workers}: at least 1 and 0 are needed.")
    check_directory(args.out)
    require_data(args)
    if is_exported(args.model):
        return _evaluate_exported(args, args.model)
    require_weights(args.model)

    from ld_hub.export.fetching import find_export

    export = find_export(args.model)
    if export is not None:
        return _evaluate_exported(args, export)

    from ld_hub.engine.evaluate import evaluate
    from ld_hub.evaluation.backends import choose_backend
    from ld_hub.hub import WEIGHTS_NAME
    from ld_hub.models.checkpoints.pretrained import load_pretrained
    from ld_hub.models.factory import find_weights
    from ld_hub.ops.hardware import resolve_device
    from ld_hub.publishing.verify import circumstances, describe_evaluation

    choose_backend(args.backend)  # fails before the work, not after it
    device, tiling = resolve_device(args.device), tiling_of(args)
    dataset = read_data(args)
    directory = find_weights(args.model)
    model = load_pretrained(directory)
    check_classes(args.model, model.label_names, dataset.source, dataset.label_names)
    metrics, evaluator = evaluate(
        model.to(device),
        dataset,
        batch_size=args.batch_size,
        workers=args.workers,
        protocol=None if args.protocol == "auto" else args.protocol,
        backend=args.backend,
        tiling=tiling,
    )
    out = Path(args.out)
    how = circumstances(
        model, command=_command(args), batch_size=args.batch_size, backend=evaluator.backend, tiling=tiling
    )
    evidence = describe_evaluation(
        model,
        metrics,
        name=args.model,
        weights=directory / WEIGHTS_NAME,
        dataset=dataset,
        data=data_name(args),
        split=args.split,
        detections=evaluator.save_detections(out / "detections.json"),
        how=how,
    )
    return _finish(metrics, evidence, out)


def _evaluate_exported(args: argparse.Namespace, place: str | Path) -> int:
    """The same of a directory that `ld-hub export` wrote, on the CPU."""
    from ld_hub.evaluation.artefact import Circumstances
    from ld_hub.evaluation.backends import choose_backend
    from ld_hub.export.exported_model import ExportedModel

    choose_backend(args.backend)
    refuse_tiles(args)
    model = ExportedModel(place)
    dataset = read_data(args)
    check_classes(args.model, model.label_names, dataset.source, dataset.label_names)
    protocol = None if args.protocol == "auto" else args.protocol
    metrics, evaluator = model.evaluate(
        dataset, batch_size=args.batch_size, workers=args.workers, protocol=protocol, backend=args.backend
    )
    exported, out = model.detector.exported, Path(args.out)
    device = f"cpu ({exported.to})"
    how = Circumstances(_command(args), device, exported.precision, args.batch_size, evaluator.backend)
    evidence = model.describe(
        metrics,
        name=args.model,
        dataset=dataset,
        data=data_name(args),
        split=args.split,
        detections=evaluator.save_detections(out / "detections.json"),
        how=how,
    )
    return _finish(metrics, evidence, out)


def _finish(metrics: DetectionMetrics, evidence: Evidence, out: Path) -> int:
    """Write metrics.json beside the detections and print the numbers; returns the exit code."""
    from ld_hub.hub import write_json

    write_json(out / "metrics.json", evidence.to_dict())
    print(metrics.table())
    print(f"\nmetrics.json and detections.json are in {out}")
    return 0


def _command(args: argparse.Namespace) -> str:
    """The command line again, with the flags that were changed."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(dest="verb"))
    plain = vars(parser.parse_args(["eval", args.model]))
    words = ["ld-hub", "eval", args.model]
    for name, value in vars(args).items():
        if name in plain and value != plain[name]:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def data_name(args: argparse.Namespace) -> str:
    """What the data set of ``--data`` or ``--annotations`` is called: its directory, or else its annotation file."""
    return Path(args.data).resolve().name if args.data else Path(args.annotations).stem


def check_classes(model: str, model_names: Sequence[str], data: str, data_names: Sequence[str]) -> None:
    """Make sure that a model's classes are the data's, in the same order.

    Args:
        model: What the user calls the model.
        model_names: Its label names.
        data: What the user calls the data, e.g. the annotation file.
        data_names: Its label names.

    Raises:
        ConfigError: Naming both lists briefly.
    """
    mine, theirs = tuple(model_names), tuple(data_names)
    if mine == theirs:
        return
    both = f"The model '{model}' detects {_brief(mine)}; '{data}' has {_brief(theirs)}."
    if sorted(mine) == sorted(theirs):
        raise ConfigError(
            f"{both} These are the same classes in another order. Give the data the model's order: by the category ids "
            "of COCO data, a file classes.txt beside VOC's Annotations/, `names` in YOLO's data.yaml."
        )
    raise ConfigError(f"{both} Evaluate on data with the model's classes, or train a model on this data.")


def _brief(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return f"{len(names)} class{'' if len(names) == 1 else 'es'} ({shown})"
