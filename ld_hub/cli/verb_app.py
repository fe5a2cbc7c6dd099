"""`ld-hub app`: a page on which detectors can be tried, side by side."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ld_hub.cli.flags import DEFAULT, add_device_flag
from ld_hub.cli.places import require_directory
from ld_hub.errors import ConfigError
from ld_hub.models.names import require_weights
from ld_hub.runtime.exported_files import is_exported

_DESCRIPTION = """\
Open a page on which detectors can be tried: images are uploaded, several at
once, and each detector's boxes are drawn in a column of its own, with sliders
of the least score and of NMS. Of two detectors, what only one of them finds can
be marked and listed. Detections can be saved as JSON and as a picture.

The page is served on this machine alone (--host 0.0.0.0 for others), and takes
nothing from a network. It takes gradio: pip install 'ld_hub[app]'."""

_EPILOG = """\
examples:
  ld-hub app runs/student/model
  ld-hub app ld_hub_demo/teacher ld_hub_demo/student_auto \\
      --images ld_hub_demo/data/val
  ld-hub app org/name exported --port 7861"""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the parser of `ld-hub`."""
    parser = subparsers.add_parser(
        "app",
        help="a page on which detectors can be tried",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("models", metavar="MODEL", nargs="+", help="a name that has weights, a directory, org/name, or an export")
    add("--images", metavar="DIR", help="directory of images to begin with")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=f"who may see it {DEFAULT}")
    add("--port", type=int, default=7860, metavar="N", help=DEFAULT)
    add_device_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Serve the page until it is interrupted; returns the exit code."""
    if not 1 <= args.port <= 65535:
        raise ConfigError(f"--port is {args.port}; expected 1 to 65535.")
    if args.images is not None:
        require_directory(args.images, "image directory")
    for name in args.models:
        if not is_exported(name):
            require_weights(name)
    if find_spec("gradio") is None:
        raise ConfigError("`ld-hub app` takes gradio, which is not installed: pip install 'ld_hub[app]'.")

    from ld_hub.app.columns import open_columns
    from ld_hub.app.tryout import build
    from ld_hub.ops.hardware import resolve_device
    from ld_hub.preprocessing.loading import find_images

    columns = open_columns(args.models, resolve_device(args.device))
    examples: list[Path] = [] if args.images is None else list(find_images(args.images))[:50]
    page = build(columns, examples)
    print(f"http://{args.host}:{args.port} (Ctrl-C ends it)", flush=True)
    folders = sorted({str(path.parent.resolve()) for path in examples})
    try:
        page.launch(server_name=args.host, server_port=args.port, quiet=True, allowed_paths=folders)
    except OSError as error:
        raise ConfigError(f"The page cannot be served at {args.host}:{args.port} ({error}); another --port?") from None
    return 0
