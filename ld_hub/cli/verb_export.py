"""`ld-hub export`: a model becomes a directory that runs without torch."""

from __future__ import annotations

import argparse
from typing import Any

from ld_hub.cli.flags import DEFAULT, add_data_flags, read_data, require_data
from ld_hub.errors import ConfigError
from ld_hub.export.formats import FORMATS, PRECISIONS, ExportPlan, check_place, find_format, require_calibration
from ld_hub.export.web_page import PACKAGE, find_runtime, require_page
from ld_hub.models.names import require_model

_DESCRIPTION = """\
Write a model as a program for other machines: a directory with the program,
config.json (class names, preprocessing, settings), a README.md with code that
needs no torch, and SHA256SUMS. `ld_hub.runtime.Detector(DIR)` runs it with
NumPy, Pillow and onnxruntime alone; `ld-hub predict`, `eval` and `benchmark`
take it as they take a model.

--to pt2 is torch.export's program, aoti AOTInductor's package, compiled for
CPUs like this one; both give rows (--no_nms) and are run by torch itself.

The choice of boxes (filter, NMS per class, cap) is part of the program, with
the model's own settings; batch, height and width are free. Before anything is
kept the program is compared with the model: rows and detections on random
images and, with --data, on the first of the data, and the AP on all of them. If
they differ nothing is written, and the message names what differs first.

--precision float16 makes the file smaller (98 % of the detections within 0.02
of a box's side and 0.01 of the score, at most 0.1 AP lost). int8 measures its
ranges on training images of --data, keeps predictions, boxes and the
convolutions that cost too much AP in float32, and may lose 0.5 AP. int8_weights
stores int8 and computes in float32 (80 % within 0.1, at most 0.5 AP lost). A
CPU without float16 or int8 instructions gains size, not speed.

--page also writes index.html, which runs the program in a browser, on images
and on the camera, with nothing from a network: any web server serves the
directory as it is (`python -m http.server`)."""

_EPILOG = """\
examples:
  ld-hub export runs/student/model --out exported
  ld-hub export runs/student/model --out exported --with_preprocessing
  ld-hub export runs/student/model --out exported --data mine --to openvino
  ld-hub export runs/student/model --out exported --page
  ld-hub export runs/student/model --out exported --data mine --precision int8
  ld-hub eval exported --data mine

in Python:
  model.export("exported", to="onnx")
  from ld_hub.runtime import Detector  # imports no torch
  print(list(Detector("exported").predict("photo.jpg", threshold=0.3)))"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "export",
        help="write a model as a program that runs without torch",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="a name that has weights (see `ld-hub list`), or a model directory")
    add("--to", default="onnx", metavar="FORMAT", help=f"{', '.join(FORMATS)} {DEFAULT}")
    add("--out", required=True, metavar="DIR", help="a new directory, or an earlier export")
    add("--no_nms", action="store_true", help="leave out the choice of boxes: the program gives rows")
    pixels = "take uint8 pixels (N, height, width, 3) in RGB order, resize and normalise inside"
    add("--with_preprocessing", action="store_true", help=pixels)
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="px that all images are padded to (default: any)")
    page = "also write a web page that runs the program (takes --with_preprocessing with it)"
    add("--page", action="store_true", help=page)
    runtime = (
        f"what --page takes: the npm package, unpacked or as `npm pack {PACKAGE}` writes it (default: npm is asked)"
    )
    add("--onnxruntime_web", metavar="PLACE", help=runtime)
    add("--precision", default="float32", metavar="P", help=f"{', '.join(PRECISIONS)} {DEFAULT}")
    images = "training images of --data that int8 measures its ranges on"
    add("--calibration_images", type=int, default=128, metavar="N", help=f"{images} {DEFAULT}")
    add("--keep", action="store_true", help="write it even where it differs from the model")
    add_data_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Export and print the comparison; returns the exit code."""
    if args.size is not None and min(args.size) < 1:
        raise ConfigError(f"--size {args.size[0]} {args.size[1]}: expected a height and a width in px.")
    if args.page:
        require_page(args.to, no_nms=args.no_nms)
    elif args.onnxruntime_web:
        raise ConfigError("--onnxruntime_web is what --page takes: add --page, or leave it out.")
    find_format(args.to).require(ExportPlan(args.no_nms, args.with_preprocessing, precision=args.precision))
    check_place(args.out)
    has_data, calibrates = bool(args.data or args.annotations or args.images), args.precision == "int8"
    require_calibration(args.precision, bool(args.data), args.calibration_images)
    if has_data:
        require_data(args)
    if calibrates:
        require_data(_training_part(args))
    require_model(args.model)
    runtime = find_runtime(args.onnxruntime_web) if args.page else None

    from ld_hub.export.writing import export_model
    from ld_hub.models.factory import create_model

    model = create_model(args.model, pretrained=True)
    dataset = read_data(args) if has_data else None
    report = export_model(
        model,
        args.out,
        to=args.to,
        no_nms=args.no_nms,
        with_preprocessing=args.with_preprocessing,
        size=None if args.size is None else (args.size[0], args.size[1]),
        precision=args.precision,
        dataset=dataset,
        calibration=read_data(_training_part(args)) if calibrates else None,
        calibration_images=args.calibration_images,
        keep=args.keep,
        page=args.page,
        onnxruntime_web=runtime,
    )
    if report.remark:
        print(report.remark)
    print(report.agreement)
    if report.agreement.fault:
        print(f"kept although it differs: {report.agreement.fault}")
    if args.page:
        print(f"the page: `python -m http.server --directory {report.directory}`, then http://localhost:8000")
    print(f"written to {report.directory}: `ld-hub predict IMG --model {report.directory}`, or its README.md")
    return 0


def _training_part(args: argparse.Namespace) -> argparse.Namespace:
    """The same flags, of the images to train on."""
    return argparse.Namespace(**{**vars(args), "split": "train", "annotations": None})
