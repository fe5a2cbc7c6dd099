"""What is kept of a step whose loss is no number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ld_hub.engine.checkpoint import RunDirectory
from ld_hub.hub.weights_file import save_safetensors
from ld_hub.structures import ImageBatch

FOLDER = "nonfinite"  # of a run directory
_SHOWN = 16  # ids in a message


def keep_batches(run: Path, step: int, rank: int, batches: Sequence[ImageBatch]) -> None:
    """Write what a rank was trained on in a step: ``nonfinite/step_00000007_rank0.safetensors``.

    Tensors are ``0.images`` ``(N, K, H, W)``, normalised, ``0.image_ids``, ``0.boxes`` and ``0.labels`` of the first
    micro-batch, ``1.images`` of the second.

    Args:
        run: Directory of the run.
        step: 1-based.
        rank: Of the process.
        batches: Micro-batches.
    """
    tensors: dict[str, Tensor] = {}
    for index, batch in enumerate(batches):
        tensors |= {f"{index}.images": batch.images, f"{index}.image_ids": torch.tensor(batch.image_ids)}
        if batch.targets is not None:
            tensors |= {f"{index}.boxes": batch.targets.boxes, f"{index}.labels": batch.targets.labels}
    save_safetensors(tensors, run / FOLDER / f"step_{step:08d}_rank{rank}.safetensors", finite=False)


def describe(run: RunDirectory, step: int, ids: Sequence[int]) -> str:
    """Where the step was kept, which images were in it, and what was saved before.

    Args:
        run: The run.
        step: 1-based.
        ids: Of the images of all ranks.
    """
    shown = ", ".join(map(str, ids[:_SHOWN])) + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
    saved = run.checkpoints()
    last = f"the last checkpoint is '{saved[-1]}'" if saved else "no checkpoint was written yet"
    return f"It was on the images with the ids {shown}, kept in '{run.path / FOLDER}/step_{step:08d}_rank*'; {last}."


class Buffers:
    """Running statistics and the like as they were before a step, which a bad batch would spoil.

    Args:
        module: Whose buffers.
    """

    def __init__(self, module: nn.Module) -> None:
        self._kept = [(buffer, buffer.clone()) for buffer in module.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back."""
        for buffer, before in self._kept:
            buffer.copy_(before)
