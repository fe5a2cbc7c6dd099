"""`ld-hub show`: the ideas of distillation on one photograph, as one picture."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub import catalog
from ld_hub.cli.flags import DEFAULT, add_device_flag
from ld_hub.cli.places import check_file
from ld_hub.errors import ConfigError, MissingFileError, unknown_name
from ld_hub.models.names import require_weights

if TYPE_CHECKING:
    from ld_hub.analysis.photograph import Photograph
    from ld_hub.models.detector import DenseDetector

_DESCRIPTION = """\
Draw what a detector learns on one photograph, and what a teacher adds:

  which cells of which level answer for which object (the model's own assigner)
  where distillation terms look: main region, VLR, gi ... (ld-hub recipes)
  the bins of one object's four edges, the student's beside the teacher's, with
  the edges that follow from them in px

Objects are the boxes of --data or --boxes; without either, the model's own
detections. Regions that compare with a teacher (confident, gi) need --teacher."""

_EPILOG = """\
examples:
  ld-hub show ld_hub_demo/student_vlr ld_hub_demo/data/val/000002.jpg \\
      --teacher ld_hub_demo/teacher --data ld_hub_demo/data
  ld-hub show NAME photo.jpg --boxes 34,20,180,240,dog 200,60,260,130,cat
  ld-hub show NAME photo.jpg --regions main vlr --object 2 --out ideas.png

in Python:
  from ld_hub.analysis.ideas import gather
  from ld_hub.analysis.idea_pictures import draw_ideas
  from ld_hub.analysis.photograph import with_boxes
  seen = with_boxes(image, ["34,20,180,240,dog"], student.label_names)
  draw_ideas(gather(seen, student, teacher)).save("ideas.png")"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "show",
        help="draw assignment, regions and bins on a photograph",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="NAME|DIR", help="a name that has weights (see `ld-hub list`), or a model directory")
    add("image", metavar="IMAGE", help="image file, or its URL")
    add("--teacher", metavar="NAME|DIR", help="the one that the model is compared with")
    add("--data", metavar="DIR|FILE", help="data set, or COCO file, that has the objects' boxes")
    add("--split", help="part of the data set that the image is in (default: val, else train)")
    add("--boxes", nargs="*", metavar="BOX", help="x1,y1,x2,y2[,label] of each object, px of the image")
    add("--regions", nargs="+", metavar="REGION", help="also as main,vlr,gi (default: all that can be made)")
    add("--object", type=int, metavar="K", help="whose edges are drawn, as numbered (default: the largest)")
    add("--score", type=float, default=0.3, metavar="P", help=f"least score of own detections {DEFAULT}")
    add("--out", default="show.png", metavar="FILE", help=f"the suffix chooses the format {DEFAULT}")
    add_device_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Draw and write the picture; returns the exit code."""
    regions = None if args.regions is None else [name for text in args.regions for name in text.split(",") if name]
    _check(args, regions or [])  # before torch is loaded

    from ld_hub.analysis.idea_pictures import draw_ideas
    from ld_hub.analysis.ideas import gather
    from ld_hub.cli.verb_analyze import short_names
    from ld_hub.drawing import save_picture
    from ld_hub.models.checkpoints.pretrained import load_pretrained
    from ld_hub.models.factory import find_weights
    from ld_hub.ops.hardware import resolve_device

    device = resolve_device(args.device)
    sources = [args.model, *([args.teacher] if args.teacher else [])]
    models = [load_pretrained(place).to(device) for place in [find_weights(source) for source in sources]]
    names = [*short_names(sources), "teacher"]
    photograph = _photograph(args, models[0])
    ideas = gather(
        photograph,
        models[0],
        models[1] if args.teacher else None,
        names=(names[0], names[1]),
        regions=regions,
        chosen=None if args.object is None else args.object - 1,
    )
    print(f"{args.image}: {len(photograph)} object{'' if len(photograph) == 1 else 's'}. {photograph.origin}")
    for reason, left_out in ideas.reasons.items():
        print(f"Without {', '.join(left_out)}. {reason}")
    print(f"the picture is {save_picture(draw_ideas(ideas), args.out)}")
    return 0


def _check(args: argparse.Namespace, regions: Sequence[str]) -> None:
    """What can be said without loading anything."""
    from ld_hub.drawing import picture_format

    check_file(args.out, "--out")
    picture_format(args.out)
    if not _is_url(args.image) and not Path(args.image).expanduser().is_file():
        raise MissingFileError(f"No image file '{args.image}'.")
    if args.data is not None and args.boxes is not None:
        raise ConfigError("--data and --boxes both say where the objects are; give one of them.")
    if args.data is not None and (_is_url(args.image) or not Path(args.data).expanduser().exists()):
        where = "an image from a URL is in no data set" if _is_url(args.image) else "there is no such place"
        raise ConfigError(f"--data {args.data}: {where}. Say where objects are with --boxes x1,y1,x2,y2.")
    if args.boxes is not None and not args.boxes:
        raise ConfigError("--boxes: no box follows; give x1,y1,x2,y2 of each object, or leave it out.")
    if args.object is not None and args.object < 1:
        raise ConfigError(f"--object {args.object}: objects are numbered from 1.")
    if not 0 <= args.score < 1:
        raise ConfigError(f"--score {args.score:g}: expected a number from 0 to below 1.")
    known = catalog.regions()
    for name in regions:
        if name not in known:
            raise unknown_name("region", name, known)
    for model in [args.model, *filter(None, [args.teacher])]:
        require_weights(model)


def _is_url(image: str) -> bool:
    return image.lower().startswith(("http://", "https://"))


def _photograph(args: argparse.Namespace, model: DenseDetector) -> Photograph:
    """The image with its objects."""
    from ld_hub.analysis.photograph import detected, from_data, with_boxes
    from ld_hub.preprocessing import load_image

    if args.data is not None:
        return from_data(Path(args.image).expanduser(), args.data, args.split, model.label_names)
    if args.boxes is not None:
        return with_boxes(load_image(args.image), args.boxes, model.label_names)
    return detected(args.image, model, args.score)
