"""Exit statuses of `milterkit`, and the error that ends a command with one of them."""

from __future__ import annotations

from enum import IntEnum

from Milter.testing import Verdict

__all__ = ["CommandError", "Exit", "Stopped"]


class Exit(IntEnum):
    """The greater, the further from "all is well": of several messages the greatest counts."""

    ACCEPTED = 0
    ERROR = 1
    """A file cannot be read, a filter cannot be loaded or served."""
    USAGE = 2
    """Arguments that are not right."""
    NOTHING = 3
    """There was nothing to do: no message, no recorded session."""
    QUARANTINED = 10
    DISCARDED = 11
    TEMPFAILED = 12
    REJECTED = 13
    PROTOCOL_ERROR = 14
    CANNOT_CONNECT = 15
    INTERRUPTED = 130
    """By Ctrl-C, as shells have it."""

    @classmethod
    def of(cls, verdict: Verdict) -> Exit:
        """The status that tells of a message's verdict."""
        return cls[verdict.name]


class CommandError(Exception):
    """Ends a command: one line of text, and the exit status."""

    def __init__(self, text: str, status: Exit = Exit.ERROR) -> None:
        super().__init__(" ".join(text.split("\n")))
        self.status = status


class Stopped(BaseException):
    """A signal that ends a command came while it had nothing to finish: its status is 0."""
