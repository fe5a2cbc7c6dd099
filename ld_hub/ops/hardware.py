"""The device that is asked for, and which machine and libraries made a figure."""

from __future__ import annotations

import platform

import torch

from ld_hub.errors import ConfigError


def resolve_device(name: str = "auto") -> torch.device:
    """The device of a ``--device`` flag.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` ...; ``"auto"`` takes a GPU where there is one.

    Raises:
        ConfigError: If torch does not know the device or this machine does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"Device '{name}' cannot be used here ({reason}); try auto or cpu.") from error
    return device


def hardware(device: torch.device) -> str:
    """Name of the machine and the libraries, for tables that leave it."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{name}; torch {torch.__version__}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()
