"""A distillation, the same with other seeds, and its student alone beside each: the runs of a comparison.

```
RUN/                         the first seed's distillation, a run as any other
  comparison/distilled-1/    that of another seed
  comparison/alone-0/        the student without a teacher: same start, same batches, same number of steps
  comparison/alone_seconds-0/  and for as many seconds as the distillation took, by a whole schedule of its own
  comparison.json            what came out so far
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from ld_hub.analysis.comparison import TITLES, Comparison, Trained, Training
from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.engine.records import RunOutcome
from ld_hub.engine.run_result import RunResult
from ld_hub.engine.train_config import TrainConfig
from ld_hub.engine.trainer import Trainer
from ld_hub.errors import ConfigError
from ld_hub.ops.dist import from_first_rank, rank

DIRECTORY = "comparison"  # of a run: the others
Make: TypeAlias = Callable[[TrainConfig], Trainer]


@dataclass(frozen=True)
class Repeats:
    """Which runs a comparison has, and how each is made.

    Attributes:
        distilled: Makes the trainer of a distillation from its settings. A student of fresh weights has to be the same
            for the same ``config.seed`` (``torch.manual_seed``).
        alone: Makes the trainer of the same student without a teacher; None compares seeds only.
        seeds: Number of seeds, from ``config.seed`` on.
        say: Told which run begins, and which is complete already.
    """

    distilled: Make
    alone: Make | None = None
    seeds: int = 1
    say: Callable[[str], None] = print

    @property
    def trainings(self) -> tuple[Training, ...]:
        """What is trained for each seed, in this order."""
        return ("distilled",) if self.alone is None else ("distilled", "alone", "alone_seconds")

    def train(self, config: TrainConfig) -> Comparison:
        """Train all, one after another; comparison.json is written anew whenever one is complete.

        Args:
            config: Of the first distillation. With ``resume``, runs that are complete are passed over, and one that
                was interrupted is continued.

        Returns:
            What is in comparison.json.

        Raises:
            ConfigError: If there is a run of another comparison, or nothing to evaluate on; as `Trainer.train`.
            NonFiniteLossError: As `Trainer.train`.
        """
        seeds = range(config.seed, config.seed + self.seeds)
        plan = [(seed, training) for seed in seeds for training in self.trainings]
        root = Path(config.output_dir)
        if not config.resume:
            for seed, training in plan:
                RunDirectory(root / place(config, training, seed)).require_new()
        found: dict[Training, list[Trained]] = {training: [] for training in self.trainings}
        model = ""
        for number, (seed, training) in enumerate(plan, 1):
            run = place(config, training, seed)
            settings = _settings(config, training, seed, found)
            self.say(f"\n[{number} of {len(plan)}] {TITLES[training]}, seed {seed}, in {settings.output_dir}")
            trainer = self._make(training, settings)
            model = model or trainer.model.name
            trained = self._complete(trainer)
            found[training].append(Trained.read(root, run, seed))
            if rank() == 0 and (trained or number == len(plan)):  # until then the file knows more
                Comparison.of(model, found).write(root)
        return Comparison.of(model, found)

    def _make(self, training: Training, settings: TrainConfig) -> Trainer:
        make = self.distilled if training == "distilled" or self.alone is None else self.alone
        trainer = make(settings)
        if trainer.eval_dataset is None:
            raise ConfigError("There are no images to evaluate on, so nothing would say what is better: give some.")
        return trainer

    def _complete(self, trainer: Trainer) -> bool:
        """Train, or see that what is complete already is this very run; returns whether it trained."""
        run = RunDirectory(trainer.config.output_dir)
        if trainer.config.resume is True and run.result_file.is_file():
            trainer.require_same(run)
            self.say("complete already")
            return False
        trainer.train()
        return True


def place(config: TrainConfig, training: Training, seed: int) -> str:
    """Where a run of a comparison lies, seen from the first one's directory.

    Args:
        config: Of the first distillation.
        training: Which training.
        seed: Of the run.
    """
    return "." if training == "distilled" and seed == config.seed else f"{DIRECTORY}/{training}-{seed}"


def result_of(run: RunDirectory) -> RunResult:
    """What came out of a run that is complete, from its files.

    Raises:
        CheckpointError: If they are damaged.
    """
    outcome = RunOutcome.read(run.result_file)
    best = run.best_dir if outcome.best.step is not None else None
    return RunResult(
        outcome.steps, outcome.seconds, outcome.metrics, outcome.best.AP, outcome.best.step, run.model_dir, best
    )


def steps_in(seconds: float, alone: Trained) -> int:
    """Steps that the student alone makes in some seconds of training, at the pace that it had."""
    return max(1, round(seconds * alone.steps / max(alone.seconds, 1e-3)))


def _settings(config: TrainConfig, training: Training, seed: int, found: dict[Training, list[Trained]]) -> TrainConfig:
    """Those of one run."""
    run = place(config, training, seed)
    if run == ".":
        return config
    settings = replace(config, output_dir=str(Path(config.output_dir) / run), seed=seed, resume=bool(config.resume))
    if config.time_budget is not None and training == "alone":  # as many steps as were taught in that time
        return replace(settings, time_budget=None, steps=found["distilled"][-1].steps)
    if training != "alone_seconds":
        return settings
    steps = from_first_rank(steps_in(found["distilled"][-1].seconds, found["alone"][-1]))
    steps = max(steps, 1 + (config.warmup_steps or 0))  # a run is longer than its warm-up
    return replace(settings, schedule=None, epochs=None, time_budget=None, steps=steps)
