"""torch's ahead-of-time compiled form, ``model.pt2``: an AOTInductor package for CPUs like this one. It gives rows.

It is machine code: of somebody else it is never opened here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from ld_hub.errors import ConfigError
from ld_hub.export.formats import ExportPlan
from ld_hub.export.program import DetectorRows, Size
from ld_hub.export.pt2_format import PROGRAM
from ld_hub.export.pt2_format import convert as traced
from ld_hub.runtime.reader import Arrays, Program


def convert(rows: DetectorRows, size: Size | None) -> ExportedProgram:
    """The network as a traced program; see `ld_hub.export.program.trace`."""
    return traced(rows, size)


def write(network: ExportedProgram, rows: DetectorRows, plan: ExportPlan, directory: Path) -> str:
    """Compile it; takes a C++ compiler and a minute.

    Raises:
        ConfigError: If it cannot be compiled here.
    """
    try:
        torch._inductor.aoti_compile_and_package(network, package_path=str(directory / PROGRAM))
    except Exception as error:  # the compiler's, inductor's and the linker's have nothing in common
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"'{rows.model.name}' cannot be compiled by AOTInductor here ({reason}). It takes a C++ compiler (g++); "
            "--to pt2 takes none."
        ) from error
    return PROGRAM


def opened(directory: Path) -> Program:
    """The program of a directory that was just written."""
    program = torch._inductor.aoti_load_package(str(directory / PROGRAM))

    def run(inputs: dict[str, NDArray[Any]]) -> Arrays:
        with torch.no_grad():
            found = program(*(torch.from_numpy(inputs[name]) for name in ("images", "image_sizes")))
        return [each.numpy() for each in found]

    return run
