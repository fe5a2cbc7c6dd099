"""The one place that makes an `accelerate.Accelerator`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, GradientAccumulationPlugin

from ld_hub.engine.train_config import TrainConfig
from ld_hub.errors import ConfigError
from ld_hub.ops.dist import leave

SUPPORTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


def make_accelerator(
    config: TrainConfig, directory: Path, *, trackers: Sequence[Any] = (), find_unused: bool = False
) -> Accelerator:
    """Set devices, processes, precision and trackers up.

    Args:
        config: Settings.
        directory: Where trackers that write files may write.
        trackers: `accelerate.tracking.GeneralTracker` objects of the user's, besides ``config.tracker``.
        find_unused: Let DDP look for parameters without gradient in each step (terms that are not always active).

    Raises:
        ConfigError: If a tracker is not installed, the device does not do the precision, or accelerate was launched
            with something that shards the model (FSDP, DeepSpeed), or each of the launched processes would be a
            run of its own.
    """
    _check_trackers(config.tracker)
    precision = config.precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # an earlier run of this process had another precision; the ranks stay
    launched = "LOCAL_RANK" in os.environ or "WORLD_SIZE" in os.environ
    try:
        accelerator = Accelerator(
            # torchrun says nothing of devices, and accelerate takes ranks without a GPU for runs of their own
            cpu=launched and not torch.accelerator.is_available(),
            mixed_precision=precision,
            log_with=[*config.tracker, *trackers] or None,
            project_dir=str(directory),
            # Micro-steps are counted by the trainer; a plugin outranks what `accelerate launch` may have been told.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=find_unused)],
        )
    except ValueError as error:
        raise ConfigError(f"accelerate cannot run this: {error}") from None
    _check_launch(accelerator)
    if accelerator.distributed_type not in SUPPORTED:
        raise ConfigError(
            f"accelerate was launched as {accelerator.distributed_type}; ld_hub trains in one process or with DDP "
            "(accelerate launch --multi_gpu, or torchrun)."
        )
    if accelerator.mixed_precision == "fp16" and accelerator.scaler is None:
        raise ConfigError(f"precision fp16 needs a GPU, this is '{accelerator.device.type}': use bf16 or no.")
    return accelerator


def _check_launch(accelerator: Accelerator) -> None:
    wanted, found = os.environ.get("WORLD_SIZE", "1"), accelerator.num_processes
    if wanted != str(found):
        raise ConfigError(
            f"WORLD_SIZE says that {wanted} processes were launched, but accelerate set up {found} on "
            f"'{accelerator.device.type}': each would write the same output_dir. Launch with torchrun or accelerate "
            "launch (--cpu on a machine without GPUs), or unset WORLD_SIZE for a single process."
        )


def _check_trackers(names: Sequence[str]) -> None:
    available = [str(getattr(name, "value", name)) for name in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(f"tracker '{name}': accelerate knows {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}.")
        if name not in available:
            raise ConfigError(
                f"tracker '{name}': its package is not installed (pip install {name}). metrics.jsonl needs none."
            )


def fast_bf16(device: torch.device | str = "cpu") -> bool:
    """Whether a device computes in bfloat16 natively, rather than by emulation that is slower than float32."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe is not None and probe() for probe in probes)  # torch has no public question for this


def end_processes() -> None:
    """Wait for the other ranks and end their group, as the last thing of a run."""
    leave()
    PartialState().destroy_process_group()  # else NCCL complains at exit
