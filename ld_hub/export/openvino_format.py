"""OpenVINO's form of the ONNX graph: model.xml and model.bin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ld_hub.export import onnx_format
from ld_hub.export.formats import ExportPlan
from ld_hub.export.program import DetectorRows, Size

if TYPE_CHECKING:
    import onnx

PROGRAM = "model.xml"


def convert(rows: DetectorRows, size: Size | None) -> onnx.ModelProto:
    """The network as ONNX; see `ld_hub.export.onnx_format.convert`."""
    return onnx_format.convert(rows, size)


def write(network: onnx.ModelProto, rows: DetectorRows, plan: ExportPlan, directory: Path) -> str:
    """As `ld_hub.export.onnx_format.write`, translated."""
    import openvino

    source = directory / onnx_format.write(network, rows, plan, directory)
    model = openvino.convert_model(str(source))
    model.set_rt_info(str(rows.model.num_classes), ["num_classes"])
    openvino.save_model(model, str(directory / PROGRAM), compress_to_fp16=plan.precision == "float16")
    source.unlink()
    return PROGRAM


def opened(directory: Path) -> None:
    """`ld_hub.runtime` runs it."""
