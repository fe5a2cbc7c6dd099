"""Weights that transfer: each distillation term pulls as hard as a set share of the detection loss.

Published weights are tuned for COCO. On small data sets the same weight has been measured at 0.1 times and at twice
the detection loss's gradient. Here a term is multiplied by a scale such that the norm of its gradient is its share of
the norm of the detection loss's gradient, both at the head's outputs, so that no backward pass of the network is
needed. Terms on maps are compared at these maps, which costs a backward pass of the head. Which weight a term has does
not matter then, unless it is 0.

Shape: T terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ld_hub.errors import ConfigError
from ld_hub.ops.dist import mean_over_ranks
from ld_hub.optim.losses import squared_pulls
from ld_hub.structures import DenseOutput

# Share of a term without its own: about what box-edge LD has with its published weight on small data (0.3 to 0.5), and
# little enough that the three terms of a recipe together do not outweigh the ground truth.
SHARE = 0.3
EVERY = 5  # optimizer steps between measurements
DECAY = 0.7  # of the moving average per measurement: it looks back on about 15 steps
VOID = 1e-6  # a term with less of the detection loss's gradient than this says nothing but rounding errors


class GradientBalance(nn.Module):
    """Measures the gradients of terms and scales the terms.

    It measures at steps 0, 5, 10, ... and at the first step of a term. What it has found counts from the next
    optimizer step on (`update`), so that all micro-batches and ranks of a step have one scale: the very first step of
    a term is without it.

    Args:
        shares: Norm of each term's gradient over that of the detection loss's, by name of the loss.

    Attributes:
        names: Of the terms, in the order of the buffers.
        scale: ``(T,)`` what the terms are multiplied by; 0 before the first measurement.
        average: ``(T, 2)`` moving averages, begun at 0, of the logarithm of the detection loss's norm over the term's,
            and of 1, by which the former is divided. A logarithm does not let one large gradient count for many.
    """

    shares: Tensor
    scale: Tensor
    average: Tensor

    def __init__(self, shares: Mapping[str, float]) -> None:
        super().__init__()
        self.names = tuple(shares)
        self.register_buffer("shares", torch.tensor(list(shares.values())), persistent=False)
        self.register_buffer("scale", torch.zeros(len(shares)))
        self.register_buffer("average", torch.zeros(len(shares), 2))
        self._measured: Tensor | None = None  # (T, 2) sums over the micro-batches of this step, on this rank

    def forward(
        self,
        output: DenseOutput,
        detection: Mapping[str, Tensor],
        terms: Mapping[str, Tensor],
        factors: Callable[[int], Mapping[str, float]],
        step: int,
    ) -> dict[str, Tensor]:
        """The terms, scaled; in training mode their gradients are measured first, where a measurement is due.

        Args:
            output: The student's predictions and maps, with the graph of all losses.
            detection: Losses against the ground truth, scalars.
            terms: Losses of the terms, scalars.
            factors: How much of each term its schedule lets count at an optimizer step. A share is one of the whole
                term.
            step: 0-based optimizer step.

        Raises:
            ConfigError: If a term acts on nothing that the detection loss depends on.
        """
        now, before = factors(step), factors(step - 1)
        active = [name for name in self.names if now[name] > 0]
        due = step % EVERY == 0 or any(not before[name] for name in active)
        if due and active and self.training and torch.is_grad_enabled():
            self._measure(output, detection, {name: terms[name] for name in active}, now)
        return {name: scale * terms[name] for name, scale in zip(self.names, self.scale.unbind(), strict=True)}

    def _measure(
        self,
        output: DenseOutput,
        detection: Mapping[str, Tensor],
        terms: Mapping[str, Tensor],
        factors: Mapping[str, float],
    ) -> None:
        """Add up the squared norms; those of terms that are not active stay 0."""
        pulls = squared_pulls(output, detection, terms)
        missing = [name for name in terms if name not in pulls]
        if missing:
            raise ConfigError(
                f"balance: the gradients of '{missing[0]}' and of the detection loss meet neither at the outputs "
                "of the head nor at the maps of its towers or of the pyramid, so they cannot be compared: train "
                "without balance."
            )
        none = torch.zeros_like(self.average[0])
        rows = []
        for name in self.names:
            factor = none.new_tensor([factors[name] ** -2, 1.0]) if name in pulls else none
            rows.append(factor * pulls[name].to(none) if name in pulls else none)
        measured = torch.stack(rows)
        self._measured = measured if self._measured is None else self._measured + measured

    @torch.no_grad()
    def update(self) -> None:
        """Take in what this optimizer step has measured, on all ranks; call it once per step, after the last backward.

        A batch is measured as a whole: squared norms add up over its micro-batches and ranks.
        """
        if self._measured is None:
            return
        measured, self._measured = mean_over_ranks(self._measured), None
        term, detection = measured.unbind(dim=1)
        usable = (term > VOID**2 * detection) & measured.isfinite().all(dim=1)  # else nothing is learnt about the term
        found = torch.stack([(detection / term).log() / 2, torch.ones_like(term)], dim=1)
        self.average.copy_(torch.where(usable[:, None], self.average.lerp(found, 1 - DECAY), self.average))
        logarithm, known = self.average.unbind(dim=1)
        self.scale.copy_(torch.where(known > 0, self.shares * (logarithm / known).exp(), 0.0))

    def notes(self) -> dict[str, Tensor]:
        """``scale/TERM`` for the log."""
        return {f"scale/{name}": scale for name, scale in zip(self.names, self.scale.clone().unbind(), strict=True)}
