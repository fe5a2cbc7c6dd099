"""`ld-hub demo`: the whole story in minutes, on a data set that it makes itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ld_hub.cli.places import check_directory
from ld_hub.errors import ConfigError

_DESCRIPTION = """\
Make a small detection data set (no download), train a teacher, a student alone
and the same student with the recipes `ld`, `vlr` and `auto` (same start, same
images, same steps); alone once more, for as many seconds as `auto` took. Then
the same with few labels, where `auto` also learns from the images that have
none. All are evaluated with pycocotools; every model, a table and pictures of
detections side by side are kept. On two CPU cores with bf16 two and a half
minutes, without about five.

One run is one seed: look at examples/demo/ for what five seeds say."""

_EPILOG = """\
examples:
  ld-hub demo
  ld-hub demo --out runs/demo --seed 7

afterwards:
  ld-hub predict ld_hub_demo/data/val --model ld_hub_demo/few_auto
  ld-hub eval ld_hub_demo/few_auto --data ld_hub_demo/data"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "demo",
        help="make data, train, distil and compare",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", default="ld_hub_demo", metavar="DIR", help="where everything goes (default: %(default)s)")
    add("--seed", type=int, metavar="N", help="of images, weights and order (default: 0)")
    for name, text in (
        ("train_images", "images to train on (default: 1500)"),
        ("val_images", "images to evaluate on (default: 300)"),
        ("labels", "images that keep their labels in the second half (default: 60)"),
        ("teacher_steps", "optimizer steps of the teacher (default: 300)"),
        ("student_steps", "optimizer steps of each student (default: 150)"),
        ("batch_size", "images per step (default: 16)"),
        ("workers", "processes that load images (default: 1)"),
    ):
        add(f"--{name}", type=int, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Run all stages with progress; returns the exit code."""
    check_directory(args.out)
    for name in _FIELDS:
        value, least = getattr(args, name), 0 if name in ("seed", "workers") else 1
        if value is not None and value < least:
            raise ConfigError(f"--{name} is {value}; expected at least {least}.")

    from rich.console import Console

    from ld_hub.cli.stages import Stages
    from ld_hub.demo.story import Demo, format_table, settings_from

    out = Path(args.out)
    values = {k: v for k, v in vars(args).items() if k in _FIELDS}
    with Stages(Console(highlight=False, soft_wrap=True)) as stages:
        demo = Demo(out, settings_from(values), stages)
        rows = demo.run()
    print(f"\n{format_table(rows)}\n")
    print(f"One seed ({demo.settings.seed}), so no verdict: examples/demo/ has five. Everything is in {out}/:")
    print("  teacher/  student_alone/ ... student_auto/  few_alone/ ... few_auto/   models")
    print("  pictures/all.png  results.json (losses included)  data/ (COCO format)")
    print(f"Try:  ld-hub predict {out}/data/val/ --model {out}/few_auto")
    return 0


_FIELDS = ("seed", "train_images", "val_images", "labels", "teacher_steps", "student_steps", "batch_size", "workers")
