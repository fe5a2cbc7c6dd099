"""AP of a model on a data set, on any number of ranks, whatever the batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from ld_hub.data import DetectionSet, eval_loader
from ld_hub.data.loader import read_ahead
from ld_hub.errors import EvaluationError
from ld_hub.evaluation import DetectionEvaluator, DetectionMetrics
from ld_hub.evaluation.metrics import MOST_OF_IMAGE
from ld_hub.layers.postprocess import PostprocessConfig
from ld_hub.models.detector import DenseDetector
from ld_hub.models.inference import evaluating, iter_predict, require_numbers
from ld_hub.ops.dist import is_distributed, rank, world_size
from ld_hub.structures import DenseOutput, Detections, ImageBatch
from ld_hub.tiling import Tiling

if TYPE_CHECKING:
    from accelerate import Accelerator

Item = TypeVar("Item")


def evaluate(
    model: DenseDetector,
    dataset: DetectionSet,
    *,
    batch_size: int = 8,
    workers: int = 2,
    accelerator: Accelerator | None = None,
    progress: bool = True,
    protocol: str | None = None,
    backend: str = "auto",
    tiling: Tiling | None = None,
) -> tuple[DetectionMetrics, DetectionEvaluator]:
    """Detect on every image and score the detections.

    Each rank detects on its share of the images; the numbers are the same for any batch size and number of ranks.
    The random numbers of the caller are not touched, nor is the mode (train or eval) of the model.

    Args:
        model: Detector of the data set's classes, where it is to run; not wrapped in DDP.
        dataset: Images with annotations.
        batch_size: Images per forward pass and rank.
        workers: Processes that load images.
        accelerator: Gives the precision (autocast); float32 without one.
        progress: Show progress on the main rank, if it has a terminal.
        protocol: ``"coco"``, ``"voc07"``, ``"voc12"`` or ``"lvis"`` (the model then gives LVIS' 300 detections per
            image); None takes that of the data set.
        backend: Scorer, see `DetectionEvaluator`.
        tiling: Look at large images in tiles, one image after the other and in float32; they are scored whole.

    Returns:
        The metrics and the evaluator that holds the detections of all images, both the same on all ranks.

    Raises:
        EvaluationError: If the classes differ, or the model predicts something that cannot be scored.
    """
    evaluator = evaluator_of(model, dataset, protocol=protocol, backend=backend)
    device, config = next(model.parameters()).device, model.postprocess_config
    if evaluator.protocol == "lvis":
        config = replace(config, max_detections=max(config.max_detections, MOST_OF_IMAGE))
    if tiling is not None:
        for image_id, detections in _in_tiles(model, dataset, batch_size, workers, tiling, config, progress):
            evaluator.update([image_id], [detections])
    else:
        with evaluating(model):
            for batch in batches_of(model, dataset, batch_size, workers, device, progress):
                images = batch.images.to(device, non_blocking=True)
                with accelerator.autocast() if accelerator is not None else contextlib.nullcontext():
                    output = model(images)
                refuse_nan(output, batch)
                sizes, factors = batch.image_sizes.to(device), batch.scale_factors.to(device)
                evaluator.update(batch.image_ids, model.postprocess(output, sizes, factors, config=config))
    if is_distributed():
        evaluator.merge(gathered(evaluator.state()))
    return evaluator.compute(), evaluator


def _in_tiles(
    model: DenseDetector,
    dataset: DetectionSet,
    batch_size: int,
    workers: int,
    tiling: Tiling,
    config: PostprocessConfig,
    progress: bool,
) -> Iterator[tuple[int, Detections]]:
    """Id and detections of each image of this rank's share."""
    records = dataset.records
    mine = range(rank(), len(dataset), world_size())
    images = read_ahead(records.load, mine, workers)
    found = iter_predict(model, images, batch_size=batch_size, keep_images=False, tiling=tiling, config=config)
    for index in shown(mine, len(mine), "evaluating in tiles", progress):
        image_id = int(records.image_ids[index])
        try:
            yield image_id, next(found)
        except EvaluationError as error:
            raise EvaluationError(f"Image id {image_id}: {error}") from None


class Labelled(Protocol):
    """What is asked of a detector here: models have it, and exported ones."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """C class names."""


def evaluator_of(
    model: Labelled, dataset: DetectionSet, *, protocol: str | None = None, backend: str = "auto"
) -> DetectionEvaluator:
    """An empty evaluator of a model's detections on a data set; arguments as of `evaluate`.

    Raises:
        EvaluationError: If the classes differ.
    """
    if tuple(model.label_names) != tuple(dataset.label_names):
        raise EvaluationError(
            f"The model detects {len(model.label_names)} classes ({_some(model.label_names)}), "
            f"{dataset.source} has {len(dataset.label_names)} ({_some(dataset.label_names)}): "
            "names and order must agree."
        )
    return DetectionEvaluator(
        dataset.annotation_file,
        category_ids=dataset.category_ids,
        label_names=dataset.label_names,
        protocol=protocol or dataset.protocol,
        backend=backend,
    )


def refuse_nan(output: DenseOutput, batch: ImageBatch) -> None:
    """As `ld_hub.models.inference.require_numbers`, of a batch of a data set.

    Raises:
        EvaluationError: If a class or quality score is NaN, naming the image.
    """
    require_numbers(output, [f"Image id {image_id}" for image_id in batch.image_ids])


def batches_of(
    model: DenseDetector,
    dataset: DetectionSet,
    batch_size: int,
    workers: int,
    device: torch.device,
    progress: bool,
    title: str = "evaluating",
) -> Iterator[ImageBatch]:
    """This rank's images as a model wants them, behind a progress bar where somebody can see one."""
    config, pinned = model.data_config, device.type == "cuda"
    loader = eval_loader(
        dataset, config, batch_size, rank=rank(), world=world_size(), workers=workers, pin_memory=pinned
    )
    return shown(loader, len(loader), title, progress)


def shown(items: Iterable[Item], total: int, title: str, progress: bool) -> Iterator[Item]:
    """The items, behind a progress bar on the main rank if it is wanted and somebody can see it."""
    from rich.console import Console
    from rich.progress import track

    console = Console()
    if progress and rank() == 0 and console.is_terminal:
        return iter(track(items, description=title, total=total, console=console, transient=True))
    return iter(items)


def gathered(state: Any) -> list[Any]:
    """The states of all ranks, on all ranks."""
    if not is_distributed():
        return [state]
    states: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(states, state)
    return states


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
