"""What a run gives back to who started it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ld_hub.evaluation import DetectionMetrics


@dataclass(frozen=True)
class RunResult:
    """What came out of a run.

    Attributes:
        steps: Optimizer steps made.
        seconds: Seconds of training, without evaluation and saving, earlier parts of a resumed run included.
        metrics: Of the last evaluation, or None where there was none.
        best_ap: Largest AP of all evaluations, 0..1, or None.
        best_step: Optimizer step it was reached at.
        model_dir: The last weights (their average with `TrainConfig.ema_decay`), loadable by `create_model`.
        best_dir: The weights of `best_ap`, or None.
    """

    steps: int
    seconds: float
    metrics: DetectionMetrics | None
    best_ap: float | None
    best_step: int | None
    model_dir: Path
    best_dir: Path | None
