"""What exported detectors cost: preparing images, and the program itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ld_hub.benchmark.figures import Figures, InferenceSpeed, MeasuredProgram
from ld_hub.benchmark.steps import Inference, Watch, Workload
from ld_hub.errors import CheckpointError
from ld_hub.ops.hardware import program_hardware
from ld_hub.runtime import Detector, ExportedError
from ld_hub.runtime.exported_files import read_exported
from ld_hub.runtime.pixels import prepare

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}  # what runs a format's programs


def program_figures(directory: str | Path, work: Workload, threads: int | None = None) -> Figures:
    """What an exported detector costs, and on what; arguments and errors of `time_program`."""
    cost = time_program(directory, work, threads)
    exported = read_exported(directory)
    height, width = exported.size or (work.height, work.width)
    return Figures(
        program_hardware(PACKAGES[exported.to], threads),
        workload=replace(work, height=height, width=width),
        model=str(directory),
        program=MeasuredProgram(exported.digest, threads),
        inference=InferenceSpeed.found(cost, work.batch_size),
    )


def time_program(directory: str | Path, work: Workload, threads: int | None = None) -> Inference:
    """Time an exported detector on images of noise; scores are the model's own.

    Args:
        directory: Of the export.
        work: Batch, image size and repeats; a program of a fixed size keeps that.
        threads: CPU threads; None for the runtime's own choice.

    Raises:
        CheckpointError: If the exported detector is damaged.
    """
    try:
        detector = Detector(directory, threads=threads)
    except ExportedError as error:
        raise CheckpointError(str(error)) from error
    exported, random = detector.exported, np.random.default_rng(work.seed)
    height, width = exported.size or (work.height, work.width)
    shape = (work.batch_size, height, width, len(exported.preparation.mean))
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    watch = Watch(torch.device("cpu"))
    found = 0
    for _ in range(work.repeats + 1):
        if exported.takes_pixels:
            inputs = {"pixels": pixels}
        else:
            batch = watch("data", partial(prepare, list(pixels), exported.preparation, (height, width)))
            inputs = {"images": batch.images, "image_sizes": batch.image_sizes}
        outputs = watch("network", partial(detector.run, inputs))
        found = int((outputs[1] > 0).sum()) if exported.chooses else 0
    return Inference(watch.timings(), 0.0, found / work.batch_size)
