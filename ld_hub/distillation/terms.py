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
from ld_hub.structures import DetectorSpec

CONFIG = TypeVar("CONFIG", bound="TermConfig")
_SAMPLES = TypeVar("_SAMPLES", bound="SampleMeanConfig")


@dataclass(frozen=True)
class TermConfig(RegionConfig):
    """What every term has, beside where it looks (`RegionConfig`).

    Attributes:
        weight: Factor of the term in the loss.
        share: Where terms are balanced by their gradients: size of this term's gradient as a share of the detection
            loss's. None takes the trainer's one number for all terms. Without balance it has no effect.
        first_step: First optimizer step at which the term counts, 0-based.
        last_step: Last such step; None means to the end.
        decay: ``"cosine"`` lets the term fade from its whole strength at first_step to 0 at last_step.
    """

    kind: ClassVar[str] = ""
    weight: float = 1.0
    share: float | None = None
    first_step: int = 0
    last_step: int | None = None
    decay: Literal["none", "cosine"] = "none"

    def __post_init__(self) -> None:
        for name in ("weight", "share"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"{name} is {value!r}; expected a finite number of at least 0.")
        if self.first_step < 0 or (self.last_step is not None and self.last_step < self.first_step):
            raise ConfigError(
                f"first_step is {self.first_step} and last_step {self.last_step}; both are at least 0, in this order."
            )
        if self.decay not in {"none", "cosine"}:
            raise ConfigError(f"decay is {self.decay!r}; expected 'none' or 'cosine'.")
        if self.decay == "cosine" and (self.last_step is None or self.last_step == self.first_step):
            raise ConfigError(
                f"decay is 'cosine' and last_step {self.last_step}; expected a step after first_step "
                f"({self.first_step}), at which the term has faded out, e.g. the run's last."
            )
        super().__post_init__()

    def factor(self, step: int) -> float:
        """How much of the term counts at an optimizer step, from 0 to 1."""
        if step < self.first_step or (self.last_step is not None and step > self.last_step):
            return 0.0
        if self.decay == "none" or self.last_step is None:
            return 1.0
        return (1 + math.cos(math.pi * (step - self.first_step) / (self.last_step - self.first_step))) / 2

    def published(self: CONFIG, reference: str, family: str) -> CONFIG:
        """The same term as a code base (``"ld"`` or ``"bckd"``) computes it for a family of detectors."""
        return self


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
    """

    paper: ClassVar[Paper | None] = None
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
            student: Its description.
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
class SampleMeanConfig(TermConfig):
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
