"""The device that is asked for, and which machine and libraries made a figure."""

from __future__ import annotations

import os
import platform
from importlib import import_module

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


def program_hardware(package: str, threads: int | None) -> str:
    """As `hardware`, of what runs an exported detector on the CPU.

    Args:
        package: That runs it; it was imported already.
        threads: That it was given; None for its own choice.
    """
    number = "its own number of threads" if threads is None else f"{threads} thread{'s' if threads > 1 else ''}"
    version = import_module(package).__version__
    return f"{_processor()}, {number}; {package} {version}, Python {platform.python_version()}"


def free_memory() -> int:
    """Bytes of main memory that this process may still take: the machine's, or less in a container with a limit."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4  # where nothing tells
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    limit, used = (_lines(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit and used and limit[0].strip() != "max":
        free = min(free, max(0, int(limit[0]) - int(used[0])))
    return free


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8") as stream:
            return stream.readlines()
    except OSError:
        return []


def _processor() -> str:
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
