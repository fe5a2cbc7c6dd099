"""`ld-hub push`: a run or a model directory becomes a repository on the Hugging Face Hub."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.cli.places import require_directory
from ld_hub.errors import ConfigError
from ld_hub.hub import CONFIG_NAME, no_model
from ld_hub.runtime.exported_files import is_exported

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

_DESCRIPTION = """\
Publish a model on the Hugging Face Hub, in one commit: weights, configuration,
card, evaluations, settings of the training. The repository is made if there is
none. In a card that is there already, only the metadata and the generated block
are renewed; what its owner wrote stays.

Of a run, its training curves are published too (where matplotlib is installed),
and a picture of the detections on one of its evaluation images.

--export DIR, any number of times, puts what `ld-hub export` wrote of this model
into exports/ of the repository (those of an earlier push are replaced or
removed), and format, precision and size into a table of the card; AP and speed,
too, where they were measured: `ld-hub eval DIR --data DATA --out DIR/eval`,
`ld-hub benchmark DIR --json DIR/benchmark.json`. An export in place of a model
becomes a repository of its own. Its files are compared with its SHA256SUMS
first; nothing of it is run.

AP gets into the card from what `ld-hub eval` wrote into DIR/eval, or from
--eval. The token is that of `hf auth login`, or HF_TOKEN."""

_EPILOG = """\
examples:
  ld-hub eval runs/student/model --data coco --out runs/student/model/eval
  ld-hub push runs/student org/gfocal_r18_ld_r101 --license apache-2.0
  ld-hub push runs/student/best org/name --private --image street.jpg
  ld-hub push runs/student org/name --export exported --export exported_int8
  ld-hub push exported org/name-onnx --license apache-2.0

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
    add(
        "directory",
        type=Path,
        metavar="DIR",
        help="directory of a training run, of a model (RUN/best, say), or an export",
    )
    add("repo_id", metavar="ORG/NAME", help="repository on the Hub")
    add("--private", action="store_true", default=None, help="make a new repository private")
    add("--create_pr", action="store_true", help="propose the commit as a pull request")
    add("--revision", metavar="BRANCH", help="branch (default: main)")
    add("--message", metavar="TEXT", help="message of the commit")
    add("--license", metavar="ID", help="licence of the weights, e.g. apache-2.0")
    add("--export", action="append", default=[], type=Path, metavar="DIR", help="also publish this export; repeatable")
    add("--space", metavar="ORG/NAME", help="also make a Space of it: a page on which it can be tried")
    artefact = "metrics.json of `ld-hub eval`, or its directory"
    add("--eval", nargs="+", default=[], type=Path, metavar="PATH", help=artefact)
    add("--image", metavar="FILE", help="the picture of detections is on this image")
    add("--no_pictures", action="store_true", help="no curves of a run, and no picture but that of --image")


def run(args: argparse.Namespace) -> int:
    """Publish and print where."""
    require_directory(args.directory, "model directory")
    if not any((args.directory / inner / CONFIG_NAME).is_file() for inner in (".", "model")):
        raise no_model(args.directory)
    for name in filter(None, (args.repo_id, args.space)):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is None:
            raise ConfigError(f"'{name}' is no repository on the Hub; expected ORG/NAME.")

    exported = is_exported(args.directory)
    _check_exports(args, exported)

    from ld_hub.publishing.runs import address

    print(f"publishing '{args.directory}' as {args.repo_id}", flush=True)
    publish = _publish_export if exported else _publish_model
    print(address(publish(args)))
    if args.space is not None:
        from ld_hub.publishing.space import publish_space

        where = {"private": args.private, "create_pr": args.create_pr}
        print(address(publish_space(args.repo_id, args.space, license=args.license, **where)))
    return 0


def _check_exports(args: argparse.Namespace, exported: bool) -> None:
    """Exports are such, and what is pushed alone is not given what models take; before anything is imported."""
    if exported and (args.export or args.image or args.no_pictures):
        raise ConfigError(
            f"'{args.directory}' is an export: its card has no pictures, and it takes no --export. Leave these flags "
            "out, or push the model that it was made of with --export."
        )
    for directory in args.export:
        if not is_exported(directory):
            raise ConfigError(f"--export {directory}: no export there. `ld-hub export MODEL --out DIR` writes one.")


def _publish_export(args: argparse.Namespace) -> CommitInfo:
    from ld_hub.publishing.export_push import publish_export

    return publish_export(args.directory, args.repo_id, evaluations=args.eval, license=args.license, **_where(args))


def _publish_model(args: argparse.Namespace) -> CommitInfo:
    from ld_hub.publishing.runs import publish_directory

    return publish_directory(
        args.directory,
        args.repo_id,
        evaluations=args.eval,
        license=args.license,
        image=args.image,
        pictures=not args.no_pictures,
        exports=args.export,
        **_where(args),
    )


def _where(args: argparse.Namespace) -> Mapping[str, Any]:
    """Arguments of every push."""
    return {
        "private": args.private,
        "create_pr": args.create_pr,
        "revision": args.revision,
        "commit_message": args.message,
    }
