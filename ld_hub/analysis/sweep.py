"""Settings of post-processing compared: one pass of the network, every setting on the same predictions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ld_hub.data import DetectionSet
from ld_hub.engine.evaluate import batches_of, evaluator_of, refuse_nan
from ld_hub.evaluation import DetectionEvaluator, DetectionMetrics
from ld_hub.layers.postprocess import NmsKind, PostprocessConfig
from ld_hub.models.detector import DenseDetector
from ld_hub.models.inference import evaluating


@dataclass(frozen=True)
class SweepRow:
    """What one setting gives.

    Attributes:
        config: The setting.
        metrics: As `ld_hub.engine.evaluate.evaluate` of a model with this setting gives them.
        seconds: Post-processing per image: decoding, pre-filter and NMS.
    """

    config: PostprocessConfig
    metrics: DetectionMetrics
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "postprocess": asdict(self.config),
            "seconds_per_image": self.seconds,
            "metrics": self.metrics.to_dict(),
        }


def grid(
    base: PostprocessConfig,
    *,
    nms: Sequence[NmsKind] = (),
    nms_iou: Sequence[float] = (),
    score_threshold: Sequence[float] = (),
) -> list[PostprocessConfig]:
    """All combinations of some settings, each once; where nothing is given, the base's own value.

    ``"soft_gaussian"`` has no IoU threshold, so it appears with the base's alone.

    Raises:
        ConfigError: If a value is out of range.
    """
    settings = (
        replace(base, nms=kind, nms_iou=base.nms_iou if kind == "soft_gaussian" else iou, score_threshold=score)
        for kind in nms or (base.nms,)
        for iou in nms_iou or (base.nms_iou,)
        for score in score_threshold or (base.score_threshold,)
    )
    return list(dict.fromkeys(settings))


def sweep(
    model: DenseDetector,
    dataset: DetectionSet,
    settings: Sequence[PostprocessConfig],
    *,
    batch_size: int = 8,
    workers: int = 2,
    progress: bool = True,
    protocol: str | None = None,
    backend: str = "auto",
) -> Iterator[SweepRow]:
    """Evaluate a model with several settings of post-processing, in one process.

    Args:
        model: Detector of the data set's classes, where it is to run.
        dataset: Images with annotations.
        settings: What to compare.
        batch_size: Images per forward pass.
        workers: Processes that load images.
        progress: Show progress if there is a terminal.
        protocol: See `evaluate`.
        backend: See `evaluate`.

    Yields:
        One row per setting, in their order; the first one when the network has seen all images.

    Raises:
        EvaluationError: If the classes differ, or the model predicts something that cannot be scored.
    """
    first = evaluator_of(model, dataset, protocol=protocol, backend=backend)
    evaluators = [
        DetectionEvaluator(
            first.truth, category_ids=first.category_ids, label_names=first.label_names, protocol=first.protocol,
            backend=backend,
        )
        for _ in settings
    ]  # fmt: skip
    seconds = [0.0] * len(settings)
    device = next(model.parameters()).device
    with evaluating(model):
        for batch in batches_of(model, dataset, batch_size, workers, device, progress):
            output = model(batch.images.to(device, non_blocking=True))
            refuse_nan(output, batch)
            sizes, factors = batch.image_sizes.to(device), batch.scale_factors.to(device)
            for k, config in enumerate(settings):
                _wait(device)
                start = time.perf_counter()
                found = model.postprocess(output, sizes, factors, config=config)
                _wait(device)
                seconds[k] += time.perf_counter() - start
                evaluators[k].update(batch.image_ids, found)
    for config, evaluator, total in zip(settings, evaluators, seconds, strict=True):
        yield SweepRow(config, evaluator.compute(), total / len(evaluator))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
