"""What can go wrong between the MTA side and a filter."""

from __future__ import annotations

__all__ = [
    "CallbackError",
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


class CallbackError(FilterError):
    """A callback of a filter in this process raised an exception, which is the __cause__.

    step: the callback's step ("negotiate", "connect", ... "eom", "abort", "close").
    """

    def __init__(self, step: str, cause: BaseException) -> None:
        super().__init__(f"at {step}: the filter raised {type(cause).__name__}: {cause}")
        self.step = step
        self.__cause__ = cause


class ProtocolError(FilterError):
    """The filter broke the protocol.

    step: where ("negotiate", "connect", ... "eom", "close"); what: what was wrong there; kind: a
    word for it, by which a profile says what its MTA does then (Profile.faults).
    """

    kind = "other"

    def __init__(self, step: str, what: str, kind: str | None = None) -> None:
        super().__init__(f"at {step}: {what}")
        self.step = step
        self.what = what
        if kind is not None:
            self.kind = kind


class FilterClosed(ProtocolError):
    """The filter closed the connection when an answer was due; kind is "closed"."""

    kind = "closed"


class FilterTimeout(ProtocolError):
    """The filter did not answer, or did not read, in time; kind is "timeout"."""

    kind = "timeout"
