"""ONNX: the network as torch traces it, preprocessing before it and the choice of boxes behind it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ld_hub.errors import ConfigError
from ld_hub.export.choice_graph import choice_graph
from ld_hub.export.formats import ExportPlan
from ld_hub.export.pixel_graph import pixel_graph, unscale_graph
from ld_hub.export.program import DetectorRows, Size, trace
from ld_hub.models.detector_config import STRIDES

if TYPE_CHECKING:
    import onnx

OPSET = 18
DEFORMABLE_OPSET = 19  # the first with deformable convolution
IR_VERSION = 10
PROGRAM = "model.onnx"


def convert(rows: DetectorRows, size: Size | None) -> onnx.ModelProto:
    """A detector's network as ONNX, its outputs called as `DetectorRows.OUTPUTS`.

    Args:
        rows: The detector.
        size: Height and width of all inputs; None for any.

    Raises:
        ConfigError: If it cannot be traced, or ONNX has no operator for something in it.
    """
    program = trace(rows, size)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet():
            warnings.simplefilter("ignore")
            made = torch.onnx.export(
                program, dynamo=True, opset_version=opset_of(rows), output_names=list(rows.OUTPUTS), verbose=False
            )
    except RuntimeError as error:
        raise ConfigError(f"torch cannot write '{rows.model.name}' as ONNX: {_first_line(error)}") from error
    if made is None:
        raise ConfigError("torch.onnx.export made no program; exports take torch 2.6 or newer.")
    model: onnx.ModelProto = made.model_proto
    model.ir_version = IR_VERSION
    _forget_the_tracing(model.graph)
    return model


def _forget_the_tracing(graph: onnx.GraphProto) -> None:
    """Remove what torch notes of how it traced: paths of this machine among it, which nobody should publish."""
    for each in (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        kept = [(entry.key, entry.value) for entry in each.metadata_props if not entry.key.startswith("pkg.")]
        del each.metadata_props[:]
        for key, value in kept:
            each.metadata_props.add(key=key, value=value)


def opset_of(rows: DetectorRows) -> int:
    """Version of ONNX's operators that a detector needs."""
    return OPSET if rows.model.backbone.offset_channels is None else DEFORMABLE_OPSET


def write(network: onnx.ModelProto, rows: DetectorRows, plan: ExportPlan, directory: Path) -> str:
    """Write what `convert` made as one file.

    Args:
        network: Stays as it is.
        rows: What it was made of.
        plan: What stands around the network.
        directory: Where to.

    Returns:
        Name of the file.
    """
    import onnx

    onnx.save(_around(network, rows, plan), directory / PROGRAM)
    return PROGRAM


def opened(directory: Path) -> None:
    """`ld_hub.runtime` runs it."""


def _around(network: onnx.ModelProto, rows: DetectorRows, plan: ExportPlan) -> onnx.ModelProto:
    """A network with preprocessing before it and the choice of boxes behind it, checked."""
    import onnx

    model, boxes = network, rows.OUTPUTS[0]
    if plan.with_preprocessing:
        model = _joined(_parsed(pixel_graph(rows.model.data_config, plan.size), network, "pixels_"), model)
        model, boxes = _joined(model, _parsed(unscale_graph(), network, "unscale_")), "pixel_boxes"
    if not plan.no_nms:
        text = choice_graph(rows.model.postprocess_config, len(STRIDES)).replace(rows.OUTPUTS[0], boxes)
        model = _joined(model, _parsed(text, network, "choice_"))
    outputs = sorted(model.graph.output, key=lambda each: not each.name.endswith("boxes"))  # boxes first
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.output[:]
    made.graph.output.extend(outputs)
    onnx.helper.set_model_props(made, {"num_classes": str(rows.model.num_classes)})
    onnx.checker.check_model(made)
    return made


def _parsed(text: str, like: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """A graph from its text, of the versions of another; what is inside gets a prefix."""
    from onnx import compose, parser

    opset = next(each.version for each in like.opset_import if each.domain == "")
    model = parser.parse_model(f'<ir_version: {like.ir_version}, opset_import: ["" : {opset}]>\n{text}')
    return compose.add_prefix(model, prefix, rename_inputs=False, rename_outputs=False)


def _joined(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """Two graphs, outputs of the first going into the inputs of the same name of the second."""
    from onnx import compose

    made, taken = ({each.name for each in values} for values in (first.graph.output, second.graph.input))
    return compose.merge_models(first, second, io_map=[(name, name) for name in sorted(made & taken)])


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of torch's exporter."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
