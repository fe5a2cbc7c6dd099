"""What happens to the losses of a step between forward and optimizer: their check and their gradient shares."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ld_hub.errors import NonFiniteLossError
from ld_hub.ops.dist import mean_over_ranks
from ld_hub.structures import DenseOutput

DISTILL = "distill_"  # prefix of the names of distillation terms; everything else is the detection loss


class LossWatch:
    """Losses of one optimizer step, averaged over micro-steps and ranks, on the host before the optimizer moves.

    On an accelerator `send` enqueues the copy to the host right behind the last forward pass and `read` waits for
    that copy only: by then the whole backward pass is queued behind it, so the device does not run dry, and still no
    weight has been touched. The sum over ranks carries NaN and infinity along, so that all ranks stop together.

    Args:
        device: Where the losses are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: tuple[str, ...] = ()
        self._sum = torch.zeros(())
        self._parts = 0
        self._host = torch.empty(0)
        self._copied: torch.cuda.Event | None = None

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take in the losses of one micro-step, the same names in each."""
        values = torch.stack([value.detach().float() for value in losses.values()])
        self._names = tuple(losses)
        self._sum = self._sum + values if self._parts else values
        self._parts += 1

    def send(self) -> None:
        """Start the way to the host; call between the last forward and its backward pass."""
        mean = mean_over_ranks(self._sum / self._parts)
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
        values = dict(zip(self._names, self._host.tolist(), strict=True))
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
    """How hard each distillation term pulls at the head's predictions, against the detection loss.

    Args:
        output: Predictions that the losses were computed from, with their graph.
        losses: Weighted scalars by name; names beginning with ``distill_`` are terms.

    Returns:
        ``{"share/TERM": |d term / d (cls_logits, box)| / |d detection / d (cls_logits, box)|}`` without gradient.
        Terms that do not act on the predictions (feature terms) have no entry.
    """
    detection = [value for name, value in losses.items() if not name.startswith(DISTILL)]
    base = _pull(output, torch.stack(detection).sum()) if detection else None
    if base is None:
        return {}
    shares = {}
    for name, value in losses.items():
        pull = _pull(output, value) if name.startswith(DISTILL) else None
        if pull is not None:
            shares[f"share/{name}"] = pull / base
    return shares


def _pull(output: DenseOutput, loss: Tensor) -> Tensor | None:
    inputs = [part for part in (output.cls_logits, output.box) if part.requires_grad]
    if not inputs or not loss.requires_grad:
        return None
    gradients = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
    parts = [gradient.detach().float().norm() for gradient in gradients if gradient is not None]
    return torch.stack(parts).norm() if parts else None
