"""`ld-hub card`: the README.md of a model directory, of a run, or of published weights."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from ld_hub.errors import ConfigError
from ld_hub.hub import CONFIG_NAME, no_model
from ld_hub.models.names import get_pretrained_cfg

_DESCRIPTION = """\
Write the card of a model: README.md with metadata for the Hub. AP comes from
the evaluation artefacts in MODEL_DIR/eval/ (and --evaluation FILE), which
`ld-hub eval MODEL_DIR --data DIR --out MODEL_DIR/eval` writes; without any the
card has no AP. Evaluations of the teacher and of the same model without
distillation become rows of its table. Of a run there are its curves and, if
none is there yet, a picture of the detections on an evaluation image. In a card
that is there already the metadata and the generated block are renewed; your own
text stays."""

_EPILOG = """\
examples:
  ld-hub card runs/student         writes runs/student/model/README.md
  ld-hub card runs/student --evaluation teacher_ap/metrics.json
  ld-hub card gfocal_r18_ld_r101.mmdet_1x_coco      prints it
  ld-hub card --all                model_cards/NAME.TAG.md, all of them"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "card",
        help="write the card of a model",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL_DIR|RUN_DIR|NAME.TAG", help="a model, a training run, or published weights")
    add("--all", action="store_true", help="one card for every pretrained tag, and an index")
    add("--out", metavar="FILE", help="where the card goes; with --all the directory (default: model_cards)")
    add("--evaluation", action="append", default=[], metavar="FILE", help="a metrics.json of `ld-hub eval`; repeatable")
    add("--run", metavar="DIR", help="the run that trained the model, where MODEL_DIR does not lie in it")
    add("--image", metavar="FILE", help="draw what the model finds on this image beside the card, as detections.jpg")
    add("--no_pictures", action="store_true", help="draw nothing but the picture of --image")
    add("--repo_id", default="", metavar="ORG/NAME", help="where the model is published")
    add("--license", metavar="ID", help="licence of the weights, e.g. apache-2.0")


def run(args: argparse.Namespace) -> int:
    """Write the card; returns the exit code."""
    if args.all == (args.model is not None):
        raise ConfigError("Name a model, or pass --all for all published weights, not both.")
    if not args.all and not Path(args.model).is_dir():
        get_pretrained_cfg(args.model, allow_unregistered=False)
    elif not args.all and not any((Path(args.model) / inner / CONFIG_NAME).is_file() for inner in (".", "model")):
        raise no_model(args.model)

    from ld_hub.hub import atomic_write
    from ld_hub.hub.card_file import update_card
    from ld_hub.publishing.runs import is_run

    if args.all:
        return _write_all(Path(args.out or "model_cards"))
    place = Path(args.model)
    if not place.is_dir():
        text = published_card(args.model)
        if args.out is None:
            print(text, end="")
            return 0
        target = Path(args.out)
    else:
        directory = place / "model" if (place / "model" / CONFIG_NAME).is_file() else place
        run_directory = Path(args.run) if args.run else directory.parent if is_run(directory.parent) else None
        target = Path(args.out) if args.out else directory / "README.md"
        text = _saved_card(directory, run_directory, target.parent, args)
    if target.is_file():
        text = update_card(target.read_bytes().decode("utf-8"), text)
    atomic_write(target, text)
    print(f"card: {target}")
    return 0


def published_card(full_name: str) -> str:
    """The card of published weights with the recipe of their name.

    Args:
        full_name: ``name.tag``, or a name for its default tag.

    Raises:
        UnknownNameError: If there are no such weights.
    """
    from ld_hub.distillation import get_recipe, make_teaching
    from ld_hub.models.names import find, split_tag
    from ld_hub.publishing.tag_cards import tag_card

    name, tag = split_tag(full_name)
    entry = find(name)
    cfg = get_pretrained_cfg(full_name, allow_unregistered=False)
    tag = tag or next(each for each, known in entry.pretrained.items() if known is cfg)
    if entry.distilled is None:
        return tag_card(f"{name}.{tag}")
    teaching = make_teaching(get_recipe(entry.distilled.recipe).for_family(entry.family))
    return tag_card(f"{name}.{tag}", replace(teaching, teachers=(entry.distilled.teacher,)))


def every_card() -> dict[str, str]:
    """Cards of all published weights and their index, by file name."""
    from ld_hub.publishing.tag_cards import index_card, registered_tags

    return {
        "README.md": index_card() + _all_names(),
        **{f"{full}.md": published_card(full) for full in registered_tags()},
    }


def _all_names() -> str:
    """A section of all registered names, with or without weights."""
    from ld_hub.cli.verb_list import markdown
    from ld_hub.models.names import list_models

    sentence = "Names with weights to download, and distilled names; as `ld-hub list --markdown` prints them."
    return f"\n## All names\n\n{sentence}\n\n<!-- models:begin -->\n{markdown(list_models())}\n<!-- models:end -->\n"


def _write_all(out: Path) -> int:
    from ld_hub.hub import atomic_write

    cards = every_card()
    for name, text in cards.items():
        atomic_write(out / name, text)
    left = sorted(file.name for file in out.glob("*.md") if file.name not in cards)
    print(f"{len(cards) - 1} cards and README.md are in {out}")
    if left:
        print(f"of no registered weights, to be removed by hand: {', '.join(left)}")
    return 0


def _saved_card(directory: Path, run_directory: Path | None, folder: Path, args: argparse.Namespace) -> str:
    from ld_hub.hub.evidence import find_evidence, read_evidence
    from ld_hub.models.checkpoints.pretrained import load_pretrained
    from ld_hub.publishing.cards import model_card
    from ld_hub.publishing.push import CURVES_NAME, PICTURE_NAME, draw_picture
    from ld_hub.publishing.runs import draw_curves, example_image, is_run

    model = load_pretrained(directory)
    image = args.image
    if run_directory is not None and is_run(run_directory) and not args.no_pictures:
        draw_curves(run_directory, folder / CURVES_NAME, print)
        if image is None and not (folder / PICTURE_NAME).is_file():
            image = example_image(model, run_directory, print)
    if image is not None:
        draw_picture(model, image, folder)
    evaluations = list(find_evidence(directory).values())
    evaluations += [read_evidence(file) for file in args.evaluation]
    return model_card(
        model,
        repo_id=args.repo_id,
        license=args.license,
        evaluations=[each for k, each in enumerate(evaluations) if each not in evaluations[:k]],
        run=run_directory,
        folder=folder,
    )
