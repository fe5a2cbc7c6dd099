"""Progress of verbs that do one long thing after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Stages:
    """One progress bar for each stage on a terminal, plain lines in a file."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = console
        self.bar = Progress(
            TextColumn("{task.description:<34}", markup=False),  # names may hold brackets
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Stages:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, title: str, steps: int) -> Callable[[], None]:
        """Begin a stage of so many steps; what is returned is to be called after each."""
        if self.console.is_terminal:
            task = self.bar.add_task(title, total=steps)
            return lambda: self.bar.advance(task)
        return _Lines(title, steps).advance


class _Lines:
    """A line at the start, at each quarter and at the end."""

    def __init__(self, title: str, steps: int) -> None:
        self.title, self.steps, self.done = title, steps, 0
        print(f"{title} ...", flush=True)

    def advance(self) -> None:
        """One more step is done."""
        self.done += 1
        quarter = max(1, self.steps // 4)
        if self.steps > 50 and self.done % quarter == 0:
            print(f"{self.title}: {100 * self.done // self.steps} %", flush=True)
