"""What of a run is saved while it goes on, and how it is found again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed

from ld_hub.data.stream_order import StreamBatches, StreamPlace, place_of
from ld_hub.engine.checkpoint import Checkpoint, RunDirectory, random_state, set_random_state
from ld_hub.engine.detection_task import DetectionTask
from ld_hub.engine.disk import bytes_of, describe_fault, require_room
from ld_hub.engine.identity import Identity, differences, require_same
from ld_hub.engine.leaving import Wishes
from ld_hub.engine.records import Best, RunOutcome, RunState
from ld_hub.engine.reporter import Clock, Reporter
from ld_hub.engine.schedule import Plan
from ld_hub.engine.train_config import TrainConfig, changed_fields
from ld_hub.errors import CheckpointError
from ld_hub.evaluation import DetectionMetrics
from ld_hub.models.checkpoints.pretrained import save_pretrained
from ld_hub.models.detector import DenseDetector
from ld_hub.optim.averaging import Average


class Saving:
    """The state of a run on one rank; `ld_hub.engine.loop.Loop` changes it.

    Attributes:
        task: What is trained.
        plan: Length and learning rates.
        config: Settings.
        run_dir: Where it is written.
        accelerator: Devices, ranks and precision.
        identity: What is trained, on what and by whom; a continued run must have the same.
        device: Of this rank.
        optimizer: Its state is saved.
        ema: The average of the weights, or None.
        clock: Seconds so far.
        reporter: Tells what happens.
        step: Optimizer steps made.
        best: Best evaluation so far.
        metrics: Of the last evaluation, or None.
    """

    task: DetectionTask
    plan: Plan
    config: TrainConfig
    run_dir: RunDirectory
    accelerator: Accelerator
    identity: Identity
    device: torch.device
    optimizer: Any  # accelerate's, around torch's
    ema: Average | None
    clock: Clock
    reporter: Reporter
    step: int
    best: Best
    metrics: DetectionMetrics | None
    _wishes: Wishes
    _unscored: bool  # an evaluation is due: the run was stopped in it
    _skipped: int  # steps whose loss was no number
    _window: dict[str, tuple[float, int]]  # loss -> sum, steps since the last line of metrics
    _is_stream: bool  # whether the images with labels are a stream
    _rows: StreamBatches | None  # its batches, once there are some
    _place: StreamPlace  # in it, where this rank starts

    @property
    def published(self) -> DenseDetector:
        """The model that is evaluated and saved: the average where there is one."""
        model: DenseDetector = self.task.model if self.ema is None else self.ema.module
        return model

    def last_until(self, steps: int) -> None:
        """Let the whole run have so many steps, which is known once its time budget is turned into them."""
        first, self.plan = not self.plan.fitted, self.plan.lasting(steps)
        self.task.begin(steps)
        self.reporter.last_until(steps)
        if first:
            self.reporter.say(f"time budget {self.config.time_budget}: {self.plan.describe()}")
        if self.accelerator.is_main_process and self.run_dir.config_file.is_file():
            self.run_dir.write_json(self.run_dir.config_file, {**self.run_dir.settings(), "steps": steps})

    def save(self) -> bool:
        """Write a checkpoint and the published model; every rank takes part.

        Where the directory cannot be written that is said, and the run goes on to its next save, unless the settings
        are strict about it; the checkpoints that are there stay.

        Returns:
            Whether it was written.

        Raises:
            CheckpointError: If it could not be, with ``strict_saves``; or if the weights are not finite.
        """
        states = gather_object([random_state(self.device)])
        done = self.step * self.config.accumulation
        places = gather_object([] if self._rows is None else [self._rows.place(done)])
        fault = ""
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = RunState(
                config=self.config,
                identity=self.identity,
                batch=(self.plan.global_batch, self.config.accumulation),
                random=tuple(states),
                places=tuple(places),
                scaler=None if scaler is None else scaler.state_dict(),
                best=self.best,
                metrics=self.metrics,
                window=self._window,
                clock=self.clock.state(),
                unscored=self._unscored,
                skipped=self._skipped,
                fitted_steps=self.plan.steps if self.config.time_budget is not None and self.plan.fitted else None,
            )
            ema = None if self.ema is None else self.ema.module.state_dict()
            tensors = self.task.state_dict(), self.optimizer.state_dict(), ema
            checkpoint = Checkpoint(self.step, *tensors, state.to_dict())
            try:
                require_room(self.run_dir.path, checkpoint.bytes() + bytes_of(self.published.state_dict().values()))
                self.run_dir.save(checkpoint, keep=self.config.keep_checkpoints, best=self.best.step)
                save_pretrained(self.published, self.run_dir.model_dir)
            except OSError as error:
                fault = describe_fault(error, self.run_dir.path)
        fault = "".join(gather_object([fault]))
        if fault and self.config.strict_saves:
            raise CheckpointError(f"The checkpoint of step {self.step} was not written. {fault} (strict_saves).")
        if fault:
            self.reporter.say(
                f"NOT SAVED at step {self.step}: {fault}. The run goes on, and tries again at its next save."
            )
        else:
            self._wishes.saved()
        return not fault

    def restore(self) -> None:
        """Set the random numbers, and continue from a checkpoint if the settings say so.

        Raises:
            ConfigError: If the checkpoint belongs to a run with other settings.
            CheckpointError: If it cannot be read or does not fit the model.
            MissingFileError: If ``resume`` names a checkpoint that does not exist.
        """
        set_seed(self.config.seed, device_specific=True)
        path = self.run_dir.find(self.config.resume) if self.config.resume else None
        if path is not None:
            for damage in self.run_dir.damaged_after(path):
                self.reporter.say(f"resume: {damage}: left aside, an earlier checkpoint is taken.")
            self._load(Checkpoint.load(path), path)
            self.reporter.say(f"resume: continuing from '{path}' at step {self.step} of {self.plan.steps}.")
        elif self.config.resume:
            self.reporter.say(f"resume: '{self.run_dir.path}' has no checkpoint yet; starting from step 0.")
        self.accelerator.wait_for_everyone()  # all ranks have read what is there
        if self.accelerator.is_main_process:
            self.run_dir.forget_after(self.step, unscored=self._unscored)

    def _load(self, checkpoint: Checkpoint, path: Path) -> None:
        state = RunState.from_dict(checkpoint.state, f"'{path / 'state.json'}'")
        self._check_same_run(state, str(path))
        try:
            self.task.load_state_dict(checkpoint.model)
            self.optimizer.load_state_dict(checkpoint.optimizer)
            if checkpoint.ema is None and self.config.ema == "auto":
                self.ema = None  # a run that was begun without an average goes on without
            if self.ema is not None:
                self.ema.module.load_state_dict(checkpoint.ema or {})
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"'{path}' does not fit this model: {error}") from None
        if self.accelerator.scaler is not None and state.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(state.scaler))
        self.step, self.best, self.metrics = checkpoint.step, state.best, state.metrics
        self._unscored, self._window = state.unscored, dict(state.window)
        self._skipped = state.skipped
        self.clock.restore(state.clock)
        if state.fitted_steps is not None:
            self.last_until(state.fitted_steps)
        index = self.accelerator.process_index
        if self._is_stream:
            self._place = place_of(state.places, index, self.accelerator.num_processes, str(path))
        if index < len(state.random):
            set_random_state(state.random[index], self.device)

    def _check_same_run(self, state: RunState, path: str) -> None:
        changed = changed_fields(state.config, self.config)
        batch = (self.plan.global_batch, self.config.accumulation)
        if state.batch != batch:
            changed["images per optimizer step, micro-steps"] = (list(state.batch), list(batch))
        require_same({**changed, **differences(state.identity.to_dict(), self.identity.to_dict())}, path)

    def _publish(self) -> None:
        """End of the run: model/ and result.json say what came out, and the model in memory is the published one."""
        if self.ema is not None:
            self.task.model.load_state_dict(self.ema.module.state_dict())
        self.task.model.eval()
        if self.accelerator.is_main_process:
            outcome = RunOutcome(self.step, round(self.clock.training, 3), self.best, self.metrics)
            try:
                save_pretrained(self.task.model, self.run_dir.model_dir)
                self.run_dir.write_json(self.run_dir.result_file, asdict(outcome))
            except OSError as error:
                fault = describe_fault(error, self.run_dir.path)
                raise CheckpointError(
                    f"The run is done, and its model was not written. {fault}; then --resume."
                ) from None
        for tracker in self.accelerator.trackers:
            tracker.finish()
        self.accelerator.wait_for_everyone()
