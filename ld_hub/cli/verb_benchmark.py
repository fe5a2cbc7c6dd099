"""`ld-hub benchmark`: speed and memory of inference and of a training step, part by part, and of loaders."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from ld_hub.benchmark.data_rates import DataRate
    from ld_hub.benchmark.figures import Figures, InferenceSpeed, Speed
    from ld_hub.benchmark.steps import Workload
    from ld_hub.distillation import Recipe
    from ld_hub.models.detector import DenseDetector

from ld_hub.cli.benchmark_tables import answer_table, cache_table, data_table, scorer_table, speed_table
from ld_hub.cli.flags import add_augmentation_flags, add_device_flag, augmentation_of
from ld_hub.cli.places import check_file
from ld_hub.data.discovery import require_places
from ld_hub.errors import ConfigError
from ld_hub.export.fetching import find_export
from ld_hub.hub import atomic_write
from ld_hub.launch.recipe_files import find_recipe, require_recipe
from ld_hub.models.names import require_model
from ld_hub.registry import MODELS
from ld_hub.runtime.exported_files import is_exported

_DESCRIPTION = """\
Measure images/s and peak memory of inference and of a training step.

The training step is split into its parts: data (decode, resize, collate),
student forward, teacher forward, assignment, losses, distillation, backward of
the losses, backward of the network, optimizer. Images are noise, weights
random: speed does not depend on them. Post-processing is measured on scores as
a trained detector gives them, high around the objects and low elsewhere. Times
are medians over the repeats; on a noisy machine look at the least as well.
"grew" is how far memory rose above what was in use before the part: exact on a
GPU, elsewhere as the process's resident memory shows it.

--cache_teacher measures a teacher that is asked once: what an answer takes on
disk, how far 8 bits take each term from 32 (on answers that look trained), and
a whole step beside plain training and beside a teacher that is asked each time.

--table compares architectures with and without bins: parameters, multiply-adds
and images/s, as Table 3 of the LD paper; without names, its four. --eval times
the scorers of an evaluation on random detections, --answers the commands that
only look something up: names, helps, refusals.

--data DIR times the loader of training on your images, at --size, with
--augment and its parts, beside the mirror alone; with a name also against its
step."""

_EPILOG = """\
examples:
  ld-hub benchmark gfocal_r18_vlr_r101
  ld-hub benchmark gfocal_tiny --size 128 128 --batch_size 16
  ld-hub benchmark gfocal_r50 --mode inference --precision bf16 --channels_last
  ld-hub benchmark gfocal_r18 --teacher gfocal_r50 --recipe ld --json out.json
  ld-hub benchmark gfocal_r18_vlr_r101 --mode training --cache_teacher
  ld-hub benchmark retinanet_r50 atss_r50 gfocal_r50 --table --batch_size 1
  ld-hub benchmark --eval --images 5000 --num_classes 80 --detections 100
  ld-hub benchmark --data my_data --augment strong --workers 4
  ld-hub benchmark gfocal_r18 --mode training --data my_data --augment standard"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "benchmark",
        help="measure speed and memory",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, default = parser.add_argument, "(default: %(default)s)"
    add(
        "model",
        metavar="NAME",
        nargs="*",
        help="a model name; a distilled name brings its teacher and recipe; or an exported detector",
    )
    add("--table", action="store_true", help="size and speed of several names, with and without bins")
    add("--eval", action="store_true", help="time the scorers of an evaluation")
    add("--answers", action="store_true", help="time what ld-hub answers without importing torch")
    add("--data", metavar="DIR", help="time the loader of training on the images of this data set")
    add("--split", default="train", help=f"part of that data set {default}")
    add("--workers", type=int, default=2, metavar="N", help=f"processes that load images for --data {default}")
    add("--images", type=int, default=5000, metavar="N", help=f"images of --eval {default}")
    add("--detections", type=int, default=100, metavar="N", help=f"detections per image of --eval {default}")
    add("--mode", choices=("inference", "training", "both"), default="both", help=default)
    add("--teacher", metavar="NAME", help="teacher to distil from in the training step")
    add(
        "--recipe",
        metavar="NAME",
        help="recipe to distil by, or a YAML file of one (default: the distilled name's, or vlr)",
    )
    add("--cache_teacher", action="store_true", help="also measure a teacher that is asked once")
    add("--batch_size", type=int, default=2, metavar="N", help=f"images per batch {default}")
    add("--size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"), help="px (default: 800 1344)")
    add("--boxes", type=int, default=20, metavar="N", help=f"objects per image {default}")
    add("--num_classes", type=int, default=80, metavar="C", help=default)
    add("--repeats", type=int, default=5, metavar="N", help=f"measured rounds {default}")
    add("--precision", choices=("no", "bf16"), default="no", help=f"autocast of the networks {default}")
    add("--channels_last", action="store_true", help="memory format of images and weights")
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's own choice)")
    add_device_flag(parser)
    add("--json", metavar="FILE", help="also write the figures to this file")
    add_augmentation_flags(parser.add_argument_group("augmentation, with --data"))


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    _check(args)
    if args.answers:
        _write(json.dumps({"answers": [asdict(answer) for answer in answer_table()]}, indent=1), args.json)
        return 0

    import torch

    from ld_hub.benchmark.figures import Figures
    from ld_hub.benchmark.steps import Workload
    from ld_hub.ops.hardware import hardware, resolve_device

    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device("cpu") if args.eval else resolve_device(args.device)
    height, width = args.size
    work = Workload(args.batch_size, height, width, args.boxes, args.repeats, args.precision, args.channels_last)
    figures = Figures(hardware(device), workload=None if args.eval else work)
    export = find_export(args.model[0]) if len(args.model) == 1 and not args.table else None
    if export is not None:
        figures = _program(args, work, export)
    else:
        print(figures.hardware)
        figures = _part(args, figures, work, device)
    if args.data:
        figures = replace(figures, data=_rates(args, work, figures))
    _write(json.dumps(figures.to_dict(), indent=1), args.json)
    return 0


def _part(args: argparse.Namespace, figures: Figures, work: Workload, device: torch.device) -> Figures:
    """What was asked for, of scorers or of models; printed."""
    if args.eval:
        return replace(figures, eval=scorer_table(args.images, args.num_classes, args.detections))
    print(f"{work.batch_size} images of {work.height}x{work.width} px, {work.boxes} boxes each, "
          f"{args.num_classes} classes, {'float32' if args.precision == 'no' else args.precision}")  # fmt: skip
    if args.table:
        return replace(figures, table=speed_table(args.model, work, device, args.num_classes))
    return _measure(figures, args, work, device) if args.model else figures


def _check(args: argparse.Namespace) -> None:
    _check_sizes(args)
    alone = args.eval or args.answers
    _check_kind(args, alone)
    _check_names(args)
    if args.recipe is not None:
        require_recipe(args.recipe)
    if args.cache_teacher and (alone or args.table or args.mode == "inference"):
        raise ConfigError("--cache_teacher is about a training step: give one model name, and no --mode inference.")
    if args.cache_teacher and not _teacher_of(args):
        raise ConfigError(f"--cache_teacher: '{args.model[0]}' has no teacher; name one, --teacher NAME.")
    if args.json:
        check_file(args.json, "--json")


def _check_sizes(args: argparse.Namespace) -> None:
    for field in ("batch_size", "boxes", "num_classes", "repeats", "images", "detections"):
        if getattr(args, field) < 1:
            raise ConfigError(f"--{field} is {getattr(args, field)}; expected at least 1.")
    if min(args.size) < 1:
        raise ConfigError(f"--size {args.size[0]} {args.size[1]}: expected height and width in px.")


def _check_kind(args: argparse.Namespace, alone: bool) -> None:
    """Refuse what cannot be measured together, and data that are not there."""
    fitting = not args.data if args.table else len(args.model) <= 1 and bool(args.model or args.data)
    if alone:
        fitting = not (args.table or args.model or args.data or args.eval == args.answers)
    if not fitting:
        raise ConfigError(
            "Give one model name, --data DIR, or both; or --table and any number of names; or --eval or --answers and "
            "none."
        )
    if args.workers < 0:
        raise ConfigError(f"--workers is {args.workers}; expected at least 0.")
    if args.data:
        require_places(args.data)
        augmentation_of(args)


def _rates(args: argparse.Namespace, work: Workload, figures: Figures) -> tuple[DataRate, ...]:
    """How fast the images of --data come, with what is wanted and with the mirror alone; printed."""
    from ld_hub.data import load_data
    from ld_hub.preprocessing.augmentation import PRESETS

    step = None if figures.training is None else figures.training.images_per_second
    augmentation = augmentation_of(args)
    wanted = dict.fromkeys([PRESETS["flip"], augmentation])
    dataset = load_data(args.data, args.split, outlines=augmentation.copy_paste > 0)
    return data_table(dataset, list(wanted), work, args.workers, step)


def _check_names(args: argparse.Namespace) -> None:
    """Models are known, and what was exported is only asked for inference."""
    exported = [name for name in args.model if is_exported(name)]
    if exported and (args.table or args.teacher or args.recipe or args.cache_teacher or args.mode == "training"):
        raise ConfigError(f"'{exported[0]}' is an export: it has no training step, and stands in no --table.")
    for name in [*args.model, *filter(None, [args.teacher])]:
        if name not in exported:
            require_model(name)


def _teacher_of(args: argparse.Namespace) -> str | None:
    """Who teaches: who was named, or the distilled name's."""
    distilled = MODELS[args.model[0]].distilled if args.model[0] in MODELS else None
    return args.teacher or (distilled.teacher if distilled else None)


def _write(figures: str, file: str | None) -> None:
    if file:
        atomic_write(Path(file), figures)
        print(f"figures written to {file}")


def _measure(figures: Figures, args: argparse.Namespace, work: Workload, device: torch.device) -> Figures:
    """Time of one model, part by part, added to the figures; printed."""
    (name,) = args.model
    distilled = MODELS[name].distilled if name in MODELS else None
    teacher_name = _teacher_of(args)
    recipe = find_recipe(args.recipe or (distilled.recipe if distilled else "vlr"))
    model = _build(name, args, device)
    figures = replace(figures, model=name)
    if args.mode != "training":
        figures = replace(figures, inference=_inference(model, work))
    if args.mode != "inference":
        title, teacher = f"training step of {name}", None
        if teacher_name:
            teacher = _build(teacher_name, args, device)
            title = f"{title}, taught by {teacher_name} ({recipe.name})"
            figures = replace(figures, teacher=teacher_name, recipe=recipe.name)
        figures = _training(figures, title, model, teacher, recipe, work)
        if args.cache_teacher and teacher is not None:
            figures = replace(figures, cache=cache_table(model, teacher, recipe, work))
    speeds = [speed for speed in (figures.inference, figures.training) if speed is not None]
    peak = max(part.peak_bytes for speed in speeds for part in speed.parts.values())
    print(f"\npeak {'device' if device.type == 'cuda' else 'process'} memory: {peak / 2**30:.2f} GiB")
    return replace(figures, peak_bytes=peak)


def _inference(model: DenseDetector, work: Workload) -> InferenceSpeed:
    """Time of inference; printed."""
    from ld_hub.benchmark.figures import InferenceSpeed
    from ld_hub.benchmark.steps import time_inference

    cost = time_inference(model, work)
    speed = InferenceSpeed.found(cost, work.batch_size)
    _print_parts("inference", speed, work.batch_size)
    print(f"  outside the network, data included: {cost.outside_network:.2%} of the time")
    print(f"  scores of an image above the threshold: {cost.pairs:.0f}; detections: {cost.detections:.0f}")
    return speed


def _program(args: argparse.Namespace, work: Workload, export: Path) -> Figures:
    """Time of an exported detector; printed."""
    from ld_hub.benchmark.programs import program_figures

    figures = replace(program_figures(export, work, args.threads), model=args.model[0])
    print(figures.hardware)
    if figures.workload is not None and figures.inference is not None:
        height, width = figures.workload.height, figures.workload.width
        title = f"inference of the exported program on {work.batch_size} images of {height}x{width} px, choice of boxes"
        _print_parts(f"{title} included", figures.inference, work.batch_size)
    return figures


def _training(
    figures: Figures, title: str, model: DenseDetector, teacher: DenseDetector | None, recipe: Recipe, work: Workload
) -> Figures:
    """Time of a training step, added to the figures; printed."""
    from ld_hub.benchmark.figures import OverheadShares, Speed
    from ld_hub.benchmark.steps import CRITERION, Milliseconds, Overhead, time_training

    timings = time_training(model, teacher, recipe, work)
    cost = Milliseconds.of(*(timings[name] for name in CRITERION if name in timings))
    speed, overhead = Speed.of(timings, work.batch_size), Overhead.of(timings)
    _print_parts(title, speed, work.batch_size)
    print(f"  assignment, losses and distillation, forward and backward: {cost.median:.1f} ms (least {cost.least:.1f})")
    print(f"  that is {overhead.of_student:.1%} of the student's forward and backward pass; the step takes "
          f"{overhead.step:.3f} x its networks")  # fmt: skip
    shares = OverheadShares(overhead.of_student, overhead.step)
    return replace(figures, training=speed, criterion_ms=cost, overhead=shares)


def _build(name: str, args: argparse.Namespace, device: torch.device) -> DenseDetector:
    import torch

    from ld_hub.models.factory import create_model

    model = create_model(name, num_classes=args.num_classes).to(device)
    return model.to(memory_format=torch.channels_last) if args.channels_last else model


def _print_parts(title: str, speed: Speed, images: int) -> None:
    total = 1e3 * images / speed.images_per_second
    print(f"\n{title}")
    print(f"  {'part':<22}{'median ms':>11}{'least ms':>11}{'share':>8}{'grew MiB':>11}")
    for name, part in speed.parts.items():
        share = "" if name == "data" else f"{part.median_ms / total:.1%}"
        growth = "" if part.growth_bytes is None else f"{part.growth_bytes / 2**20:.0f}"
        print(f"  {name:<22}{part.median_ms:>11.1f}{part.least_ms:>11.1f}{share:>8}{growth:>11}")
    print(f"  {'all but data':<22}{total:>11.1f}{'':>11}{speed.images_per_second:>8.2f} images/s")
