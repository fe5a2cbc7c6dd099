"""What the JSON files of a run hold (`ld_hub.engine.checkpoint` says where they lie), read with every type checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ld_hub.checked import Source, read_fields, shorten
from ld_hub.data.stream_order import StreamPlace
from ld_hub.engine.checkpoint import RandomState
from ld_hub.engine.identity import Identity
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import CheckpointError, MissingFileError
from ld_hub.evaluation import DetectionMetrics
from ld_hub.hub.config_file import parse_json
from ld_hub.version import __version__

Record: TypeAlias = Mapping[str, float]  # a line of metrics.jsonl


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
        pauses: Seconds in evaluations and saving so far.
    """

    training: float = 0.0
    data: float = 0.0
    lap: float = 0.0
    pauses: float = 0.0


@dataclass(frozen=True)
class RunState:
    """state.json of a checkpoint, but for the optimizer: what a continued run needs beside tensors.

    Attributes:
        config: Settings.
        identity: What is trained, on what and by whom.
        batch: Images per optimizer step of all ranks, and micro-steps.
        random: Of each rank.
        places: Of each rank in the stream that it is trained on; none where it is no stream.
        scaler: State of the gradient scaler; None without fp16.
        best: Best evaluation so far.
        metrics: Last evaluation, or None.
        window: Sum and number of each loss since the last line of metrics.
        clock: Seconds so far.
        unscored: Whether an evaluation is due: the run was stopped in it.
        skipped: Steps that were left out because their loss was no number.
        fitted_steps: Steps that fit into a time budget; None where there is none, or they are not known yet.
    """

    config: TrainConfig
    identity: Identity
    batch: tuple[int, int]
    random: tuple[RandomState, ...] = ()
    places: tuple[StreamPlace, ...] = ()
    scaler: Mapping[str, float | int] | None = None
    best: Best = Best()
    metrics: DetectionMetrics | None = None
    window: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    clock: Times = Times()
    unscored: bool = False  # of older versions none is: they saved after the evaluation
    skipped: int = 0
    fitted_steps: int | None = None

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
    """config.json of a run; it also has what the settings' preset of augmentation stands for.

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
        augmentation = json.loads(json.dumps(asdict(self.config.augmentation)))
        return {**head, "augmentation": augmentation, **settings, **self.identity.to_dict()}

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


@dataclass(frozen=True)
class RunOutcome:
    """result.json of a run that is complete.

    Attributes:
        steps: Optimizer steps made.
        seconds: Of training, without evaluation and saving.
        best: The best evaluation.
        metrics: The last one, or None.
    """

    steps: int
    seconds: float
    best: Best = Best()
    metrics: DetectionMetrics | None = None

    @classmethod
    def read(cls, file: Path) -> RunOutcome:
        """From the file, checked.

        Raises:
            CheckpointError: Naming the field, what it is and what it should be.
        """
        return read_fields(cls, parse_json(file, "what a run writes"), Source(f"'{file}'", CheckpointError))


def read_records(file: Path) -> list[dict[str, float]]:
    """Read a metrics.jsonl.

    Args:
        file: As the trainer writes it, maybe still does: a last line without its end is left out.

    Returns:
        For each line its finite numbers by name, ``step`` always among them.

    Raises:
        MissingFileError: If there is no such file.
        CheckpointError: If another line is no record of a run; names it.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise MissingFileError(f"No '{file}': a training run writes it as it goes.") from None
    records = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            if not line.endswith("\n"):
                break  # cut: the process was killed while it wrote, or writes just now
            record = None
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise CheckpointError(
                f"'{file}', line {number}: {shorten(line.strip())} is no record of a run, expected a JSON object with "
                "'step'. Remove the line, or restore the file."
            )
        records.append({name: value for name, value in record.items() if _is_finite(value)})
    return records


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
