"""How long a run is and which learning rate each of its steps has, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ld_hub.engine.train_config import BASE_BATCH, BASE_LR, PRESET_EPOCHS, WARMUP_RATIO, WARMUP_STEPS, TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.optim.averaging import SMALL_DATA, USUAL_DECAY, usual_decay

UNKNOWN = 10**9  # steps of a run whose time budget has not been turned into steps yet


@dataclass(frozen=True)
class Plan:
    """The numbers of a run that follow from its settings, the size of its data and the number of its processes.

    Attributes:
        images: Training images, M.
        global_batch: Images per optimizer step, over all processes and micro-steps.
        steps: Optimizer steps in all.
        peak_lr: Learning rate after the warm-up, before any decay.
        warmup: Steps of warm-up.
        decays: Steps from which on the learning rate is multiplied once more by `TrainConfig.lr_decay`.
        eval_every: Steps between evaluations; None evaluates at the end only.
        ema_decay: Largest decay of the average of the weights; None for no average.
        fitted: Whether the length is known; a run with a time budget begins without.
    """

    images: int
    global_batch: int
    steps: int
    peak_lr: float
    warmup: int
    decays: tuple[int, ...]
    eval_every: int | None
    ema_decay: float | None
    fitted: bool
    config: TrainConfig

    @classmethod
    def make(cls, config: TrainConfig, images: int, world: int = 1, fitted_steps: int | None = None) -> Plan:
        """Work the numbers out.

        Args:
            config: Settings.
            images: Training images.
            world: Processes.
            fitted_steps: Optimizer steps that fit into the time budget, once that is known.

        Raises:
            ConfigError: If the warm-up does not fit in the run.
        """
        batch = config.batch_size * config.accumulation * world
        per_epoch = images / batch
        epochs = config.epochs or PRESET_EPOCHS[config.schedule or "1x"]
        steps = config.steps or max(1, math.ceil(round(epochs * per_epoch, 6)))
        if config.time_budget is not None:
            steps = fitted_steps or UNKNOWN
        warmup = min(WARMUP_STEPS, steps // 10) if config.warmup_steps is None else config.warmup_steps
        warmup = min(warmup, steps - 1) if config.time_budget is not None else warmup
        if warmup >= steps:
            raise ConfigError(f"warmup_steps is {warmup}, but the run has {steps} steps: give less warm-up.")
        every = config.eval_every_steps
        passes = 1.0 if config.patience is not None and every is None else None
        if config.eval_every_epochs is not None or passes is not None:
            every = max(1, round((config.eval_every_epochs or passes or 1.0) * per_epoch))
        rate = BASE_LR[config.optimizer] if config.lr is None else config.lr
        return cls(
            images=images,
            global_batch=batch,
            steps=steps,
            peak_lr=rate * batch / BASE_BATCH if config.scale_lr else rate,
            warmup=warmup,
            decays=tuple(round(mark * steps) for mark in config.milestones) if config.lr_schedule == "step" else (),
            eval_every=every,
            ema_decay=_ema_decay(config, images),
            fitted=config.time_budget is None or fitted_steps is not None,
            config=config,
        )

    def lasting(self, steps: int) -> Plan:
        """The plan of the same run with so many steps in all."""
        world = self.global_batch // (self.config.batch_size * self.config.accumulation)
        return Plan.make(self.config, self.images, world, steps)

    def lr(self, step: int) -> float:
        """Learning rate of an optimizer step.

        Args:
            step: 0-based index; step 0 has ``warmup_ratio`` of the rate (reference SPEC 7).
        """
        rate = self.peak_lr
        if self.config.lr_schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * step / self.steps))
        else:
            rate *= self.config.lr_decay ** sum(step >= decay for decay in self.decays)
        if step < self.warmup:
            ratio = WARMUP_RATIO if self.config.warmup_ratio is None else self.config.warmup_ratio
            rate *= 1 - (1 - step / self.warmup) * (1 - ratio)
        return rate

    def epoch(self, step: int) -> float:
        """Passes over the training images after `step` optimizer steps."""
        return step * self.global_batch / self.images

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation follows the optimizer step of this 1-based number."""
        return step == self.steps or (self.eval_every is not None and step % self.eval_every == 0)

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint follows the optimizer step of this 1-based number."""
        return self.evaluates_after(step) or step % self.config.save_every == 0

    def logs_after(self, step: int) -> bool:
        """Whether a line of metrics follows the optimizer step of this 1-based number; the first step has one."""
        return step in {1, self.steps} or step % self.config.log_every == 0

    def gives_up_after(self, step: int, best_step: int | None) -> bool:
        """Whether the run stops after an evaluation, having waited long enough for a better one.

        Args:
            step: 1-based number of the optimizer step before the last evaluation.
            best_step: That before the best one so far; None if there was none.
        """
        if self.config.patience is None or self.eval_every is None or best_step is None:
            return False
        return step - best_step >= self.config.patience * self.eval_every

    def describe_average(self) -> str:
        """What is evaluated and published: the weights, or their average and why."""
        if self.ema_decay is None:
            return "none: the last weights are published"
        asked = self.config.ema == "on" or self.config.ema_decay is not None
        why = "" if asked else f" (--ema auto: {self.images} training images, less than {SMALL_DATA})"
        return f"EMA, decay up to {self.ema_decay:g}{why}"

    def describe(self) -> str:
        """One line for the table at the start."""
        decay = {
            "step": f"x {self.config.lr_decay:g} at steps {', '.join(map(str, self.decays)) or 'none'}",
            "cosine": "cosine to 0",
            "constant": "constant",
        }[self.config.lr_schedule]
        factor = self.config.bias_lr_factor
        biases = "" if factor in {None, 1.0} else f" (biases x {factor:g})"
        if self.config.layer_decay is not None:
            biases += f" (x {self.config.layer_decay:g} for each layer of the backbone downwards)"
        if not self.fitted:
            length = f"as many steps x {self.global_batch} images as {self.config.time_budget} allow"
            return f"{length}, {self.config.optimizer} lr {self.peak_lr:.4g}{biases}, {self.config.lr_schedule}"
        return (
            f"{self.steps} steps x {self.global_batch} images ({self.epoch(self.steps):.3g} epochs), "
            f"{self.config.optimizer} lr {self.peak_lr:.4g}{biases}, {decay}, warm-up {self.warmup} steps"
        )


def _ema_decay(config: TrainConfig, images: int) -> float | None:
    """See `Plan.ema_decay`."""
    if config.ema_decay is not None or config.ema == "off":
        return config.ema_decay
    if config.ema == "on":
        return USUAL_DECAY
    return usual_decay(images, published=config.schedule is not None)
