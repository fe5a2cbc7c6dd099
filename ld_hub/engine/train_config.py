"""Everything that decides a training run, in one dataclass; the commands' flags are its fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ld_hub.errors import ConfigError
from ld_hub.optim.time_budget import budget_seconds
from ld_hub.preprocessing.augmentation import AugmentationFlags
from ld_hub.registry import MODELS
from ld_hub.tiling import Tiling

# Reference SPEC 7. VOC's 4 epochs are over a data set that is repeated three times.
PRESET_EPOCHS = {"1x": 12.0, "2x": 24.0, "voc": 12.0}
PRESET_MILESTONES = {"1x": (2 / 3, 11 / 12), "2x": (2 / 3, 11 / 12), "voc": (3 / 4,)}
BASE_BATCH = 16  # images per optimizer step that base learning rates are given for (SPEC 7: lr = batch / 16 * .01)
BASE_LR = {"sgd": 0.01, "adamw": 1e-4}
WARMUP_STEPS = 500
WARMUP_RATIO = 0.001


@dataclass(frozen=True)
class TrainConfig(AugmentationFlags):
    """Settings of a training run, with those of `AugmentationFlags`. The defaults are the published 1x schedule.

    Attributes:
        output_dir: Run directory: config.json, metrics.jsonl, checkpoints/, best/ and model/ are written there.
        resume: Continue the run in output_dir from its last checkpoint, to the same weights as without the break; a
            path continues from that checkpoint directory instead, of this run or, in a new output_dir, of another.
            Starts from step 0 where nothing was saved yet. Settings, network, teacher, recipe and data must be the
            same.
        schedule: Published preset of the length: 1x = 12 epochs, 2x = 24 epochs, voc = the published 4 epochs of PASCAL
            VOC 07+12 over three times the images, 12 passes with one decay after 9. 1x where neither epochs nor steps
            is given.
        epochs: Length in passes over the training images, instead of schedule.
        steps: Length in optimizer steps, instead of schedule.
        time_budget: Length in time, instead of schedule: 30m, 1h30m, 90s. The first steps are timed, then the schedule
            is fitted so that training and evaluations end in that time; corrected on the way, by the first process.
        batch_size: Images per process and micro-step.
        auto_batch: Take the largest batch_size that fits into memory, up to an eighth of the training images: a GPU is
            asked by trial, on a CPU what an image needs is counted. Images without labels are in each step.
        accumulation: Micro-steps per optimizer step. Images and positives are counted over the whole step, so losses
            are those of one batch of accumulation x batch_size; only a mean of predictions (the score that GFocal's
            box losses are divided by) covers the micro-step.
        optimizer: sgd (published) or adamw.
        lr: Learning rate for 16 images per optimizer step; 0.01 for sgd and 0.0001 for adamw where not given.
        scale_lr: Multiply lr by (images per optimizer step over all processes) / 16, as published; false takes lr as
            it is.
        momentum: Momentum of sgd, beta1 of adamw.
        weight_decay: Weight decay of all trained parameters, norms and biases included, as published.
        bias_lr_factor: Factor on the learning rate of biases, those of norms left out; 2 for fcos, as published, and 1
            for other families where not given.
        bias_weight_decay: Weight decay of the same biases; 0 for fcos, as published, and weight_decay for other
            families where not given.
        layer_decay: Layer-wise learning-rate decay: the backbone's last block learns this many times as fast as the
            pyramid, each block below it so many times as fast as the next (0.7 to 0.95 for transformers and ConvNeXts;
            layers as of timm). The same rate for all where not given.
        class_weights: Factors of classes in the class loss, as objects and as background: person=2,car=0.5, or a JSON
            or YAML file (a mapping in YAML or Python); 1 for those that are not named. Box losses stay as they are.
        lr_schedule: step multiplies lr by lr_decay at each milestone, cosine falls to 0 at the end, constant stays.
        milestones: Fractions of the run at which lr_schedule step decays; 2/3 and 11/12 are epochs 8 and 11 of 12. With
            schedule voc 3/4 where nothing else is given.
        lr_decay: Factor of each decay of lr_schedule step.
        warmup_steps: Optimizer steps of linear warm-up; 500 where not given, or a tenth of a run of less than 5000.
        warmup_ratio: Fraction of the learning rate that the warm-up starts from; 1/3 for fcos, as published, and 0.001
            for other families where not given.
        clip_grad_norm: Largest norm of the whole gradient; not clipped where not given (as published).
        precision: no (float32), bf16 or fp16 autocast; what `accelerate launch --mixed_precision` said where not
            given. Losses are float32 in any case.
        channels_last: Keep images and weights in channels-last order, faster on recent GPUs.
        grad_checkpointing: Compute the backbone's activations again in the backward pass instead of keeping them: less
            memory for about a third more time. Statistics of trained batch norms take each batch in twice then.
        ema: Keep an exponential moving average of the weights; the average is what is evaluated and published then.
            auto keeps one with less than 10,000 training images, unless a published schedule or reference is given.
        ema_decay: Largest decay of the average, which is kept then; 0.9998 where not given.
        seed: Seed of the order of images, of augmentation and of every random number on the way.
        image_size: Length of the shorter side and limit of the longer side in px, for training and evaluation;
            becomes part of the model. The model's own where not given.
        tile: Train and evaluate on square tiles of so many px of the original images, for large images with small
            objects, those without labels, too; what is scored is whole images. Whole ones are looked at where not
            given.
        overlap: Share of a tile that neighbours have in common.
        filter_empty: Leave training images without objects out, as the published runs do; they train as background
            otherwise.
        skip_broken: Leave out images that cannot be read, and say which, instead of stopping there; a run that has
            stopped can be continued with it.
        skip_nonfinite: Go on after so many steps whose loss is NaN or infinite, without these; the run stops at the
            next one. What such a step was about is kept in RUN/nonfinite.
        workers: Processes that load images, per training process.
        eval_every_steps: Evaluate each so many optimizer steps; only at the end where neither this nor
            eval_every_epochs is given.
        eval_every_epochs: Evaluate each so many passes over the training images.
        patience: Stop early, after so many evaluations without a better AP; they follow each pass over the training
            images where eval_every_... does not say otherwise. best/ holds the best weights.
        eval_batch_size: Images per process at evaluation; the numbers do not depend on it.
        save_every: Write a checkpoint each so many optimizer steps, besides one at each evaluation and at the end.
        save_every_minutes: Also write a checkpoint each so many minutes.
        max_minutes: Save and end after so many minutes, for clusters with time limits; --resume continues.
        strict_saves: Stop where a checkpoint cannot be written (a full disk, for example), instead of going on to the
            next one.
        keep_checkpoints: Checkpoints that stay, the last ones; the one of the best evaluation stays beside them.
        log_every: Optimizer steps between lines of metrics.jsonl.
        tracker: Where to report to as well: wandb, tensorboard, trackio, or another one of accelerate's, also several;
            each needs its own package (pip install NAME). Gets every line of metrics.jsonl and, at each evaluation,
            pictures of the detections on the first images to evaluate on.
    """

    output_dir: str = "runs/run"
    resume: bool | str = False
    schedule: Literal["1x", "2x", "voc"] | None = None
    epochs: float | None = None
    steps: int | None = None
    time_budget: str | None = None
    batch_size: int = 2
    auto_batch: bool = False
    accumulation: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float | None = None
    scale_lr: bool = True
    momentum: float = 0.9
    weight_decay: float = 1e-4
    bias_lr_factor: float | None = None
    bias_weight_decay: float | None = None
    layer_decay: float | None = None
    class_weights: str | dict[str, float] | None = None
    lr_schedule: Literal["step", "cosine", "constant"] = "step"
    milestones: tuple[float, ...] = PRESET_MILESTONES["1x"]
    lr_decay: float = 0.1
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    clip_grad_norm: float | None = None
    precision: Literal["no", "bf16", "fp16"] | None = None
    channels_last: bool = False
    grad_checkpointing: bool = False
    ema: Literal["auto", "on", "off"] = "auto"
    ema_decay: float | None = None
    seed: int = 0
    image_size: tuple[int, int] | None = None
    tile: int | None = None
    overlap: float = 0.2
    filter_empty: bool = False
    skip_broken: bool = False
    skip_nonfinite: int = 0
    workers: int = 2
    eval_every_steps: int | None = None
    eval_every_epochs: float | None = None
    patience: int | None = None
    eval_batch_size: int = 8
    save_every: int = 1000
    save_every_minutes: float | None = None
    max_minutes: float | None = None
    strict_saves: bool = False
    keep_checkpoints: int = 2
    log_every: int = 50
    tracker: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("milestones", "image_size", "tracker"):
            value = getattr(self, name)
            if isinstance(value, list):  # from JSON or YAML
                object.__setattr__(self, name, tuple(value))
        if self.schedule in PRESET_MILESTONES and self.milestones == PRESET_MILESTONES["1x"]:
            object.__setattr__(self, "milestones", PRESET_MILESTONES[self.schedule])
        if self.time_budget is not None:
            budget_seconds(self.time_budget)
        _ = self.tiling  # refuses values out of range
        _check_exclusive(self)
        _check_choices(self)
        _check_ranges(self)

    @property
    def tiling(self) -> Tiling | None:
        """How images are cut; None for whole ones."""
        return None if self.tile is None else Tiling(self.tile, self.overlap)

    def for_family(self, family: str) -> TrainConfig:
        """The same settings, with the published ones of a family of detectors where none is given.

        Args:
            family: ``"gfocal"``, ``"fcos"``, ...; what it sets stands in its file (`DenseDetector.train_settings`).
        """
        published: Mapping[str, Any] = MODELS[family].build.train_settings if family in MODELS else {}
        return replace(self, **{name: value for name, value in published.items() if getattr(self, name) is None})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as written to config.json."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


# What may differ between a run and its continuation: nothing of it reaches the weights, as long as images can be read.
# (On several ranks, the running statistics of trained batch norms become the ranks' mean whenever the run saves; no
# training step reads them.)
RESUMABLE_CHANGES = frozenset(
    "output_dir resume batch_size auto_batch workers eval_every_steps eval_every_epochs patience eval_batch_size "
    "save_every save_every_minutes max_minutes strict_saves keep_checkpoints log_every tracker skip_broken "
    "skip_nonfinite".split()
)


def changed_fields(old: TrainConfig, new: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Fields that would make a continuation another run.

    Args:
        old: Of the run to be continued.
        new: What is asked for now.

    Returns:
        ``{field: (old value, new value)}``.
    """
    names = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in RESUMABLE_CHANGES]
    one, other = (vars(config) | vars(config.augmentation) for config in (old, new))  # what a preset stands for counts
    pairs = {name: (one[name], other[name]) for name in names if name != "augment"}
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def _check_exclusive(config: TrainConfig) -> None:
    for group in (("schedule", "epochs", "steps", "time_budget"), ("eval_every_steps", "eval_every_epochs")):
        given = [name for name in group if getattr(config, name) is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude each other: give only one of them.")
    if config.ema == "off" and config.ema_decay is not None:
        raise ConfigError(f"ema is off, and ema_decay {config.ema_decay:g} asks for an average: leave one of them out.")


def _check_choices(config: TrainConfig) -> None:
    choices: dict[str, tuple[str | None, ...]] = {
        "schedule": (None, *PRESET_EPOCHS),
        "optimizer": ("sgd", "adamw"),
        "lr_schedule": ("step", "cosine", "constant"),
        "precision": (None, "no", "bf16", "fp16"),
        "ema": ("auto", "on", "off"),
    }
    for name, allowed in choices.items():
        value = getattr(config, name)
        if value not in allowed:
            shown = ", ".join(str(choice) for choice in allowed if choice is not None)
            raise ConfigError(f"{name} is {value!r}; it can be: {shown}.")


def _check_ranges(config: TrainConfig) -> None:
    at_least: dict[str, float] = {
        "steps": 1, "batch_size": 1, "accumulation": 1, "workers": 0, "warmup_steps": 0, "eval_every_steps": 1,
        "patience": 1, "eval_batch_size": 1, "save_every": 1, "keep_checkpoints": 1, "log_every": 1, "weight_decay": 0,
        "skip_nonfinite": 0,
        "bias_weight_decay": 0, "seed": 0,
    }  # fmt: skip
    for name, low in at_least.items():
        value = getattr(config, name)
        if value is not None and value < low:
            raise ConfigError(f"{name} is {value}; it must be at least {low:g}.")
    positive = "epochs lr bias_lr_factor clip_grad_norm eval_every_epochs lr_decay save_every_minutes max_minutes"
    for name in positive.split():
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{name} is {value}; it must be above 0.")
    for name in ("warmup_ratio", "momentum", "ema_decay", "layer_decay"):
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"{name} is {value}; it must be between 0 and 1.")
    if not all(0 < mark < 1 for mark in config.milestones) or sorted(config.milestones) != list(config.milestones):
        raise ConfigError(f"milestones are {config.milestones}; they must be rising fractions of the run, 0 to 1.")
    sides = config.image_size
    if sides is not None and (len(sides) != 2 or not 0 < sides[0] <= sides[1]):
        raise ConfigError(f"image_size is {sides}; it must be two lengths in px, the smaller one first.")
