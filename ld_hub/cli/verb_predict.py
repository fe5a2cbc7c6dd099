"""`ld-hub predict`: detect objects on pictures, draw them, and write them as JSON."""

from __future__ import annotations

import argparse
import glob
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from ld_hub.cli.flags import add_device_flag, add_tile_flags, refuse_tiles, tiling_of
from ld_hub.cli.places import check_directory
from ld_hub.errors import ConfigError, MissingFileError
from ld_hub.models.names import require_weights
from ld_hub.runtime.exported_files import is_exported

if TYPE_CHECKING:
    from ld_hub.export.exported_model import ExportedModel
    from ld_hub.models.detector import DenseDetector
    from ld_hub.structures import Detections, ImageFileRow, PipelineRow, ResultRow

    class _Seen(ImageFileRow):
        picture: str
        detections: list[PipelineRow]

    class _Found(ResultRow):
        id: int


Detect: TypeAlias = "Callable[..., Iterator[Detections]]"

_DESCRIPTION = """\
Detect objects on pictures and videos with a model of this library.

Every picture is written to --out with its detections drawn on it. All
detections together go to --out/detections.json: under "annotations" in COCO's
form (boxes are x, y, width, height), and under each image in the form of the
Hugging Face object-detection pipeline.

Of a video (a file, an rtsp:// address, or a camera's number; extra "video") a
copy with what was found drawn in, and a line of JSON for each frame, go to
--out. Ctrl-C ends it, and what was seen until then is kept."""

_EPILOG = """\
examples:
  ld-hub predict photo.jpg --model runs/student/model
  ld-hub predict holiday/ *.png --model runs/student/model --threshold 0.5
  ld-hub predict 'albums/**/*.jpg' --model runs/student/model
  ld-hub predict satellite.tif --model runs/student/model --tile 1024
  ld-hub predict clip.mp4 --model runs/student/model --every 2
  ld-hub predict photo.jpg --model org/name
  ld-hub predict https://example.org/street.jpg --model NAME --device cpu

in Python:
  model = ld_hub.create_model("runs/student/model", pretrained=True)
  detections = model.predict("photo.jpg", threshold=0.3)
  print(detections)
  detections.save("found.jpg")"""

_TABLES = 20  # with more pictures than this, each gets one line instead of a table


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "predict",
        help="detect objects on images and draw them",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    default = "(default: %(default)s)"
    add("images", nargs="+", metavar="IMG", help="images and videos: files, URLs, directories, or quoted patterns")
    add("--recursive", action="store_true", help="also take the images in subdirectories of directories")
    add(
        "--model",
        required=True,
        metavar="NAME|DIR",
        help="a name that has weights (see `ld-hub list`), a directory or org/name of the Hub: a model, or an export",
    )
    add("--out", default="predictions", metavar="DIR", help=f"where pictures and JSON go {default}")
    add("--threshold", type=float, default=0.3, metavar="P", help=f"take objects with a score above this {default}")
    add("--batch_size", type=int, default=8, metavar="N", help=f"images per forward pass {default}")
    add("--every", type=int, default=1, metavar="N", help=f"of a video, look at one of so many frames {default}")
    add("--max_frames", type=int, metavar="N", help="of a video or a camera, look at so many frames (default: all)")
    add_tile_flags(parser)
    add_device_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Detect on all pictures; returns the exit code."""
    check_directory(args.out)
    if args.batch_size < 1 or not 0 <= args.threshold < 1:
        raise ConfigError(
            f"--batch_size {args.batch_size} --threshold {args.threshold:g}: expected at least 1 and 0 to below 1."
        )
    clips, args.images = _videos(args)
    _require_images(args.images)
    if is_exported(args.model):
        refuse_tiles(args)
    else:
        require_weights(args.model)
    sources = _expand(args.images, args.recursive)

    from rich.console import Console
    from rich.progress import track

    from ld_hub.hub.files import atomic_write

    model, detect = _opened(args)
    _detect_on_videos(clips, detect, args)
    if not sources:
        return 0
    out, names = Path(args.out), _picture_names(sources)
    found = detect(sources, threshold=args.threshold, batch_size=args.batch_size)
    images: list[_Seen] = []
    annotations: list[_Found] = []
    console = Console(stderr=True)
    # A lone picture needs no progress bar, and a pipe wants none.
    shown = track(found, "detecting", total=len(sources), console=console, disable=len(sources) == 1, transient=True)
    for number, (source, name, detections) in enumerate(zip(sources, names, shown, strict=True), start=1):
        detections.save(out / name)
        images.append(_image_entry(number, str(source), name, detections))
        rows = enumerate(detections.to_coco(number), start=len(annotations) + 1)
        annotations += [{**row, "id": k} for k, row in rows]
        print(_report(str(source), detections, short=len(sources) > _TABLES))
    content = {
        "model": args.model,
        "threshold": args.threshold,
        "images": images,
        "categories": [
            {"id": number, "name": name} for number, name in zip(model.category_ids, model.label_names, strict=True)
        ],
        "annotations": annotations,
    }
    atomic_write(out / "detections.json", json.dumps(content, indent=1, ensure_ascii=False))
    print(f"{len(annotations)} objects on {len(images)} images; pictures and detections.json are in {out}")
    return 0


def _videos(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Which of the sources are videos, that can be read; and the others."""
    from ld_hub.preprocessing.video import is_video, require_video

    if args.every < 1 or (args.max_frames is not None and args.max_frames < 1):
        raise ConfigError(f"--every {args.every} --max_frames {args.max_frames}: expected at least 1.")
    clips = [name for name in args.images if is_video(name)]
    for clip in clips:
        require_video(clip)
    return clips, [name for name in args.images if name not in clips]


def _detect_on_videos(clips: list[str], detect: Detect, args: argparse.Namespace) -> None:
    if not clips:
        return
    from ld_hub.cli.clips import ClipWanted, detect_on_video

    wanted = ClipWanted(args.every, args.max_frames, args.threshold, args.batch_size)
    for clip, name in zip(clips, _picture_names(list(clips)), strict=True):
        print(detect_on_video(clip, Path(name).stem, Path(args.out), detect, wanted))


def _opened(args: argparse.Namespace) -> tuple[DenseDetector | ExportedModel, Detect]:
    """What detects: a model, or an export, which may also lie on the Hub."""
    from ld_hub.export.fetching import find_export

    export = find_export(args.model)
    if export is None:
        return _model(args)
    refuse_tiles(args)
    return _exported(export)


def _model(args: argparse.Namespace) -> tuple[DenseDetector, Detect]:
    """A model of the library, and what it detects with."""
    from ld_hub.models.factory import create_model
    from ld_hub.models.inference import iter_predict
    from ld_hub.ops.hardware import resolve_device

    model = create_model(args.model, pretrained=True).to(resolve_device(args.device))
    return model, partial(iter_predict, model, tiling=tiling_of(args))


def _exported(directory: Path) -> tuple[ExportedModel, Detect]:
    """The same of a directory that `ld-hub export` wrote."""
    from ld_hub.export.exported_model import ExportedModel

    model = ExportedModel(directory)
    return model, model.iter_predict


def _require_images(given: list[str]) -> None:
    """What is missing is reported before anything is imported."""
    for name in given:
        if not (_is_url(name) or os.path.exists(os.path.expanduser(name)) or glob.has_magic(name)):
            raise MissingFileError(f"No image or directory '{name}'.")


def _expand(given: list[str], recursive: bool) -> list[str | Path]:
    """Directories and patterns become their images; what is missing is reported before a model is loaded."""
    from ld_hub.preprocessing.loading import find_images, is_directory, is_pattern, match_images

    sources: list[str | Path] = []
    for name in given:
        if _is_url(name):
            sources.append(name)
        elif is_directory(name):
            sources += find_images(name, recursive=recursive)
        elif is_pattern(name):
            sources += match_images(name)
        elif Path(name).expanduser().is_file():
            sources.append(Path(name).expanduser())
        else:
            raise MissingFileError(f"No image or directory '{name}'.")
    return sources


def _is_url(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def _picture_names(sources: list[str | Path]) -> list[str]:
    """A distinct file name for each drawn picture: the stem of the source, numbered where it repeats."""
    names: list[str] = []
    taken: set[str] = set()
    for source in sources:
        path = urlsplit(str(source)).path if _is_url(str(source)) else str(source)
        stem = name = Path(path).stem or "image"
        number = 1
        while name.lower() in taken:  # some file systems do not tell cases apart
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names.append(f"{name}.jpg")
    return names


def _image_entry(number: int, source: str, name: str, detections: Detections) -> _Seen:
    width, height = (0, 0) if detections.image is None else detections.image.size
    return {
        "id": number,
        "file_name": source,
        "width": width,
        "height": height,
        "picture": name,
        "detections": detections.to_list(),
    }


def _report(source: str, detections: Detections, *, short: bool) -> str:
    if not short:
        return f"{source}\n{detections}\n"
    counts: dict[str, int] = {}
    for name in detections.names:
        counts[name] = counts.get(name, 0) + 1
    return f"{source}: {', '.join(f'{count} {name}' for name, count in counts.items()) or 'no objects'}"
