"""What `ld-hub predict` does with a video: an annotated copy, and a line of JSON for each frame."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_hub.errors import DataError
from ld_hub.hub.files import atomic_file
from ld_hub.preprocessing.video import Frame, VideoReader, VideoWriter

if TYPE_CHECKING:
    from ld_hub.structures import Detections


@dataclass(frozen=True)
class ClipWanted:
    """How a video is looked at.

    Attributes:
        every: Of so many frames one.
        most: Frames that are looked at; None looks at all.
        threshold: Least score of what is drawn and written.
        batch_size: Frames per forward pass.
    """

    every: int
    most: int | None
    threshold: float
    batch_size: int


def detect_on_video(
    source: str, stem: str, out: Path, detect: Callable[..., Iterator[Detections]], wanted: ClipWanted
) -> str:
    """Detect on each frame; a few are in memory at a time. An interrupt (Ctrl-C) ends it, and what was seen is kept.

    Args:
        source: File, address or number of a camera.
        stem: Of the files that are written.
        out: Where: ``STEM.mp4`` with what was found drawn in, ``STEM.jsonl`` with a line for each frame.
        detect: Frames to detections, lazily.
        wanted: How.

    Returns:
        One line for the user.

    Raises:
        DataError: If it cannot be read, or has no frames; nothing is written then.
    """
    film, lines = out / f"{stem}.mp4", out / f"{stem}.jsonl"
    with VideoReader(source) as video, atomic_file(film) as pictures, atomic_file(lines) as texts:
        looked: list[Frame] = []  # handed to the model, not yet answered
        frames = _kept(islice(video, 0, None, wanted.every), wanted.most, looked)
        found = detect(frames, threshold=wanted.threshold, batch_size=wanted.batch_size)
        count, began = 0, time.perf_counter()
        with VideoWriter(pictures, video.rate / wanted.every) as writer, texts.open("w", encoding="utf-8") as text:
            with contextlib.suppress(KeyboardInterrupt), _progress(video, wanted) as advance:
                for detections in found:
                    writer.write(detections.draw(scale=1))
                    text.write(json.dumps(_line(looked.pop(0), detections), ensure_ascii=False) + "\n")
                    count += 1
                    advance()
        if not count:
            raise DataError(f"'{source}' has no frames.")
    speed = count / max(time.perf_counter() - began, 1e-9)
    return f"{source}: {count} frames, {speed:.1f} frames/s; {film} and {lines}"


def _kept(frames: Iterator[Frame], most: int | None, looked: list[Frame]) -> Iterator[Any]:
    """Pictures of the frames, each of which is put down."""
    for frame in islice(frames, most):
        looked.append(frame)
        yield frame.image


def _line(frame: Frame, detections: Detections) -> dict[str, object]:
    return {"frame": frame.number, "seconds": round(frame.seconds, 4), "detections": detections.to_list()}


@contextlib.contextmanager
def _progress(video: VideoReader, wanted: ClipWanted) -> Iterator[Callable[[], None]]:
    """A bar with frames per second on a terminal; what it gives is called after each frame."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    total = None if video.total is None else -(-video.total // wanted.every)
    if wanted.most is not None:
        total = wanted.most if total is None else min(total, wanted.most)
    columns = (TextColumn("detecting"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("detecting", total=total, rate="")

        def advance() -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(task, advance=1, rate="" if speed is None else f"{speed:.1f} frames/s")

        yield advance
