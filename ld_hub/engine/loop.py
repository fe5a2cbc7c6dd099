"""The training loop: steps, evaluations, checkpoints, and how a run is continued."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ld_hub.data import DetectionSet, train_loader
from ld_hub.data.stream_loader import stream_loader
from ld_hub.data.stream_order import StreamBatches, StreamPlace
from ld_hub.data.stream_set import StreamSet, TrainingSet
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.detection_task import DetectionTask, step_counts, total_loss
from ld_hub.engine.evaluate import evaluate
from ld_hub.engine.identity import Identity
from ld_hub.engine.leaving import SAVE, LeftEarly, Limits, Wishes, agreed, continued_by, leave
from ld_hub.engine.lesson_task import LessonTask
from ld_hub.engine.lessons import Lesson
from ld_hub.engine.nonfinite import Buffers, describe, keep_batches
from ld_hub.engine.optimizer import gradient_norm, make_optimizer, set_lr
from ld_hub.engine.records import Best
from ld_hub.engine.reporter import Clock, Reporter
from ld_hub.engine.saving import Saving
from ld_hub.engine.schedule import Plan
from ld_hub.engine.showing import log_pictures
from ld_hub.errors import NonFiniteLossError
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.ops.dist import from_first_rank
from ld_hub.optim.averaging import Average, average_buffers
from ld_hub.optim.losses import NOTES, LossWatch
from ld_hub.optim.time_budget import FORWARD, Pace, budget_seconds
from ld_hub.preprocessing import train_transform
from ld_hub.structures import ImageBatch

Stream: TypeAlias = Generator[ImageBatch | None, None, None]  # micro-batches of this rank; None: no such images


class Loop(Saving):
    """One run on one rank, from its first or its last saved step to its end.

    Args:
        task: What is trained.
        train_dataset: Images with labels to train on, or None.
        eval_dataset: Images to evaluate on, or None.
        plan: Length and learning rates.
        run: Where it is written.
        accelerator: Devices, ranks and precision.
        identity: What is trained, on what and by whom; a continued run must have the same.
        unlabeled: Images without labels to train on, or None; the task is a `LessonTask` then.
    """

    def __init__(
        self,
        task: DetectionTask,
        train_dataset: TrainingSet | None,
        eval_dataset: DetectionSet | None,
        plan: Plan,
        run: RunDirectory,
        accelerator: Accelerator,
        identity: Identity,
        unlabeled: DetectionSet | None = None,
    ) -> None:
        self.unlabeled = unlabeled
        self.task, self.train_dataset, self.eval_dataset = task, train_dataset, eval_dataset
        self.plan, self.config, self.run_dir, self.accelerator = plan, plan.config, run, accelerator
        self.identity = identity
        self.device = accelerator.device
        self.clock = Clock()
        title = task.model.name or "training"
        self.reporter = Reporter(run, plan.steps, title, accelerator.is_main_process, accelerator.log)
        self.step = 0
        self.best = Best()
        self.metrics = None
        self._unscored = False
        self._is_stream, self._rows = isinstance(train_dataset, StreamSet), None
        self._place = StreamPlace(world=accelerator.num_processes, rank=accelerator.process_index)
        self._window = {}
        self._skipped = 0
        self._watch = LossWatch(self.device)
        limits = Limits(self.config.save_every_minutes, self.config.max_minutes)
        self._wishes = Wishes(limits, self.reporter.say)
        budget = self.config.time_budget
        self._pace = None if budget is None else Pace(budget_seconds(budget))
        self._prepare()

    def _prepare(self) -> None:
        """Put the networks in place; the optimizer sees the task's parameters only, so never the teacher's."""
        self.task.begin(self.plan.steps)
        layout = torch.channels_last if self.config.channels_last else torch.preserve_format
        self.task.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]  # an overload torch lacks
        for frozen in self.task.outside:
            frozen.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]  # an overload torch lacks
        self.ema = None if self.plan.ema_decay is None else Average(self.task.model, self.plan.ema_decay)
        optimizer = make_optimizer(self.task, self.config)
        self.wrapped, self.optimizer = self.accelerator.prepare(self.task, optimizer)

    def run(self) -> None:
        """Train to the end; call `restore` first."""
        streams = self._streams()
        self.task.train()
        self.reporter.start(self.step)
        try:
            with self._wishes.listening():
                if self._unscored:
                    self._evaluate_safely()
                self.clock.resume()
                while not self._is_over():
                    self._train_step(*streams)
                    self._keep_time()
                    wish = agreed(gather_object([self._wishes.wish()])) if self._watch.asked else ""
                    if wish or self.plan.saves_after(self.step):
                        self.clock.pause()
                        self._agree()
                        if self.plan.evaluates_after(self.step) and wish in ("", SAVE):
                            self._evaluate_safely()
                        else:
                            self._unscored = self.plan.evaluates_after(self.step)
                            saved = self.save()
                            if wish not in ("", SAVE):
                                leave(wish, saved)
                        self.clock.resume()
        except LeftEarly as left:
            self.reporter.stop()
            self.reporter.say(f"{left} after step {self.step}. {continued_by(self.run_dir.path)}")
            raise
        finally:
            self.reporter.stop()
            for stream in streams:
                stream.close()
            self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        if self.step < self.plan.steps and self.config.patience is not None:
            waited = f"{self.config.patience} evaluations without a better AP than after step {self.best.step}"
            self.reporter.say(f"stopped early, after step {self.step} of {self.plan.steps}: {waited}.")
        self._publish()

    def _is_over(self) -> bool:
        """Whether all steps are made, or the last evaluations were no better than an earlier one (`patience`).

        Every rank has the same evaluations, and so has a run that is continued where it gave up before.
        """
        return self.step >= self.plan.steps or self.plan.gives_up_after(self.step, self.best.step)

    def _keep_time(self, evaluated: float | None = None) -> None:
        """Fit the length of the run to its time budget: once its pace is known, then with each line of metrics.

        Args:
            evaluated: Seconds of the evaluation that was just made.
        """
        if self._pace is None or self.step >= self.plan.steps:
            return
        self.clock.tick()
        if evaluated is None:
            self._pace.tick(self.step, self.clock.training)
        else:
            self._pace.evaluation = evaluated
        if self.plan.fitted and evaluated is None and not self.plan.logs_after(self.step):
            return
        steps = from_first_rank(self._pace.steps(self.step, self.clock.spent(), self._guess, self.plan.eval_every))
        if steps is not None:
            self.last_until(steps)

    def _guess(self, step: float) -> float:
        """Seconds of an evaluation, from those of a training step."""
        images = 0 if self.eval_dataset is None else len(self.eval_dataset)
        return FORWARD * step * images / self.plan.global_batch

    def try_step(self) -> None:
        """The first step, of which nothing but its line of metrics is written."""
        self.task.train()
        streams = self._streams()
        self._train_step(*streams)
        for stream in streams:
            stream.close()

    def _streams(self) -> tuple[Stream, Stream]:
        """Batches of images with labels and of images without."""
        wanted = self.task.unlabeled if isinstance(self.task, LessonTask) else None
        without = 0 if wanted is None else wanted.batch
        return self._stream(self.train_dataset, self.config.batch_size), self._stream(self.unlabeled, without)

    def _stream(self, dataset: TrainingSet | None, batch_size: int) -> Stream:
        """Batches of this rank from where the run stands, without end."""
        if dataset is None:
            while True:
                yield None
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        batches = iter(self._loader(dataset, batch_size))
        while True:
            started = time.perf_counter()
            batch = next(batches).to(self.device, non_blocking=True)
            self.clock.waited(time.perf_counter() - started)
            yield replace(batch, images=batch.images.contiguous(memory_format=layout))

    def _loader(self, dataset: TrainingSet, batch_size: int) -> Iterable[ImageBatch]:
        config, pinned = self.config, self.device.type == "cuda"
        transform = train_transform(self.task.model.data_config, config.augmentation, config.seed)
        mixed = config.mixed_steps(self.plan.steps)
        if isinstance(dataset, StreamSet):
            self._rows = StreamBatches(dataset, batch_size, seed=config.seed, start=self._place)
            return stream_loader(
                dataset,
                self._rows,
                transform,
                mixed_batches=mixed * config.accumulation,
                skip_broken=config.skip_broken,
                workers=config.workers,
                pin_memory=pinned,
            )
        return train_loader(
            dataset,
            transform,
            batch_size,
            seed=config.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            start_batch=self.step * config.accumulation,
            accumulation=config.accumulation,
            mixed_steps=mixed,
            skip_broken=config.skip_broken,
            workers=config.workers,
            pin_memory=pinned,
        )

    def _train_step(self, labelled: Stream, unlabeled: Stream) -> None:
        """One optimizer step over `accumulation` micro-batches of all ranks."""
        step, parts = self.step, self.config.accumulation
        logged = self.plan.logs_after(step + 1)
        batches = [next(labelled) for _ in range(parts)]
        assignments = [None if batch is None else self.task.assign(batch) for batch in batches]
        found = [each for each in assignments if each is not None]
        counts = step_counts(found) if found else None  # of the whole optimizer step, before the first backward pass
        others = [next(unlabeled) for _ in range(parts)]
        lessons = self._lessons(others)
        buffers = Buffers(self.task) if self.config.skip_nonfinite else None
        notes: dict[str, Tensor] = {}
        for index, (batch, assignment, lesson) in enumerate(zip(batches, assignments, lessons, strict=True)):
            last, extra = index == parts - 1, {} if lesson is None else {"lesson": lesson}
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                losses = self.wrapped(batch, assignment, counts, step, shares=logged and index == 0, **extra)
                notes.update({name: value for name, value in losses.items() if name.startswith(NOTES)})
                self._watch.add({name: value for name, value in losses.items() if not name.startswith(NOTES)})
                if last:
                    self._watch.send(asks=bool(self._wishes.wish()))
                self.accelerator.backward(total_loss(losses) / parts)
        try:
            self._count(self._watch.read(step + 1))
        except NonFiniteLossError as error:
            self._skip(error, [batch for batch in (*batches, *others) if batch is not None], buffers)
            return
        norm = self._clip(logged)
        rate = self._update()
        if logged:
            self._report(rate, norm, notes)

    def _skip(self, error: NonFiniteLossError, batches: Sequence[ImageBatch], buffers: Buffers | None) -> None:
        """Go on without a step whose loss is no number, on all ranks, as often as the settings let it.

        Raises:
            NonFiniteLossError: If that was often enough; says what the step was about.
        """
        step = self.step + 1
        keep_batches(self.run_dir.path, step, self.accelerator.process_index, batches)
        ids = gather_object([image_id for batch in batches for image_id in batch.image_ids])
        about = describe(self.run_dir, step, ids)
        if buffers is None or self._skipped >= self.config.skip_nonfinite:
            again = "" if buffers is None else f" {self._skipped} such steps were left out before (skip_nonfinite)."
            raise NonFiniteLossError(f"{error} {about}{again}") from None
        self._skipped += 1
        self.reporter.say(f"step {step} is left out, {self._skipped} of {self.config.skip_nonfinite}: {error} {about}")
        buffers.restore()
        self.optimizer.zero_grad()
        self.step = step
        self.reporter.advance(step)

    def _lessons(self, batches: Sequence[ImageBatch | None]) -> list[Lesson | None]:
        """What the teachers say to the images without labels of each micro-batch; None where there are none."""
        task = self.task
        if not isinstance(task, LessonTask) or task.unlabeled is None:
            return [None for _ in batches]
        with self.accelerator.autocast():
            found = [task.look(batch) for batch in batches if batch is not None]
        counts = step_counts([lesson.assignment for lesson in found])
        factor = task.unlabeled.factor(self.step, self.plan.steps)
        return [replace(lesson, counts=counts, factor=factor) for lesson in found]

    def _clip(self, logged: bool) -> Tensor | None:
        """Norm of the gradient before clipping, where it is needed."""
        if self.config.clip_grad_norm is not None:
            norm: Tensor = self.accelerator.clip_grad_norm_(self.task.parameters(), self.config.clip_grad_norm)
            return norm
        if not logged:
            return None
        self.accelerator.unscale_gradients(self.optimizer)  # fp16; nothing else is scaled
        return gradient_norm(self.task.parameters())

    def _update(self) -> float:
        """Move the weights; returns the learning rate they moved with."""
        rate = self.plan.lr(self.step)
        set_lr(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.task.after_step()
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.task.model, self.step)
        self.reporter.advance(self.step)
        return rate

    def _count(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            total, steps = self._window.get(name, (0.0, 0))
            self._window[name] = total + value, steps + 1

    def _report(self, rate: float, norm: Tensor | None, notes: dict[str, Tensor]) -> None:
        """Write a line: means of the losses since the last one, everything else of this step."""
        losses = {name: total / count for name, (total, count) in self._window.items()}
        steps = max(count for _, count in self._window.values())
        self._window.clear()
        seconds = self.clock.lap()
        record = {
            "step": self.step,
            "epoch": round(self.plan.epoch(self.step), 4),
            "lr": rate,
            "steps_per_second": round(steps / max(seconds, 1e-9), 4),
            "loss": sum(losses.values()),
            **losses,
            "grad_norm": None if norm is None else _finite(float(norm)),
            **{name: _finite(float(value)) for name, value in notes.items()},
            "images_per_second": round(steps * self.plan.global_batch / max(seconds, 1e-9), 3),
            "seconds": round(self.clock.training, 3),
            "data_seconds": round(self.clock.data, 3),
        }
        self.reporter.record(record)

    def _agree(self) -> None:
        """Let all ranks evaluate the model that the first one saves."""
        average_buffers([self.task] if self.ema is None else [self.task, self.ema.module])

    def _evaluate_safely(self) -> None:
        """Evaluate between two checkpoints, so that a run that is stopped here loses none of its training."""
        if self.eval_dataset is not None:
            self._unscored = True
            self.save()
            self._evaluate(self.eval_dataset)
        self._unscored = False  # also of a run that is continued without images to evaluate on
        self.save()

    def _evaluate(self, dataset: DetectionSet) -> None:
        """Score the published weights; keep them in best/ if they are the best so far."""
        self.reporter.stop()
        started = self.clock.spent()
        with self._wishes.at_once() if self.accelerator.num_processes == 1 else contextlib.nullcontext():
            self.metrics, evaluator = evaluate(
                self.published,
                dataset,
                batch_size=self.config.eval_batch_size,
                workers=self.config.workers,
                accelerator=self.accelerator,
                tiling=self.config.tiling,
            )
        stats = {name: value for name, value in self.metrics.stats.items() if value is not None}
        epoch = round(self.plan.epoch(self.step), 4)
        self.reporter.record({"step": self.step, "epoch": epoch, **{f"eval/{k}": v for k, v in stats.items()}})
        shown = "  ".join(f"{name} {100 * stats[name]:.1f}" for name in ("AP", "AP50", "AP75") if name in stats)
        self.reporter.say(f"evaluation after step {self.step}: {shown or 'no ground truth'}")
        if self.accelerator.is_main_process and self.accelerator.trackers:
            log_pictures(self.accelerator.trackers, dataset, evaluator, self.step)
        ap = stats.get("AP")
        if ap is not None and (self.best.AP is None or ap > self.best.AP):
            self.best = Best(ap, self.step)
            if self.accelerator.is_main_process:
                save_pretrained(self.published, self.run_dir.best_dir)
                content = {"step": self.step, **self.metrics.to_dict()}
                self.run_dir.write_json(self.run_dir.best_dir / "metrics.json", content)
        self._keep_time(self.clock.spent() - started)
        if not self._is_over():
            self.reporter.start(self.step)


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity (the norm of an overflowed fp16 gradient is one)."""
    return value if math.isfinite(value) else None
