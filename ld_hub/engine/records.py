"""What the JSON files of a run hold (`ld_hub.engine.checkpoint` says where they lie), read with every type checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ld_hub.checked import Source, read_fields
from ld_hub.engine.checkpoint import RandomState
from ld_hub.engine.identity import Identity
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import CheckpointError
from ld_hub.evaluation import DetectionMetrics
from ld_hub.version import __version__


@dataclass(frozen=True)
class Best:
    """The best evaluation so far.

    Attributes:
        AP: Fraction 0..1; None before the first.
        step: Optimizer step it was reached at.
    """

    AP: float | None = None
    step: int | None = None


@dataclass(frozen=True)
class Times:
    """State of the run's clock, see `ld_hub.engine.reporter.Clock`.

    Attributes:
        training: Seconds in training steps so far.
        data: Seconds of them spent waiting for the loader.
        lap: `training` at the last line of metrics.
    """

    training: float = 0.0
    data: float = 0.0
    lap: float = 0.0


@dataclass(frozen=True)
class RunState:
    """state.json of a checkpoint, but for the optimizer: what a continued run needs beside tensors.

    Attributes:
        config: Settings.
        identity: What is trained, on what and by whom.
        batch: Images per optimizer step of all ranks, and micro-steps.
        random: Of each rank.
        scaler: State of the gradient scaler; None without fp16.
        best: Best evaluation so far.
        metrics: Last evaluation, or None.
        window: Sum and number of each loss since the last line of metrics.
        clock: Seconds so far.
        unscored: Whether an evaluation is due: the run was stopped in it.
    """

    config: TrainConfig
    identity: Identity
    batch: tuple[int, int]
    random: tuple[RandomState, ...] = ()
    scaler: Mapping[str, float | int] | None = None
    best: Best = Best()
    metrics: DetectionMetrics | None = None
    window: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    clock: Times = Times()
    unscored: bool = False  # of older versions none is: they saved after the evaluation

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "config": self.config.to_dict(), "identity": self.identity.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> RunState:
        """The inverse of `to_dict`, checked.

        Args:
            content: Parsed JSON.
            where: Its source, for messages.

        Raises:
            CheckpointError: Naming the field, what it is and what it should be.
        """
        identity = content.get("identity")
        if isinstance(identity, Mapping):
            content = {**content, "identity": Identity.from_dict(identity, where)}
        return read_fields(cls, content, Source(where, CheckpointError))


@dataclass(frozen=True)
class RunSettings:
    """config.json of a run.

    Attributes:
        config: Settings.
        identity: What is trained, on what and by whom.
        steps: Optimizer steps of the whole run.
        images_per_step: Of all ranks.
        peak_lr: Learning rate after the warm-up.
        train_annotations: COCO file of the training images.
        eval_annotations: COCO file of the evaluation images, or None.
        ld_hub_version: Of the library that wrote it.
    """

    config: TrainConfig
    identity: Identity
    steps: int
    images_per_step: int
    peak_lr: float
    train_annotations: str
    eval_annotations: str | None = None
    ld_hub_version: str = __version__

    def to_dict(self) -> dict[str, Any]:
        """JSON values as the file has them: those of the identity are not set apart."""
        names = ("steps", "images_per_step", "peak_lr", "train_annotations", "eval_annotations")
        settings = {name: getattr(self, name) for name in names}
        head = {"ld_hub_version": self.ld_hub_version, "config": self.config.to_dict()}
        return {**head, **settings, **self.identity.to_dict()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> RunSettings:
        """The inverse of `to_dict`, checked.

        Args:
            content: Parsed JSON.
            where: Its source, for messages.

        Raises:
            CheckpointError: Naming the field, what it is and what it should be.
        """
        identity = Identity.from_dict(content, where)
        return read_fields(cls, {**content, "identity": identity}, Source(where, CheckpointError))
