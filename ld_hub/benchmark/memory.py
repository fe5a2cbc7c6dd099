"""How much memory a part of the work takes."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass

import torch

_STATUS, _RESET = "/proc/self/status", "/proc/self/clear_refs"


@dataclass(frozen=True)
class Memory:
    """Bytes that a part of the work needed.

    Attributes:
        peak: The most that was in use: tensors of the accelerator, or the resident memory of the process.
        growth: How far the peak rose above what was in use when the part began; None where the system cannot tell. For
            a process it may be less than what was allocated: memory that was freed before is often still resident.
    """

    peak: int
    growth: int | None


class MemoryWatch:
    """Measures the peak of consecutive parts: call `start`, work, call `stop`.

    Exact on CUDA; on Linux the high-water mark of the process's resident memory; elsewhere the peak so far alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self._held = device, 0

    @property
    def what(self) -> str:
        """What is measured, for tables."""
        return "device memory" if self.device.type == "cuda" else "process memory"

    def start(self) -> None:
        """Note what is in use and forget the peak before."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._held = torch.cuda.memory_allocated(self.device)
            return
        try:
            with open(_RESET, "w", encoding="ascii") as file:
                file.write("5")  # proc(5): the high-water mark becomes what is resident now
            self._held = _resident("VmRSS")
        except OSError:
            self._held = 0

    def stop(self) -> Memory:
        """The peak since `start`."""
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            return Memory(peak, peak - self._held)
        if self._held:
            peak = _resident("VmHWM")
            return Memory(peak, max(0, peak - self._held))
        unit = 1 if sys.platform == "darwin" else 1024
        return Memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, None)


def _resident(field: str) -> int:
    """A size of /proc/self/status in bytes."""
    with open(_STATUS, encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{field}:"))
