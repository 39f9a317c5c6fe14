"""What can go wrong between the MTA side and a filter."""

from __future__ import annotations

__all__ = [
    "ConnectError",
    "FilterClosed",
    "FilterError",
    "FilterTimeout",
    "ProtocolError",
    "SessionOver",
]


class FilterError(Exception):
    """Base of all errors here. The text is one line."""


class ConnectError(FilterError):
    """The socket specification is not one, or nobody answers there."""


class SessionOver(FilterError):
    """The session was used after it had ended."""


class ProtocolError(FilterError):
    """The filter broke the protocol.

    step: where ("negotiate", "connect", ... "eom", "close"); what: what was wrong there.
    """

    def __init__(self, step: str, what: str) -> None:
        super().__init__(f"at {step}: {what}")
        self.step = step
        self.what = what


class FilterClosed(ProtocolError):
    """The filter closed the connection when an answer was due."""


class FilterTimeout(ProtocolError):
    """The filter did not answer, or did not read, in time."""
