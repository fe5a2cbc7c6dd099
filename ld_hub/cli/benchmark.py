"""`ld-hub benchmark`: speed and memory of inference and of a training step, part by part."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_DESCRIPTION = """\
Measure images/s and peak memory of inference and of a training step.

The training step is split into its parts: data (decode, resize, collate),
student forward, teacher forward, assignment, losses, distillation, backward of
the losses, backward of the network, optimizer. Images are noise, weights
random: speed does not depend on them. Post-processing is measured on scores as
a trained detector gives them, high around the objects and low elsewhere. Times
are medians over the repeats; on a noisy machine look at the least as well.
"grew" is how far memory rose above what was in use before the part: exact on a
GPU, elsewhere as the process's resident memory shows it."""

_EPILOG = """\
examples:
  ld-hub benchmark gfocal_r18_vlr_r101
  ld-hub benchmark gfocal_tiny --size 128 128 --batch_size 16
  ld-hub benchmark gfocal_r50 --mode inference --precision bf16 --channels_last
  ld-hub benchmark gfocal_r18 --teacher gfocal_r50 --recipe ld --json out.json"""


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
    add("model", metavar="NAME", help="a model name; a distilled name brings its teacher and recipe")
    add("--mode", choices=("inference", "training", "both"), default="both", help=default)
    add("--teacher", metavar="NAME", help="teacher to distil from in the training step")
    add(
        "--recipe",
        metavar="NAME",
        help="recipe to distil by, or a YAML file of one (default: the distilled name's, or vlr)",
    )
    add("--batch_size", type=int, default=2, metavar="N", help=f"images per batch {default}")
    add("--size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"), help="px (default: 800 1344)")
    add("--boxes", type=int, default=20, metavar="N", help=f"objects per image {default}")
    add("--num_classes", type=int, default=80, metavar="C", help=default)
    add("--repeats", type=int, default=5, metavar="N", help=f"measured rounds {default}")
    add("--precision", choices=("no", "bf16"), default="no", help=f"autocast of the networks {default}")
    add("--channels_last", action="store_true", help="memory format of images and weights")
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's own choice)")
    add("--device", default="auto", help=f"auto, cpu, cuda, cuda:1 {default}")
    add("--json", metavar="FILE", help="also write the figures to this file")


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    import torch

    from ld_hub.engine import benchmark
    from ld_hub.engine.recipe_files import find_recipe
    from ld_hub.errors import ConfigError
    from ld_hub.hub import atomic_write
    from ld_hub.models.inference import resolve_device
    from ld_hub.registry import MODELS

    for field in ("batch_size", "boxes", "num_classes", "repeats"):
        if getattr(args, field) < 1:
            raise ConfigError(f"--{field} is {getattr(args, field)}; expected at least 1.")
    if args.threads:
        torch.set_num_threads(args.threads)
    device = resolve_device(args.device)
    distilled = MODELS[args.model].distilled if args.model in MODELS else None
    teacher_name = args.teacher or (distilled.teacher if distilled else None)
    recipe = find_recipe(args.recipe or (distilled.recipe if distilled else "vlr"))
    height, width = args.size
    work = benchmark.Workload(
        args.batch_size, height, width, args.boxes, args.repeats, args.precision, args.channels_last
    )
    model = _build(args.model, args, device)
    teacher = _build(teacher_name, args, device) if teacher_name and args.mode != "inference" else None
    print(f"{benchmark.hardware(device)}")
    print(f"{work.batch_size} images of {height}x{width} px, {work.boxes} boxes each, {args.num_classes} classes, "
          f"{'float32' if args.precision == 'no' else args.precision}")  # fmt: skip
    figures: dict[str, Any] = {"hardware": benchmark.hardware(device), "workload": vars(work), "model": args.model}
    if args.mode != "training":
        cost = benchmark.time_inference(model, work)
        figures["inference"] = _report("inference", cost.parts, work.batch_size)
        figures["inference"].update(
            outside_network=cost.outside_network, pairs_per_image=cost.pairs, detections_per_image=cost.detections
        )
        print(f"  outside the network, data included: {cost.outside_network:.2%} of the time")
        print(f"  scores of an image above the threshold: {cost.pairs:.0f}; detections: {cost.detections:.0f}")
    if args.mode != "inference":
        title = f"training step of {args.model}"
        if teacher is not None:
            title = f"{title}, taught by {teacher_name} ({recipe.name})"
            figures.update(teacher=teacher_name, recipe=recipe.name)
        timings = benchmark.time_training(model, teacher, recipe, work)
        figures["training"] = _report(title, timings, work.batch_size)
        figures["criterion_ms"] = _criterion(timings)
        overhead = benchmark.Overhead.of(timings)
        figures["overhead"] = {"of_student": overhead.of_student, "step": overhead.step}
        print(f"  that is {overhead.of_student:.1%} of the student's forward and backward pass; the step takes "
              f"{overhead.step:.3f} x its networks")  # fmt: skip
    measured = [figures[key]["parts"].values() for key in ("inference", "training") if key in figures]
    figures["peak_bytes"] = peak = max(part["peak_bytes"] for parts in measured for part in parts)
    print(f"\npeak {'device' if device.type == 'cuda' else 'process'} memory: {peak / 2**30:.2f} GiB")
    if args.json:
        atomic_write(Path(args.json), json.dumps(figures, indent=1))
        print(f"figures written to {args.json}")
    return 0


def _build(name: str, args: argparse.Namespace, device: Any) -> Any:
    import torch

    from ld_hub.models.factory import create_model

    model = create_model(name, num_classes=args.num_classes).to(device)
    return model.to(memory_format=torch.channels_last) if args.channels_last else model


def _report(title: str, timings: dict[str, Any], images: int) -> dict[str, Any]:
    """Print a table of parts and return it as plain data."""
    total = sum(t.median for name, t in timings.items() if name != "data")
    print(f"\n{title}")
    print(f"  {'part':<22}{'median ms':>11}{'least ms':>11}{'share':>8}{'grew MiB':>11}")
    for name, timing in timings.items():
        share = "" if name == "data" else f"{timing.median / total:.1%}"
        growth = "" if timing.memory.growth is None else f"{timing.memory.growth / 2**20:.0f}"
        print(f"  {name:<22}{timing.median * 1e3:>11.1f}{timing.least * 1e3:>11.1f}{share:>8}{growth:>11}")
    print(f"  {'all but data':<22}{total * 1e3:>11.1f}{'':>11}{images / total:>8.2f} images/s")
    parts = {
        name: {
            "median_ms": timing.median * 1e3,
            "least_ms": timing.least * 1e3,
            "growth_bytes": timing.memory.growth,
            "peak_bytes": timing.memory.peak,
        }
        for name, timing in timings.items()
    }
    return {"parts": parts, "images_per_second": images / total}


def _criterion(timings: dict[str, Any]) -> dict[str, float]:
    """Assignment, losses and terms with their backward pass: what the training method itself costs."""
    parts = [timings[p] for p in ("assignment", "losses", "distillation", "backward of losses") if p in timings]
    median, least = sum(t.median for t in parts) * 1e3, sum(t.least for t in parts) * 1e3
    print(f"  assignment, losses and distillation, forward and backward: {median:.1f} ms (least {least:.1f})")
    return {"median": median, "least": least}
