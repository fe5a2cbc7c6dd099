"""`ld-hub push`: a run or a model directory becomes a repository on the Hugging Face Hub."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ld_hub.cli.places import require_directory
from ld_hub.errors import ConfigError
from ld_hub.hub import CONFIG_NAME, no_model

_DESCRIPTION = """\
Publish a model on the Hugging Face Hub, in one commit: weights, configuration,
card, evaluations, settings of the training. The repository is made if there is
none. In a card that is there already, only the metadata and the generated block
are renewed; what its owner wrote stays.

Of a run, its training curves are published too (where matplotlib is installed),
and a picture of the detections on one of its evaluation images.

AP gets into the card from what `ld-hub eval` wrote into DIR/eval, or from
--eval. The token is that of `hf auth login`, or HF_TOKEN."""

_EPILOG = """\
examples:
  ld-hub eval runs/student/model --data coco --out runs/student/model/eval
  ld-hub push runs/student org/gfocal_r18_ld_r101 --license apache-2.0
  ld-hub push runs/student/best org/name --private --image street.jpg

afterwards:
  ld_hub.create_model("hf-hub:org/gfocal_r18_ld_r101", pretrained=True)"""


def add_parser(subparsers: Any) -> None:
    """Add the verb's arguments to the frame's parser."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "push",
        help="publish a model on the Hub",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("directory", type=Path, metavar="DIR", help="directory of a training run, or of a model (RUN/best, say)")
    add("repo_id", metavar="ORG/NAME", help="repository on the Hub")
    add("--private", action="store_true", default=None, help="make a new repository private")
    add("--create_pr", action="store_true", help="propose the commit as a pull request")
    add("--revision", metavar="BRANCH", help="branch (default: main)")
    add("--message", metavar="TEXT", help="message of the commit")
    add("--license", metavar="ID", help="licence of the weights, e.g. apache-2.0")
    artefact = "metrics.json of `ld-hub eval`, or its directory"
    add("--eval", nargs="+", default=[], type=Path, metavar="PATH", help=artefact)
    add("--image", metavar="FILE", help="the picture of detections is on this image")
    add("--no_pictures", action="store_true", help="no curves of a run, and no picture but that of --image")


def run(args: argparse.Namespace) -> int:
    """Publish and print where."""
    require_directory(args.directory, "model directory")
    if not any((args.directory / inner / CONFIG_NAME).is_file() for inner in (".", "model")):
        raise no_model(args.directory)
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", args.repo_id) is None:
        raise ConfigError(f"'{args.repo_id}' is no repository on the Hub; expected ORG/NAME.")

    from ld_hub.publishing.runs import address, publish_directory

    print(f"publishing '{args.directory}' as {args.repo_id}", flush=True)
    commit = publish_directory(
        args.directory,
        args.repo_id,
        evaluations=args.eval,
        private=args.private,
        create_pr=args.create_pr,
        revision=args.revision,
        commit_message=args.message,
        license=args.license,
        image=args.image,
        pictures=not args.no_pictures,
    )
    print(address(commit))
    return 0
