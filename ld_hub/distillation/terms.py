"""Distillation terms: one number per batch, weighted, for the student's gradient.

A term is configured by a frozen dataclass whose `kind` names the term, so that a recipe is plain data.
Published computations (`reference=`) are presets of the same fields.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ld_hub.distillation.correspondence import require_common_levels
from ld_hub.distillation.inputs import TermInputs
from ld_hub.distillation.regions import RegionConfig, require_region
from ld_hub.errors import ConfigError
from ld_hub.papers import Paper
from ld_hub.registry import Registry
from ld_hub.structures import DetectorSpec, EncoderSpec

CONFIG = TypeVar("CONFIG", bound="TermConfig")
Over = Literal["image", "batch"]
MOMENTS = ("first_step", "last_step", "decay_from")  # fields of a term's schedule
_SAMPLES = TypeVar("_SAMPLES", bound="SampleMeanConfig")


@dataclass(frozen=True)
class TermConfig(RegionConfig):
    """What every term has, beside where it looks (`RegionConfig`).

    Attributes:
        weight: Factor of the term in the loss.
        share: Where terms are balanced by their gradients: size of this term's gradient as a share of the detection
            loss's. None takes the trainer's one number for all terms. Without balance it has no effect.
        first_step: First optimizer step at which the term counts, 0-based. A float is a share of the run's length, here
            and in the two below: with 0.3 the first 30 % of the run are without the term.
        last_step: Last such step; None means to the end. With 0.7 the term ends with the first 70 % of the run, 1.0 is
            the end itself.
        decay: ``"cosine"`` lets the term fade to 0 at last_step.
        decay_from: Up to this step the term has its whole strength; None means first_step. With decay_from 0.667 and
            last_step 1.0 it fades over the last third of a run of any length.
    """

    kind: ClassVar[str] = ""
    weight: float = 1.0
    share: float | None = None
    first_step: int | float = 0
    last_step: int | float | None = None
    decay: Literal["none", "cosine"] = "none"
    decay_from: int | float | None = None

    def __post_init__(self) -> None:
        for name in ("weight", "share"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is {value!r}; expected a finite number of at least 0.")
        require_schedule(self)
        super().__post_init__()

    def at_length(self: CONFIG, steps: int) -> CONFIG:
        """The same term in a run of so many optimizer steps: shares become steps.

        Args:
            steps: Length of the run; where it is too short for a share to hold a step, that share holds one.

        Raises:
            ConfigError: If first_step, decay_from and last_step are not in this order then.
        """

        def start(moment: int | float) -> int:
            return min(round(moment * steps), steps - 1) if isinstance(moment, float) else moment

        first, last, fades, decay = start(self.first_step), self.last_step, self.decay_from, self.decay
        if isinstance(last, float):
            last = max(round(last * steps) - 1, first)
            if last == first:
                fades, decay = None, "none"  # one step: nothing to fade over
        if isinstance(fades, float) and last is not None:
            fades = max(min(start(fades), last - 1), first)
        try:
            return replace(self, first_step=first, last_step=last, decay=decay, decay_from=fades)
        except ConfigError as error:
            raise ConfigError(f"In a run of {steps} steps {error}") from None

    def factor(self, step: int) -> float:
        """How much of the term counts at an optimizer step, from 0 to 1.

        Raises:
            ConfigError: If the term has shares of a run whose length was not told.
        """
        first, last, fades = self.first_step, self.last_step, self.decay_from
        for name in MOMENTS:
            if isinstance(getattr(self, name), float):
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}, a share of a run whose length is not known here. Trainers "
                    "tell it; beside them call Distiller.begin(steps), or TermConfig.at_length(steps), first."
                )
        if step < first or (last is not None and step > last):
            return 0.0
        fades = first if fades is None else fades
        if self.decay == "none" or last is None or step <= fades:
            return 1.0
        return (1 + math.cos(math.pi * (step - fades) / (last - fades))) / 2

    @property
    def crossing(self) -> Over | None:
        """What the student's maps are re-standardised over, if the term sees them through the teacher's head.

        None: it sees the student's own predictions, or its maps.
        """
        return None

    def published(self: CONFIG, reference: str, family: str) -> CONFIG:
        """The same term as a code base (``"ld"`` or ``"bckd"``) computes it for a family of detectors."""
        return self


def require_schedule(config: TermConfig) -> None:
    """Refuse steps that cannot be.

    Steps and shares of a run are only compared with their like: `TermConfig.at_length` comes here again.

    Raises:
        ConfigError: With the field, what it is and what it should be.
    """
    for name in MOMENTS:
        value, ends = getattr(config, name), name == "last_step"
        if isinstance(value, float) and not (0 < value < 1 or (ends and value == 1)):
            raise ConfigError(
                f"{name} is {value!r}; expected int{'' if name == 'first_step' else ' or None'}, or as a share of the "
                f"run's length a float above 0 and {'up to' if ends else 'below'} 1."
            )
    first, fades, last = config.first_step, config.decay_from, config.last_step
    if first < 0 or _after(first, last):
        raise ConfigError(f"first_step is {first} and last_step {last}; both are at least 0, in this order.")
    if config.decay not in {"none", "cosine"}:
        raise ConfigError(f"decay is {config.decay!r}; expected 'none' or 'cosine'.")
    begin, name = (first, "first_step") if fades is None else (fades, "decay_from")
    if config.decay == "cosine" and (last is None or _after(begin, last, or_same=True)):
        raise ConfigError(
            f"decay is 'cosine' and last_step {last}; expected a step after {name} ({begin}), at which the term has "
            "faded out, e.g. the run's last (1.0)."
        )
    if fades is not None and (config.decay == "none" or fades < 0 or _after(first, fades)):
        raise ConfigError(
            f"decay_from is {fades} and first_step {first}; expected a step from first_step on, with decay='cosine'."
        )


def _after(one: int | float, other: int | float | None, *, or_same: bool = False) -> bool:
    """Whether a moment is later than another one of its kind, or the same."""
    if other is None or isinstance(one, float) != isinstance(other, float):
        return False
    return one >= other if or_same else one > other


@dataclass(frozen=True)
class PredictionConfig(TermConfig):
    """A term that compares predictions.

    Attributes:
        via: ``"own_head"``: the student's own predictions are compared with the teacher's, and learn; ``"cross_head"``:
            what the teacher's frozen head makes of the student's tower maps is, and these maps learn (CrossKD, arXiv
            2306.11369). Regions are the student's either way.
    """

    via: Literal["own_head", "cross_head"] = "own_head"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.via not in {"own_head", "cross_head"}:
            raise ConfigError(f"via is {self.via!r}; expected 'own_head' or 'cross_head'.")

    @property
    def crossing(self) -> Over | None:
        """Each image on its own, so that a batch may be split."""
        return "image" if self.via == "cross_head" else None


@dataclass(frozen=True)
class WholeConfig(TermConfig):
    """A term that compares all there is on the images: the fields of regions stay as they are."""

    region: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.place != RegionConfig("all").place:
            raise ConfigError(
                f"The term '{self.kind}' compares whole images; leave its region at 'all', its fields too."
            )


class Term(nn.Module, ABC, Generic[CONFIG]):
    """Base of all terms.

    Args:
        config: Its fields.

    Attributes:
        paper: Where it comes from; cards of the students that it taught cite it.
        learns: What of the student its gradient reaches: ``"cls"``, ``"box"``, ``"features"``, ``"towers"``. All else
            that it looks at is a constant to it.
    """

    paper: ClassVar[Paper | None] = None
    learns: ClassVar[tuple[str, ...]] = ()
    config_class: ClassVar[type[TermConfig]] = TermConfig
    needs: ClassVar[frozenset[str]] = frozenset()  # maps it asks both detectors for: "features", "towers"
    any_grid: ClassVar[bool] = False  # whether the two may stand on different cells: it compares decoded boxes alone

    def __init__(self, config: CONFIG) -> None:
        super().__init__()
        self.config = config

    def setup(self, student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
        """Check that the two detectors can be compared; make adapters.

        Rows and classes need not be the same: `ld_hub.distillation.correspondence` finds what belongs together.

        Args:
            student: Its description, or what the teacher's head makes of it where the term looks through that
                (`ld_hub.distillation.cross_head.spec_through_head`).
            teacher: In the student's terms (`ld_hub.distillation.correspondence.as_seen`).

        Returns:
            Remarks for the user, e.g. that the term is void for these detectors.

        Raises:
            ConfigError: With the field, both values and the way out.
        """
        if not self.any_grid:
            require_common_levels(student, teacher)
        require_region(self.config, student, teacher)
        return []

    def setup_encoder(self, student: DetectorSpec, encoder: EncoderSpec) -> list[str]:
        """As `setup`, where an image encoder teaches; then `forward` gets `MapInputs`.

        Args:
            student: Its description.
            encoder: Its description, strides in px of the student's images.

        Raises:
            ConfigError: If the term needs more of its teacher than maps.
        """
        raise ConfigError(
            f"'{encoder.name}' is an image encoder: it has maps of features, and neither rows nor boxes nor classes, "
            f"which the term '{self.config.kind}' needs of its teacher."
        )

    @abstractmethod
    def forward(self, inputs: TermInputs) -> Tensor:
        """The weighted loss of a batch, a scalar."""

    def loops(self, inputs: TermInputs) -> float:
        """The same number by plain Python loops over images and rows, slow and easy to read.

        It is what tests compare `forward` with, on random batches in which both detectors have the same rows and
        classes. See `ld_hub.distillation.plain`.

        Raises:
            NotImplementedError: If the term has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no second version in loops")


TERMS: Registry[type[Term[TermConfig]]] = Registry("term")
_TERM = TypeVar("_TERM", bound="type[Term[Any]]")


def register_term(term: _TERM) -> _TERM:
    """Class decorator: make a term available to recipes under its configuration's `kind`."""
    TERMS.register(term.config_class.kind, term)
    return term


def kl_divergence(student: Tensor, teacher: Tensor, temperature: float, divisor: int | None) -> Tensor:
    """``T^2 KL(softmax(t / T) || softmax(s / T)) / divisor`` over the last dimension.

    Args:
        student: ``(..., M)`` logits.
        teacher: ``(..., M)`` logits.
        temperature: T.
        divisor: Constant; None divides by M, the mean that the published code takes (reference SPEC 1).
    """
    target = (teacher / temperature).softmax(dim=-1)
    log_p = (student / temperature).log_softmax(dim=-1)
    per_row = F.kl_div(log_p, target, reduction="none").sum(dim=-1)
    return per_row * (temperature**2 / (divisor or student.shape[-1]))


@dataclass(frozen=True)
class SampleMeanConfig(PredictionConfig):
    """A term that is a sum over rows, divided by the positives of the whole optimizer step.

    Attributes:
        count_eps: Added to that count, float32 epsilon in BCKD's code.
    """

    count_eps: float = 0.0

    def published(self: _SAMPLES, reference: str, family: str) -> _SAMPLES:
        """Under ``"bckd"`` only levels with positives count."""
        if reference != "bckd":
            return self
        return replace(self, levels="with_positives", count_eps=torch.finfo(torch.float32).eps)

    def samples(self, inputs: TermInputs) -> Tensor:
        """The sum over images of max(positives, 1), mean over ranks and micro-batches; a scalar of at least 1."""
        return inputs.step_counts().samples.clamp(min=1) + self.count_eps
