"""How a run ends before its end: on a signal or a time limit, after a whole step, and saved."""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGUSR1": 0, "SIGHUP": 0}  # exit codes by what may be sent
FAILED = 2  # where the last step could not be saved
TIME_LIMIT = "max_minutes"
SAVE = "save_every_minutes"


class LeftEarly(KeyboardInterrupt):
    """A run was asked to end, and has saved what it did.

    Attributes:
        code: Of the process that ends with it.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Limits:
    """When a run saves or ends by the clock.

    Attributes:
        save_every: Minutes between checkpoints; None without.
        most: Minutes that this part of the run may last; None without.
    """

    save_every: float | None = None
    most: float | None = None


class Wishes:
    """What one rank has been asked for, by signals and by the clock; `agreed` says what all ranks do about it.

    Args:
        limits: By the clock.
        say: Tells the user.
        now: Seconds of a clock that only goes forwards.
    """

    def __init__(self, limits: Limits, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._say, self._now = limits, say, now
        self._began = self._saved = now()
        self._signal = ""
        self._at_once = False

    def wish(self) -> str:
        """A signal's name, `TIME_LIMIT`, `SAVE`, or the empty string."""
        if self._signal:
            return self._signal
        now, limits = self._now(), self._limits
        if limits.most is not None and now - self._began >= 60 * limits.most:
            return TIME_LIMIT
        return SAVE if limits.save_every is not None and now - self._saved >= 60 * limits.save_every else ""

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saved = self._now()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as wishes; a second one ends the process as if nobody listened. In other threads: do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {}
        for name in CODES:
            number = getattr(signal, name, None)  # Windows has two of them
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                before[number] = signal.signal(number, self._heard)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal need not wait here: everything is saved, and no other rank waits for this one.

        Raises:
            LeftEarly: When one comes, or has come.
        """
        self._at_once = True
        try:
            if self._signal:
                raise LeftEarly(self._signal, CODES[self._signal])
            yield
        finally:
            self._at_once = False

    def _heard(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._signal:  # the second one
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self._signal = name
        if self._at_once:
            raise LeftEarly(name, CODES[name])
        self._say(f"{name}: the step is finished and saved; a second signal ends at once.")


def agreed(wishes: Sequence[str]) -> str:
    """What all ranks do, where each has wishes of its own: to leave is more than to save."""
    return next((wish for wish in (*CODES, TIME_LIMIT, SAVE) if wish in wishes), "")


def leave(wish: str, saved: bool) -> None:
    """End here.

    Args:
        wish: What of all ranks is done.
        saved: Whether the last step was saved.

    Raises:
        LeftEarly: Always.
    """
    why = "the time is up (max_minutes)" if wish == TIME_LIMIT else wish
    raise LeftEarly(why if saved else f"{why}, NOT SAVED,", CODES.get(wish, 0) if saved else FAILED)


def continued_by(run: Path) -> str:
    """The command that continues a run, as far as its start is known.

    Args:
        run: Directory of the run.
    """
    places = [place / "command.txt" for place in (run, *run.parents)]  # a student of a comparison lies in its run
    file = next((each for each in places[:4] if each.is_file()), None)
    lines = [] if file is None else file.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines:
        return f"TrainConfig(output_dir={str(run)!r}, resume=True) continues it."
    words = lines[-1] if "--resume" in shlex.split(lines[-1]) else f"{lines[-1]} --resume"
    return f"Continue it:\n  {words}"
