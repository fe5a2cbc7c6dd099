"""What a run tells: metrics.jsonl for programs, a progress bar or plain lines for people, trackers for dashboards."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.disk import describe_fault
from ld_hub.engine.records import Times
from ld_hub.engine.schedule import UNKNOWN
from ld_hub.models.detector import DenseDetector
from ld_hub.models.feature_teacher import FeatureTeacher
from ld_hub.teachers.box_teacher import BoxTeacher

Log = Callable[[dict[str, float], int], None]  # Accelerator.log


class Clock:
    """Seconds of training; evaluation and saving do not count.

    Attributes:
        training: Seconds in training steps so far, earlier parts of a resumed run included.
        data: Seconds of them spent waiting for the loader.
        pauses: Seconds in evaluations and saving, between parts of the training.
    """

    def __init__(self) -> None:
        self.training = 0.0
        self.data = 0.0
        self.pauses = 0.0
        self._lap = 0.0  # `training` at the last lap
        self._since: float | None = None
        self._paused: float | None = None

    def resume(self) -> None:
        """Training goes on."""
        self._since = time.perf_counter()
        if self._paused is not None:
            self.pauses += self._since - self._paused
        self._paused = None

    def pause(self) -> None:
        """Training stops for a while."""
        if self._since is not None:
            self._paused = time.perf_counter()
            self.training += self._paused - self._since
        self._since = None

    def spent(self) -> float:
        """Seconds of training and pauses up to now."""
        self.tick()
        now = time.perf_counter() if self._since is None else self._since
        return self.training + self.pauses + (0.0 if self._paused is None else now - self._paused)

    def waited(self, seconds: float) -> None:
        """Count time spent waiting for the loader."""
        self.data += seconds

    def lap(self) -> float:
        """Seconds of training since the last lap."""
        self.tick()
        seconds, self._lap = self.training - self._lap, self.training
        return seconds

    def state(self) -> Times:
        """Values for a checkpoint."""
        return Times(self.training, self.data, self._lap, self.pauses)

    def restore(self, state: Times) -> None:
        """Go on from what `state` gave."""
        self.training, self.data, self._lap = state.training, state.data, state.lap
        self.pauses = state.pauses

    def tick(self) -> None:
        """Bring `training` up to now."""
        if self._since is not None:
            self.pause()
            self.resume()


class Reporter:
    """Writes the records of a run; on ranks other than the main one it does nothing.

    Args:
        run: Where metrics.jsonl lies.
        steps: Optimizer steps of the whole run.
        title: Shown in front of the progress bar.
        active: Whether this is the main process.
        log: Also told every record (trackers).
    """

    def __init__(self, run: RunDirectory, steps: int, title: str, active: bool, log: Log | None = None) -> None:
        self._run, self._steps, self._title, self._active, self._log = run, steps, title, active, log
        self.console = Console(soft_wrap=True, highlight=False, quiet=not active)
        self._bar: Progress | None = None
        self._task: Any = None
        self._started = time.perf_counter()
        self._first = 0
        self._unwritten = ""  # lines of metrics.jsonl

    def start(self, step: int) -> None:
        """Begin at an optimizer step; a terminal gets a bar, a file plain lines."""
        self._started, self._first = time.perf_counter(), step
        if self._active and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TextColumn("ETA"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self.console,
            )
            self._task = self._bar.add_task(self._title, total=self._steps, completed=step, numbers="")
            self._bar.start()

    def last_until(self, steps: int) -> None:
        """The whole run has so many steps."""
        self._steps = steps
        if self._bar is not None:
            self._bar.update(self._task, total=steps)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False)

    def advance(self, step: int) -> None:
        """An optimizer step is done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def record(self, record: Mapping[str, Any]) -> None:
        """Write one line of metrics.jsonl and show its numbers."""
        if not self._active:
            return
        self._write(json.dumps(record) + "\n")
        if self._log is not None:
            step = int(record["step"])
            numbers = {key: float(value) for key, value in record.items() if isinstance(value, (int, float))}
            numbers.pop("step")
            self._log(numbers, step)
        if "loss" in record:
            self._show(record)

    def _write(self, line: str) -> None:
        """Add to metrics.jsonl, with what could not be written before; half a line is taken back."""
        self._unwritten += line
        size = self._run.metrics_file.stat().st_size if self._run.metrics_file.is_file() else 0
        try:
            with open(self._run.metrics_file, "a", encoding="utf-8") as stream:
                stream.write(self._unwritten)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._run.metrics_file, size)
            if self._unwritten == line:
                self.say(f"{describe_fault(error, self._run.path)}. Lines of metrics.jsonl are kept until it can.")
            return
        self._unwritten = ""

    def _show(self, record: Mapping[str, Any]) -> None:
        losses = "  ".join(
            f"{name} {record[name]:.3g}" for name in record if name.startswith(("loss", "distill_", "unlabeled_"))
        )
        shares = "  ".join(
            f"{name} {record[name]:.2g}" for name in record if name.startswith("share/") and record[name]
        )
        losses = f"{losses}  {shares}" if shares else losses
        numbers = f"{losses}  lr {record['lr']:.3g}  {record['images_per_second']:.3g} img/s"
        numbers += f"  {record['steps_per_second']:.3g} steps/s"
        if self._bar is not None:
            self._bar.update(self._task, numbers=numbers)
        else:
            step = int(record["step"])
            known = self._steps < UNKNOWN
            length, left = (str(self._steps), _clock(self._left(step))) if known else ("?", "?")
            self.say(f"{self._title}  step {step}/{length}  {numbers}  ETA {left}")

    def _left(self, step: int) -> float:
        done = max(1, step - self._first)
        return (time.perf_counter() - self._started) / done * (self._steps - step)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Two aligned columns of text."""
    pairs = list(rows)
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in pairs)


def describe_network(model: DenseDetector | FeatureTeacher) -> str:
    """Name and size of a detector, or of an image encoder."""
    every = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    what = "frozen" if not trained else f"{trained / 1e6:.2f} M trained"
    inside = model.config.backbone if isinstance(model, DenseDetector) else "features"
    return f"{model.name} ({inside}): {every / 1e6:.2f} M parameters, {what}"


def describe_teacher(teacher: DenseDetector | FeatureTeacher | BoxTeacher) -> str:
    """Name and size of a network, or what a teacher is that only detects."""
    return teacher.describe() if isinstance(teacher, BoxTeacher) else describe_network(teacher)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
