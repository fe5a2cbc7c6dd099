"""The formats of exported detectors, by name; each is one file of this room. Imports no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ld_hub.errors import ConfigError, unknown_name
from ld_hub.runtime.exported_files import is_exported

if TYPE_CHECKING:
    from ld_hub.export.program import DetectorRows, Size
    from ld_hub.runtime.reader import Program


PRECISIONS = {
    "float32": "what the model computes",
    "float16": "half the bytes; boxes and scores are computed in float32",
    "int8": "convolutions in whole numbers, calibrated on training images",
    "int8_weights": "a quarter of the bytes of the convolutions' weights, computed in float32",
}


@dataclass(frozen=True)
class ExportPlan:
    """What stands around the network of an exported detector.

    Attributes:
        no_nms: Leave out the choice of boxes: the program gives rows.
        with_preprocessing: Take ``(N, h, w, K)`` uint8 pixels in RGB order, give boxes in px of these.
        size: Height and width in px that all images are padded to; None for any.
        precision: One of `PRECISIONS`.
        page: Where onnxruntime-web's files lie, of which a web page is made; None for no page.
    """

    no_nms: bool = False
    with_preprocessing: bool = False
    size: tuple[int, int] | None = None
    precision: str = "float32"
    page: Path | None = None


class FormatFile(Protocol):
    """What the file of a format has."""

    def convert(self, rows: DetectorRows, size: Size | None) -> Any:
        """The network in the format's own form; `ld_hub.export.onnx_format.convert` says more."""

    def write(self, network: Any, rows: DetectorRows, plan: ExportPlan, directory: Path) -> str:
        """Write it with what stands around it; returns the program's file name."""

    def opened(self, directory: Path) -> Program | None:
        """What runs a directory that was just written; None where `ld_hub.runtime` does."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        module: Its file.
        packages: What it takes beside this library's own dependencies.
        extra: The extra of this library that brings them.
        no_pixels: Why its programs do not prepare images; empty where they can.
        no_choice: Why they do not choose boxes.
        precisions: The numbers that it can compute in.
    """

    module: str
    packages: tuple[str, ...]
    extra: str
    no_pixels: str = ""
    no_choice: str = ""
    precisions: tuple[str, ...] = tuple(PRECISIONS)

    def require(self, plan: ExportPlan) -> None:
        """Refuse what the format cannot hold.

        Raises:
            ConfigError: Saying why, and what to do.
        """
        if plan.with_preprocessing and self.no_pixels:
            raise ConfigError(f"{self.no_pixels}: export without --with_preprocessing; ld_hub.runtime prepares images.")
        if not plan.no_nms and self.no_choice:
            raise ConfigError(f"{self.no_choice}: export with --no_nms (no_nms=True).")
        if plan.precision not in self.precisions:
            raise unknown_name("precision", plan.precision, self.precisions)

    def load(self) -> FormatFile:
        """Its functions."""
        return cast(FormatFile, importlib.import_module(self.module))


FORMATS = {
    "onnx": Format("ld_hub.export.onnx_format", ("onnx", "onnxscript", "onnxruntime"), "export"),
    "openvino": Format(
        "ld_hub.export.openvino_format",
        ("onnx", "onnxscript", "openvino"),
        "openvino",
        no_pixels="OpenVINO computes float64 in float32, which moves resized pixels by a grey level",
    ),
    "pt2": Format(
        "ld_hub.export.pt2_format",
        (),
        "export",
        no_pixels="pt2 programs take normalised images",
        no_choice="pt2 programs give rows",
        precisions=("float32",),
    ),
    "aoti": Format(
        "ld_hub.export.aoti_format",
        (),
        "export",
        no_pixels="AOTInductor packages take normalised images",
        no_choice="AOTInductor packages give rows",
        precisions=("float32",),
    ),
}


def find_format(name: str) -> Format:
    """A format whose packages are here.

    Raises:
        UnknownNameError: If there is no such format.
        ConfigError: If a package is missing.
    """
    if name not in FORMATS:
        raise unknown_name("format", name, FORMATS)
    found = FORMATS[name]
    missing = [package for package in found.packages if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"Exporting to {name} takes {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            f"installed: pip install 'ld_hub[{found.extra}]'."
        )
    return found


def require_calibration(precision: str, has_data: bool, images: int) -> None:
    """Refuse int8 where there is nothing to measure its ranges and its AP on.

    Args:
        precision: One of `PRECISIONS`.
        has_data: Whether there are images to train and to evaluate on.
        images: How many of the former are wanted.

    Raises:
        ConfigError: If there is nothing.
    """
    if images < 1:
        raise ConfigError(f"--calibration_images {images}: expected at least 1.")
    if precision == "int8" and not has_data:
        raise ConfigError(
            "int8 is calibrated on the images to train on and judged by the AP on those to evaluate on: name the data "
            "set with --data DIR (dataset and calibration in Python). Without one: --precision int8_weights or float16."
        )


def check_place(directory: str | Path) -> None:
    """Refuse a place that holds anything but an earlier export.

    Raises:
        ConfigError: If it does.
    """
    place = Path(directory).expanduser()
    if place.is_dir() and any(place.iterdir()) and not is_exported(place):
        raise ConfigError(
            f"'{directory}' holds other files; expected a new directory, an empty one, or an earlier export."
        )
