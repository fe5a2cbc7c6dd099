"""A run that is tried: data read, networks built, one step on two images, a table; nothing is written (--dry_run)."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import textwrap
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ld_hub.benchmark.memory import Memory, MemoryWatch
from ld_hub.data import DetectionSet
from ld_hub.data.stream_set import StreamSet, TrainingSet, require_files
from ld_hub.data.tile_set import count_images
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.devices import make_accelerator
from ld_hub.engine.lesson_task import LessonTask
from ld_hub.engine.loop import Loop
from ld_hub.engine.reporter import describe_network, describe_teacher
from ld_hub.engine.schedule import Plan
from ld_hub.engine.trainer import Trainer
from ld_hub.models.detector import DenseDetector

IMAGES = 2  # of the step
WIDTH, INDENT = 80, 12  # columns of the table, and of its titles


def rehearse(trainer: Trainer) -> str:
    """Make one step as the run would, on two of its images, and say what the run will be.

    The images are those with the most boxes, whose assignment takes the most memory; of a stream the first ones. The
    step is on the run's device and in its precision; files that it needs on the way go into a temporary directory.

    Args:
        trainer: Of the run; of no use afterwards, its model has learnt from the step.

    Returns:
        A table of at most 80 columns.

    Raises:
        LdHubError: Whatever the run's first step would raise.
    """
    config = replace(trainer.config, batch_size=IMAGES, accumulation=1, workers=0, tracker=())
    labelled, unlabeled = trainer.train_dataset, trainer.unlabeled_dataset
    with tempfile.TemporaryDirectory() as place:
        run, accelerator = RunDirectory(place), make_accelerator(config, Path(place), find_unused=True)
        world = accelerator.num_processes
        counted = labelled if labelled is not None else unlabeled
        plan = Plan.make(trainer.config, 0 if counted is None else len(counted), world)
        train = replace(labelled, buffer=IMAGES) if isinstance(labelled, StreamSet) else _fullest(labelled)
        without = _fullest(unlabeled)
        if isinstance(trainer.task, LessonTask) and without is not None:
            known = require_files(train, "unlabeled")
            without = trainer.task.prepare(without, known, config, accelerator.device)
        watch, began = MemoryWatch(accelerator.device), time.perf_counter()
        watch.start()
        loop = Loop(
            trainer.task,
            train,
            None,
            replace(plan, config=config),
            run,
            accelerator,
            trainer.identity(),
            unlabeled=without,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # the line of metrics is in the table
            loop.try_step()
        memory, seconds = watch.stop(), time.perf_counter() - began
        accelerator.free_memory()
        losses = _losses(run)
    parts = [table(_rows(trainer, plan, world)), *_recipe(trainer)]
    parts.append(table([("one step", _step(losses, seconds)), ("memory", _memory(memory, watch.what))]))
    return "\n\n".join([*parts, "nothing was written: leave --dry_run out to train"])


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Titles and texts in two columns, long texts wrapped."""
    lines: list[str] = []
    for title, text in rows:
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"{title:<{INDENT}}", subsequent_indent=" " * INDENT)
    return "\n".join(lines)


def _rows(trainer: Trainer, plan: Plan, world: int) -> list[tuple[str, str]]:
    size, config = trainer.model.data_config.image_size, trainer.config
    names = trainer.model.label_names
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    batch = f"{config.batch_size} images x {config.accumulation} micro-steps x {world} processes"
    teachers = trainer.task.taught_by if isinstance(trainer.task, LessonTask) else ()
    return [
        ("train on", _facts(trainer.train_dataset)),
        *(
            [("", f"without labels: {count_images(trainer.unlabeled_dataset)} images")]
            if trainer.unlabeled_dataset
            else []
        ),
        ("evaluate on", _facts(trainer.eval_dataset)),
        ("classes", f"{len(names)}: {shown}"),
        ("images", f"shorter side {size[0]} px, longer side up to {size[1]} px"),
        ("batch", batch),
        ("steps", plan.describe()),
        ("model", describe_network(trainer.model)),
        *[("teacher", f"{describe_teacher(each)}{_fit(names, each)}") for each in teachers],
    ]


def _facts(dataset: TrainingSet | None) -> str:
    """Images, boxes, boxes per image."""
    if dataset is None:
        return "nothing"
    if isinstance(dataset, StreamSet):
        return f"a stream of {len(dataset)} images, {dataset.buffer} of them shuffled among each other"
    counts = np.diff(dataset.records.offsets)
    most = int(counts.max(initial=0))
    return (
        f"{len(dataset)} images, {int(counts.sum())} boxes: {counts.mean():.1f} per image, at most {most}, "
        f"none on {int((counts == 0).sum())}"
    )


def _fit(names: tuple[str, ...], teacher: object) -> str:
    """How many of the student's classes a detector knows by name."""
    if not isinstance(teacher, DenseDetector):
        return ""
    return f"; knows {len({*names} & {*teacher.label_names})} of the {len(names)} classes"


def _recipe(trainer: Trainer) -> list[str]:
    return trainer.task.describe()[:1] if isinstance(trainer.task, LessonTask) else []


def _losses(run: RunDirectory) -> dict[str, float]:
    """Of the line of metrics that the first step has; the first rank writes it."""
    if not run.metrics_file.is_file():
        return {}
    record = json.loads(run.metrics_file.read_text(encoding="utf-8").splitlines()[0])
    return {name: value for name, value in record.items() if name.startswith(("loss", "distill", "unlabeled"))}


def _step(losses: dict[str, float], seconds: float) -> str:
    parts = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
    return f"{seconds:.1f} s on {IMAGES} images; {parts}"


def _memory(memory: Memory, what: str) -> str:
    grew = "" if memory.growth is None else f", {memory.growth / 2**20:.0f} MiB of it for the step"
    return f"{memory.peak / 2**20:.0f} MiB of {what} at most{grew}; a batch takes more"


def _fullest(dataset: DetectionSet | None) -> DetectionSet | None:
    """The images with the most boxes."""
    if dataset is None:
        return None
    counts = np.diff(dataset.records.offsets)
    return dataset.select(np.sort(np.argsort(-counts, kind="stable")[:IMAGES]))
