"""What happens to the losses of a step between forward and optimizer: their check and their gradients' sizes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ld_hub.errors import NonFiniteLossError
from ld_hub.ops.dist import mean_over_ranks
from ld_hub.structures import DenseOutput

DISTILL = "distill_"  # prefix of the names of distillation terms; everything else is the detection loss
NOTES = ("share/", "scale/")  # prefixes of what a task says beside its losses
LIFT = 1024.0  # keeps gradients of half-precision maps above underflow


class LossWatch:
    """Losses of one optimizer step, averaged over micro-steps and ranks, on the host before the optimizer moves.

    On an accelerator `send` enqueues the copy to the host right behind the last forward pass and `read` waits for
    that copy only: by then the whole backward pass is queued behind it, so the device does not run dry, and still no
    weight has been touched. The sum over ranks carries NaN and infinity along, so that all ranks stop together.

    Args:
        device: Where the losses are computed.

    Attributes:
        asked: Whether some rank has asked for something in the step whose losses were read last.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: tuple[str, ...] = ()
        self._sum = torch.zeros(())
        self._parts = 0
        self._host = torch.empty(0)
        self._copied: torch.cuda.Event | None = None
        self.asked = False

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take in the losses of one micro-step, the same names in each."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        self._names = tuple(losses)
        self._sum = self._sum + values if self._parts else values
        self._parts += 1

    def send(self, asks: bool = False) -> None:
        """Start the way to the host; call between the last forward and its backward pass.

        Args:
            asks: Whether this rank asks for something; all ranks learn it with the losses.
        """
        asking = torch.full((1,), float(asks), device=self._sum.device)
        mean = mean_over_ranks(torch.cat([self._sum / self._parts, asking]))
        self._sum, self._parts = torch.zeros(()), 0
        if self._device.type != "cuda":
            self._host = mean.cpu()
            return
        self._host = torch.empty(mean.shape, dtype=mean.dtype, pin_memory=True)
        self._host.copy_(mean, non_blocking=True)
        self._copied = torch.cuda.Event()
        self._copied.record()

    def read(self, step: int) -> dict[str, float]:
        """Return the losses; call before the optimizer step.

        Args:
            step: 1-based number of the optimizer step, for the message.

        Raises:
            NonFiniteLossError: If a loss is NaN or infinite on any rank; names the terms.
        """
        if self._copied is not None:
            self._copied.synchronize()
        *losses, asking = self._host.tolist()
        self.asked = asking > 0
        values = dict(zip(self._names, losses, strict=True))
        bad = [name for name, value in values.items() if not torch.isfinite(torch.tensor(value))]
        if bad:
            shown = ", ".join(f"{name} = {value:.4g}" for name, value in values.items())
            raise NonFiniteLossError(
                f"{' and '.join(bad)} became {'NaN' if values[bad[0]] != values[bad[0]] else 'infinite'} at step "
                f"{step} ({shown}). The optimizer step was not made. Lower lr, set clip_grad_norm, lengthen "
                "warmup_steps, or use precision bf16 in place of fp16; --resume continues from the last checkpoint."
            )
        return values


def gradient_shares(output: DenseOutput, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How hard each distillation term pulls, against the detection loss.

    Args:
        output: Predictions that the losses were computed from, with their graph.
        losses: Weighted scalars by name; names beginning with ``distill_`` are terms.

    Returns:
        ``{"share/TERM": |d term / d x| / |d detection / d x|}`` without gradient, where x are the predictions
        (cls_logits, box) or, for terms that act on maps alone, these maps. Terms on neither have no entry.
    """
    detection = {name: value for name, value in losses.items() if not name.startswith(DISTILL)}
    terms = {name: value for name, value in losses.items() if name.startswith(DISTILL)}
    pulls = squared_pulls(output, detection, terms)
    return {f"share/{name}": (pull[0] / pull[1]).sqrt() for name, pull in pulls.items()}


def squared_pulls(
    output: DenseOutput, detection: Mapping[str, Tensor], terms: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Squared norms of the gradients of terms and of the detection loss, where each term acts.

    Args:
        output: Predictions and maps that the losses were computed from, with their graph, which is kept.
        detection: Losses against the ground truth, scalars.
        terms: Losses of distillation terms, scalars.

    Returns:
        ``(2,)`` by term, without gradient: the term's and the detection loss's at the first of these places that the
        term depends on: class logits and boxes, maps at the taps of the head's towers, pyramid maps. Both are
        multiplied by the same power of two. Terms without a place that they share with the detection loss are left
        out.
    """
    if not detection:
        return {}
    base: dict[int, Tensor | None] = {}
    whole, places, pulls = torch.stack(list(detection.values())).sum(), _places(output), {}
    for name, value in terms.items():
        for index, place in enumerate(places):
            term = _squared_pull(place, value)
            if term is None:
                continue
            if index not in base:
                base[index] = _squared_pull(place, whole)
            reference = base[index]
            if reference is not None:
                pulls[name] = torch.stack([term, reference])
            break
    return pulls


def _places(output: DenseOutput) -> list[list[Tensor]]:
    towers = [part for pair in output.towers or () for part in pair]
    groups = ([output.cls_logits, output.box], towers, list(output.features or ()))
    return [[part for part in group if part.requires_grad] for group in groups]


def _squared_pull(place: list[Tensor], loss: Tensor) -> Tensor | None:
    if not place or not loss.requires_grad:
        return None
    gradients = torch.autograd.grad(LIFT * loss, place, retain_graph=True, allow_unused=True)
    parts = [g.to(torch.promote_types(g.dtype, torch.float32)).square().sum() for g in gradients if g is not None]
    return torch.stack(parts).sum() if parts else None
