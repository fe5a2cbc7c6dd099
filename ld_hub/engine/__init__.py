"""Training and evaluation loops: tasks, trainers, checkpoints, schedules. The only room that uses accelerate.

The function `evaluate` is imported from its module, ``ld_hub.engine.evaluate``, whose name it shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_hub.lazy import lazy_names

if TYPE_CHECKING:
    from ld_hub.engine.detection_task import DetectionTask
    from ld_hub.engine.distillation_task import DistillationTask
    from ld_hub.engine.run_result import RunResult
    from ld_hub.engine.train_config import TrainConfig
    from ld_hub.engine.trainer import DetectionTrainer, DistillationTrainer

_FILE_OF = {
    "DetectionTask": "detection_task",
    "DetectionTrainer": "trainer",
    "DistillationTask": "distillation_task",
    "DistillationTrainer": "trainer",
    "RunResult": "run_result",
    "TrainConfig": "train_config",
}

__all__ = [
    "DetectionTask",
    "DetectionTrainer",
    "DistillationTask",
    "DistillationTrainer",
    "RunResult",
    "TrainConfig",
]

__getattr__ = lazy_names(__name__, _FILE_OF)
