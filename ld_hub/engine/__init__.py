"""Training and evaluation loops: tasks, trainers, checkpoints, schedules. The only room that uses accelerate.

The function `evaluate` is imported from its module, ``ld_hub.engine.evaluate``, whose name it shares.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ld_hub.engine.tasks import DetectionTask, DistillationTask
    from ld_hub.engine.train_config import TrainConfig
    from ld_hub.engine.trainer import DetectionTrainer, DistillationTrainer, RunResult

_FILE_OF = {
    "DetectionTask": "tasks",
    "DetectionTrainer": "trainer",
    "DistillationTask": "tasks",
    "DistillationTrainer": "trainer",
    "RunResult": "trainer",
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


def __getattr__(name: str) -> Any:
    """Import accelerate and the trainers at their first use, so that ``--help`` answers at once."""
    if name not in _FILE_OF:
        raise AttributeError(f"module 'ld_hub.engine' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ld_hub.engine.{_FILE_OF[name]}"), name)
