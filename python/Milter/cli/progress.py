"""A progress bar at a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from types import TracebackType
from typing import TextIO

__all__ = ["Progress"]

_EVERY = 0.1  # seconds
_BAR = 30  # characters
_CLEAR = "\r\x1b[K"


class Progress:
    """How many of `total` are done, as a bar on a stream, standard error if None; nothing unless it
    is a terminal and they are more than a few. `clear` is to be called before anything else is
    printed there."""

    def __init__(self, total: int, *, stream: TextIO | None = None, few: int = 10) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._on = (
            total > few and self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        )
        self._next = time.monotonic() + _EVERY
        self._there = False

    def step(self, done: int) -> None:
        """Shows that so many are done, a few times a second."""
        if not self._on or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        filled = _BAR * done // self._total
        line = f"[{'#' * filled}{'.' * (_BAR - filled)}] {done} of {self._total}"
        self._write(_CLEAR + line[: shutil.get_terminal_size().columns - 1])
        self._there = True

    def clear(self) -> None:
        """Takes the bar away; the next step shows it again."""
        if self._there:
            self._write(_CLEAR)
            self._there = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()
