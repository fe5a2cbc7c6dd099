"""torch's own form, ``model.pt2``: for machines that have torch, and not this library. It gives rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ld_hub.export.formats import ExportPlan
from ld_hub.export.program import DetectorRows, Size, trace
from ld_hub.runtime.reader import Arrays, Program

PROGRAM = "model.pt2"


def convert(rows: DetectorRows, size: Size | None) -> ExportedProgram:
    """The network as a traced program, without the paths of this machine; see `ld_hub.export.program.trace`."""
    program = trace(rows, size)
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def write(network: ExportedProgram, rows: DetectorRows, plan: ExportPlan, directory: Path) -> str:
    """As `ld_hub.export.onnx_format.write`; nothing stands around the network."""
    torch.export.save(network, directory / PROGRAM)
    return PROGRAM


def opened(directory: Path) -> Program:
    """The program of a directory that was just written. Others' are not opened: they may hold pickles."""
    program = torch.export.load(directory / PROGRAM).module()

    def run(inputs: dict[str, NDArray[Any]]) -> Arrays:
        with torch.no_grad():
            found = program(*(torch.from_numpy(inputs[name]) for name in ("images", "image_sizes")))
        return [each.numpy() for each in found]

    return run
