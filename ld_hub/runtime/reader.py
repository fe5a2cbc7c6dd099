"""An exported detector, ready to detect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ld_hub.runtime.choosing import choose
from ld_hub.runtime.exported_files import Exported, ExportedError, read_exported
from ld_hub.runtime.pixels import Pixels, Source, padded_size, prepare, read_pixels, resized_size
from ld_hub.runtime.results import Found

READ_AHEAD = 2  # batches of images read at once, to find some of one shape among them
Arrays = Sequence[NDArray[Any]]
Program = Callable[[dict[str, NDArray[Any]]], Arrays]


class Detector:
    """A detector that `ld-hub export` wrote.

    Args:
        directory: Of the export.
        threads: CPU threads of the program; None for the runtime's own choice.
        program: What runs the program, instead of onnxruntime or openvino.

    Attributes:
        exported: What its config.json says.
        run: The program itself: arrays by input name to its outputs.

    Raises:
        ExportedError: If a file is missing or changed, or the runtime does not know the program.
    """

    def __init__(self, directory: str | Path, *, threads: int | None = None, program: Program | None = None) -> None:
        self.exported = read_exported(directory)
        if program is not None:
            self.run = program
            return
        if self.exported.to not in PROGRAMS:
            raise ExportedError(
                f"'{directory}' holds a program of the kind '{self.exported.to}'; ld_hub.runtime runs "
                f"{' and '.join(PROGRAMS)}."
            )
        self.run = PROGRAMS[self.exported.to](self.exported, threads)

    @property
    def label_names(self) -> tuple[str, ...]:
        """C class names."""
        return self.exported.label_names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """C ids of the data set."""
        return self.exported.category_ids

    def predict(
        self, images: Source | Iterable[Source], *, threshold: float | None = None, batch_size: int = 8
    ) -> Found | list[Found]:
        """Detect objects.

        Args:
            images: A file, Pillow image or uint8 array ``(h, w, 3)`` in RGB order, or several of them.
            threshold: Least score, exclusive; by default the model's own.
            batch_size: Most images in one run; does not change the result.

        Returns:
            What was found on the single image, or a list.

        Raises:
            ExportedError: If an image cannot be read.
        """
        if isinstance(images, (str, Path, Image.Image, np.ndarray)):
            return self.predict_all([images], threshold=threshold, batch_size=batch_size)[0]
        return self.predict_all(list(images), threshold=threshold, batch_size=batch_size)

    def predict_all(
        self, images: Sequence[Source], *, threshold: float | None = None, batch_size: int = 8
    ) -> list[Found]:
        """As `predict`, of several images, of which a few at a time are in memory."""
        if batch_size < 1:
            raise ExportedError(f"batch_size is {batch_size}; expected at least 1.")
        found: dict[int, Found] = {}
        ahead = READ_AHEAD * batch_size
        for start in range(0, len(images), ahead):
            window = images[start : start + ahead]
            pixels = [read_pixels(source, len(self.exported.preparation.mean)) for source in window]
            for group in self._groups(pixels, batch_size):
                each = self.detect([pixels[index] for index in group])
                found.update(zip((start + index for index in group), each, strict=True))
        every = [found[index] for index in range(len(images))]
        return every if threshold is None else [each.filter(threshold) for each in every]

    def detect(self, images: Sequence[Pixels]) -> list[Found]:
        """Detect on images ``(h, w, K)`` of one padded size (with preprocessing inside: of one size), in one run."""
        exported = self.exported
        if exported.takes_pixels:
            outputs = self.run({"pixels": np.stack(images)})
            factors = np.ones((len(images), 4), np.float32)
        else:
            batch = prepare(images, exported.preparation, exported.size)
            outputs = self.run({"images": batch.images, "image_sizes": batch.image_sizes})
            factors = batch.factors
        return [self._found(outputs, index, factors[index]) for index in range(len(images))]

    def _found(self, outputs: Arrays, index: int, factors: NDArray[np.float32]) -> Found:
        if self.exported.chooses:
            boxes, scores, labels = (each[index] for each in outputs)
            real = scores > 0
            boxes, scores, labels = boxes[real], scores[real], labels[real]
        else:
            boxes, scores, quality = (each[index] for each in outputs[:3])
            boxes, scores, labels = choose(boxes, scores, quality, outputs[3], self.exported.choice)
        return Found(boxes / factors, scores, labels.astype(np.int64), self.label_names, self.category_ids)

    def _groups(self, pixels: Sequence[Pixels], batch_size: int) -> Iterable[list[int]]:
        """Indices of images that may share a run, at most `batch_size` at a time."""
        exported = self.exported
        by_shape: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(pixels):
            height, width = image.shape[:2]
            if not exported.takes_pixels:
                height, width = resized_size(height, width, exported.preparation, exported.size)
                height, width = padded_size(height, width, exported.preparation, exported.size)
            by_shape.setdefault((height, width), []).append(index)
        for indices in by_shape.values():
            for start in range(0, len(indices), batch_size):
                yield indices[start : start + batch_size]


def _onnx(exported: Exported, threads: int | None) -> Program:
    try:
        import onnxruntime
    except ImportError:
        raise ExportedError("Running an ONNX program takes onnxruntime: pip install onnxruntime.") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    providers = [name for name in onnxruntime.get_available_providers() if name != "AzureExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(exported.file), options, providers=providers)
    except Exception as error:  # onnxruntime has a class of its own for every failure, without a common one
        raise ExportedError(
            f"'{exported.file}' cannot be run by onnxruntime {onnxruntime.__version__}: {_brief(error)}. Update "
            "onnxruntime, or export again."
        ) from error
    _check_classes(exported, session.get_modelmeta().custom_metadata_map.get("num_classes", ""))

    def run(inputs: dict[str, NDArray[Any]]) -> Arrays:
        found: Arrays = session.run(None, inputs)
        return found

    return run


def _openvino(exported: Exported, threads: int | None) -> Program:
    try:
        import openvino
    except ImportError:
        raise ExportedError("Running an OpenVINO program takes openvino: pip install openvino.") from None
    settings: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(str(exported.file))
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ExportedError(
            f"'{exported.file}' cannot be run by openvino {openvino.__version__}: {_brief(error)}."
        ) from error

    known = model.has_rt_info(["num_classes"])
    _check_classes(exported, model.get_rt_info(["num_classes"]).astype(str) if known else "")

    def run(inputs: dict[str, NDArray[Any]]) -> Arrays:
        found = compiled(inputs)
        return [np.asarray(found[output]) for output in compiled.outputs]

    return run


def _check_classes(exported: Exported, classes: str) -> None:
    """Refuse a program of another number of classes than config.json names."""
    if classes != str(len(exported.label_names)):
        raise ExportedError(
            f"'{exported.file}' detects {classes or 'an unknown number of'} classes, and config.json names "
            f"{len(exported.label_names)}. Put the files of one export together, or export again."
        )


def _brief(error: BaseException) -> str:
    """What an error says, without the C++ signatures that stand before it."""
    text = " ".join(str(error).split())
    return (text.rpartition(") ")[2] or text).rstrip(".")[:300]


PROGRAMS: dict[str, Callable[[Exported, int | None], Program]] = {"onnx": _onnx, "openvino": _openvino}
