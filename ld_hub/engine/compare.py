"""Several students trained in one loop on the same batches, so that images and teacher are paid for once.

For small comparisons in one process; a real run is a trainer's business (`ld_hub.engine.trainer`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from ld_hub.data import DetectionSet, train_loader
from ld_hub.engine.asking import Said, Teacher, ask
from ld_hub.engine.detection_task import DetectionTask, step_counts, total_loss
from ld_hub.engine.distillation_task import DistillationTask
from ld_hub.engine.optimizer import make_optimizer, set_lr
from ld_hub.engine.schedule import Plan
from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.models.detector import DenseDetector
from ld_hub.optim.losses import LossWatch
from ld_hub.preprocessing import train_transform
from ld_hub.structures import ImageBatch


@dataclass
class Course:
    """What one student's training cost and how its losses went.

    Attributes:
        seconds: Of its own forward and backward passes, and of its teacher's forward passes, which others may have
            shared; images are not counted.
        steps: Optimizer steps.
        losses: One record of weighted losses for each logged step, ``step`` (1-based) and ``share/TERM`` included.
    """

    seconds: float = 0.0
    steps: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)


def train_together(
    tasks: Mapping[str, DetectionTask],
    dataset: DetectionSet,
    config: TrainConfig,
    *,
    unlabeled: DetectionSet | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Course]:
    """Train each task for the same steps on the same batches.

    Args:
        tasks: By name; all models take the same input. Teachers that are the same object run once per batch.
        dataset: Images to train on.
        config: Settings of all of them; of these, length, batch size, optimizer, learning rates, clipping, precision
            (``"bf16"`` or float32), channels_last, seed, augmentation, workers and log_every are used.
        unlabeled: Images without labels, for the tasks that take such; their thresholds are found here.
        advance: Called after each step of each task.

    Returns:
        The course of each task; the models are left in eval mode.

    Raises:
        ConfigError: If the tasks' models want their images differently, or images without labels are missing, of no
            use, or wanted in different numbers.
        NonFiniteLossError: If a loss becomes NaN or infinite.
    """
    models = [task.model for task in tasks.values()]
    wanted = models[0].data_config
    for model in models:
        if model.data_config != wanted:
            raise ConfigError(
                f"'{model.name}' wants its images as {model.data_config}, '{models[0].name}' as {wanted}."
            )
    takers = [task for task in tasks.values() if isinstance(task, DistillationTask) and task.unlabeled is not None]
    if (unlabeled is None) != (not takers):
        raise ConfigError("Images without labels and tasks that take them belong together: give both, or neither.")
    steps = Plan.make(config, len(dataset)).steps
    labelled = _batches(dataset, config, models[0], config.batch_size, steps)
    without = iter(()) if unlabeled is None else _others(unlabeled, dataset, takers, config, steps)
    students = {name: _Student(task, config, len(dataset)) for name, task in tasks.items()}
    for step in range(steps):
        asked = Asked(next(labelled), tasks.values())
        others = None if unlabeled is None else Asked(next(without), takers)
        for student in students.values():
            student.step(step, asked, others)
            advance()
    for model in models:
        model.eval()
    return {name: student.course for name, student in students.items()}


def _batches(
    dataset: DetectionSet, config: TrainConfig, model: DenseDetector, size: int, steps: int
) -> Iterator[ImageBatch]:
    """Batches without end, for a run of so many steps, on the model's device."""
    transform = train_transform(model.data_config, config.augmentation, config.seed)
    device = next(model.parameters()).device
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    mixed, workers = config.mixed_steps(steps), config.workers
    for each in train_loader(dataset, transform, size, seed=config.seed, mixed_steps=mixed, workers=workers):
        batch = each.to(device)
        yield replace(batch, images=batch.images.contiguous(memory_format=layout))


def _others(
    unlabeled: DetectionSet,
    labelled: DetectionSet,
    takers: Sequence[DistillationTask],
    config: TrainConfig,
    steps: int,
) -> Iterator[ImageBatch]:
    """Batches of images without labels, for tasks that have found their thresholds."""
    sizes = {task.wanted.batch for task in takers}
    if len(sizes) != 1:
        raise ConfigError(f"The tasks take {', '.join(map(str, sorted(sizes)))} images without labels; expected one.")
    for task in takers:
        task.prepare(unlabeled, labelled, config, next(task.parameters()).device)
    return _batches(unlabeled, config, takers[0].model, sizes.pop(), steps)


class _Student:
    """A task with its optimizer."""

    def __init__(self, task: DetectionTask, config: TrainConfig, images: int) -> None:
        self.task, self.config, self.course = task.train(), config.for_family(task.model.family), Course()
        self.plan = Plan.make(self.config, images)
        task.begin(self.plan.steps)
        if config.channels_last:
            for network in (task, *task.outside):
                network.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(task, self.config)
        self.device = next(task.parameters()).device
        self.watch = LossWatch(self.device)

    def step(self, step: int, labelled: Asked, others: Asked | None) -> None:
        """One optimizer step; asks a teacher if no other student of these batches has."""
        start, logged = time.perf_counter(), self.plan.logs_after(step + 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            losses, shared = self._losses(step, logged, labelled, others)
        self.watch.add(losses)
        self.watch.send()
        self.optimizer.zero_grad(set_to_none=True)
        total_loss(losses).backward()
        values = self.watch.read(step + 1)
        if self.config.clip_grad_norm is not None:
            clip_grad_norm_(self.task.parameters(), self.config.clip_grad_norm)
        set_lr(self.optimizer, self.plan.lr(step))
        self.optimizer.step()
        self.task.after_step()
        if logged:
            self.course.losses.append({"step": step + 1, **values})
        self.course.steps += 1
        self.course.seconds += time.perf_counter() - start + shared

    def _losses(
        self, step: int, logged: bool, labelled: Asked, others: Asked | None
    ) -> tuple[dict[str, Tensor], float]:
        """Losses of the batches, and the seconds of teachers' forward passes that another student has waited for."""
        task, batch = self.task, labelled.batch
        assignment = task.assign(batch)
        counts = step_counts([assignment])
        if not isinstance(task, DistillationTask):
            return task(batch, assignment, counts, step), 0.0
        taught, seconds = labelled.answers(task) if task.asks_labelled else ({}, 0.0)
        lesson = None
        if others is not None and task.unlabeled is not None:
            said, more = others.answers(task)
            lesson = replace(task.look(others.batch, said), factor=task.unlabeled.factor(step, self.plan.steps))
            seconds += more
        losses = task(batch, assignment, counts, step, shares=logged, taught=taught, lesson=lesson)
        return losses, seconds


class Asked:
    """A batch and what the teachers say to it, each asked once for all students.

    Args:
        batch: On the students' device.
        tasks: Of all students; a teacher hands over the maps that any of them needs.
    """

    def __init__(self, batch: ImageBatch, tasks: Iterable[DetectionTask]) -> None:
        self.batch = batch
        self._needs: dict[tuple[int, float], frozenset[str]] = {}
        self._said: dict[tuple[int, float], tuple[Said, float]] = {}
        for task in tasks:
            for key, _, needs in _wishes(task):
                self._needs[key] = self._needs.get(key, frozenset()) | needs

    def answers(self, task: DistillationTask) -> tuple[dict[str, Said], float]:
        """`DistillationTask.teach`, and the seconds of it that were another student's."""
        taught, shared = dict[str, Said](), 0.0
        for name, (key, teacher, _) in zip(task.teachers, _wishes(task), strict=True):
            if key in self._said:
                shared += self._said[key][1]
            else:
                asked = time.perf_counter()
                output = ask(teacher, self.batch, task.model, key[1], self._needs[key])
                self._said[key] = output, time.perf_counter() - asked
            taught[name] = self._said[key][0]
        return taught, shared


def _wishes(task: DetectionTask) -> list[tuple[tuple[int, float], Teacher, frozenset[str]]]:
    """For each teacher: what makes its answer the same, itself, and the maps asked for."""
    if not isinstance(task, DistillationTask):
        return []
    pairs = zip(task.teachers.values(), task.distillers.values(), strict=True)
    return [((id(teacher), each.teacher_scale), teacher, each.needs) for teacher, each in pairs]
