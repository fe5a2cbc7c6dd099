"""`ld-hub convert`: a published ``.pth`` file becomes a model directory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ld_hub.cli.places import check_directory, require_file
from ld_hub.errors import ConfigError
from ld_hub.models.names import require_model


def add_parser(subparsers: Any) -> None:
    """Add the verb's arguments to the frame's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "convert",
        help="turn a published .pth file into a model directory",
        description="Read an OpenMMLab, LD or BCKD .pth file into a model of this library, strictly, and write it as a "
        "model directory (config.json, model.safetensors). Nothing from the file is executed.",
        epilog="example: ld-hub convert gfl_r50_fpn_1x_coco.pth models/gfocal_r50 --model gfocal_r50",
    )
    parser.add_argument("file", type=Path, help="the .pth file")
    parser.add_argument("directory", type=Path, help="model directory to write")
    parser.add_argument("--model", required=True, help="name of the model the weights are for; see `ld-hub list`")
    parser.add_argument("--num_classes", type=int, help="number of classes, if not the default's 80")
    parser.add_argument("--label_names", help="class names separated by commas, or a text file with one per line")


def run(args: argparse.Namespace) -> int:
    """Convert, print the report, write the directory."""
    require_file(args.file, "checkpoint file")
    require_model(args.model)
    check_directory(args.directory, "DIRECTORY")
    given = label_names(args.label_names)

    from ld_hub.models.checkpoints.convert import load_openmmlab_state, read_openmmlab
    from ld_hub.models.checkpoints.pretrained import save_pretrained
    from ld_hub.models.factory import create_model
    from ld_hub.models.label_names import default_labels

    checkpoint = read_openmmlab(args.file)
    names = given or checkpoint.label_names
    count = args.num_classes if args.num_classes is not None or not names else len(names)
    if names and names == default_labels(len(names))[0]:
        names = None  # the defaults keep their category ids too
    model = create_model(args.model, num_classes=count, label_names=names)
    report = load_openmmlab_state(model, checkpoint.state, source=str(args.file), dropped=checkpoint.dropped)
    print(report.table())
    save_pretrained(model, args.directory)
    print(f"wrote {args.directory}: load it with ld_hub.create_model({str(args.directory)!r})")
    return 0


def label_names(text: str | None) -> tuple[str, ...] | None:
    """Class names from a comma-separated text or from a file with one name per line.

    Raises:
        ConfigError: If there are none, or a name is empty.
    """
    if text is None:
        return None
    try:  # os.path, because pathlib raises where a long list of names is no possible file name
        lines = Path(text).read_text(encoding="utf-8").splitlines() if os.path.isfile(text) else text.split(",")
    except UnicodeDecodeError:
        raise ConfigError(f"--label_names: '{text}' is no text file; expected one name per line, in UTF-8.") from None
    names = tuple(line.strip() for line in lines)
    if not names or not all(names):
        raise ConfigError(f"--label_names {text!r}: expected names separated by commas, or a file with one per line.")
    return names
