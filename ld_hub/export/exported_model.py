"""An exported detector where a model is expected: detections on pictures, AP on a data set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image

from ld_hub.data import DetectionSet
from ld_hub.data.loader import read_ahead
from ld_hub.engine.evaluate import evaluator_of
from ld_hub.errors import CheckpointError
from ld_hub.evaluation import DetectionEvaluator, DetectionMetrics
from ld_hub.evaluation.artefact import Circumstances, artefact
from ld_hub.export.checking import as_detections
from ld_hub.hub.evidence import Evidence, JudgedModel
from ld_hub.preprocessing import ImageSource, load_image
from ld_hub.runtime import Detector, ExportedError
from ld_hub.runtime.reader import Program
from ld_hub.structures import Detections


class ExportedModel:
    """An exported detector behind the errors and images of this library.

    Args:
        directory: Of the export.
        threads: CPU threads; None for the runtime's own choice.
        program: What runs it, instead of the runtime.

    Raises:
        CheckpointError: If it is damaged, or the runtime does not know it.
    """

    def __init__(self, directory: str | Path, *, threads: int | None = None, program: Program | None = None) -> None:
        with _as_ours():
            self.detector = Detector(directory, threads=threads, program=program)
        self.label_names, self.category_ids = self.detector.label_names, self.detector.category_ids

    def predict(self, images: Sequence[Image.Image], threshold: float | None = None) -> list[Detections]:
        """Detect on RGB images; each result keeps its own."""
        with _as_ours():
            found = self.detector.predict_all(images, threshold=threshold, batch_size=len(images) or 1)
        return [as_detections(each, image) for each, image in zip(found, images, strict=True)]

    def iter_predict(
        self, sources: Iterable[ImageSource], *, threshold: float | None = None, batch_size: int = 8
    ) -> Iterator[Detections]:
        """Detect on images one after the other; as `ld_hub.models.inference.iter_predict`."""
        rest = iter(sources)
        while window := [load_image(source) for source in islice(rest, batch_size)]:
            yield from self.predict(window, threshold)

    def evaluate(
        self,
        dataset: DetectionSet,
        *,
        batch_size: int = 8,
        workers: int = 2,
        protocol: str | None = None,
        backend: str = "auto",
    ) -> tuple[DetectionMetrics, DetectionEvaluator]:
        """AP on a data set, with images prepared as the exported detector prepares them.

        Args:
            dataset: Images with annotations.
            batch_size: Most images in one run.
            workers: Threads that read images ahead.
            protocol: As of `ld_hub.engine.evaluate.evaluate`.
            backend: As there.

        Raises:
            EvaluationError: If the classes differ.
        """
        evaluator = evaluator_of(self, dataset, protocol=protocol, backend=backend)
        records = dataset.records
        images = read_ahead(records.load, range(len(dataset)), workers)
        for start in range(0, len(dataset), batch_size):
            found = self.predict(list(islice(images, batch_size)))
            evaluator.update([int(each) for each in records.image_ids[start : start + batch_size]], found)
        return evaluator.compute(), evaluator

    def describe(
        self,
        metrics: DetectionMetrics,
        *,
        name: str,
        dataset: DetectionSet,
        data: str,
        split: str,
        detections: Path,
        how: Circumstances,
    ) -> Evidence:
        """The artefact of an evaluation that was just made; its weights are the program's file, `tensors` its digest.

        Args:
            metrics: What was measured.
            name: What the user calls the exported detector.
            dataset: The images.
            data: What the data set is called.
            split: Its part.
            detections: The detections that were written.
            how: The circumstances.
        """
        exported = self.detector.exported
        judged = JudgedModel(name, exported.architecture, exported.family, exported.config)
        return artefact(
            metrics,
            model=judged,
            weights=exported.file,
            tensors=exported.digest,
            data=data,
            split=split,
            annotations=dataset.annotation_file,
            detections=detections,
            how=how,
        )


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    """The runtime stands alone; its errors become this library's."""
    try:
        yield
    except ExportedError as error:
        raise CheckpointError(str(error)) from error
