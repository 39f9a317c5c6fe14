"""A mixin for tests: puts itself before a filter's class, sends messages to it, and records.

    class Tested(TestBase, MyFilter): ...

It is a TestCtx within the object. New tests are better off with `Milter.testing`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import milter

from Milter._decorators import OPTIONAL_CALLBACKS
from Milter.testctx import TestCtx

__all__ = ["TestBase"]


_NO_REPLIES = sum(no_reply for no_reply, _ in OPTIONAL_CALLBACKS.values())


class _OwnCtx(TestCtx):
    """A context whose object is the mixin: its `connect` is the test's, not the callback. No step
    goes without a reply, so that callbacks return CONTINUE, also to a test that calls them."""

    default_opts = (milter.CURR_ACTS, 0x1FFFFF & ~_NO_REPLIES, 0, 0)

    def __init__(self, mixin: Any, logfile: str) -> None:
        super().__init__(logfile)
        self._mixin = mixin
        self._make()

    def _make(self) -> None:
        self._mixin._setctx(self)

    def _methods(self) -> Any:
        return super(TestBase, self._priv)

    def addrcpt(self, rcpt: str, params: str | None = None) -> None:
        super().addrcpt(rcpt, params)
        self._addrcpt[-1] = rcpt

    def _eom(self) -> int:
        result = super()._eom()
        self._call("close")
        return result


def _record(name: str) -> Any:
    """An attribute of the context as one of the mixin, to be read and set."""

    def get(self: TestBase) -> Any:
        return getattr(self._test, name)

    def put(self: TestBase, value: Any) -> None:
        setattr(self._test, name, value)

    return property(get, put)


class TestBase:
    """Drives the filter class that follows it. Records are as those of TestCtx; `_addrcpt` has
    addresses only."""

    __test__ = False
    _test: _OwnCtx

    def __init__(self, logfile: str = "test/milter.log") -> None:
        self._logfile = Path(logfile)
        self._test = _OwnCtx(self, logfile)

    def log(self, *msg: Any) -> None:
        """Append a line to the log file."""
        with self._logfile.open("a", encoding="utf-8", errors="surrogateescape") as file:
            print(*msg, file=file)

    def setsymval(self, name: str, val: str) -> None:
        """Set a macro for the filter's getsymval."""
        self._test._setsymval(name, val)

    # helo and ip are str; Any, for it stands before the filter's own `connect`, which has others
    def connect(self, host: str = "localhost", helo: Any = "spamrelay", ip: Any = "1.2.3.4") -> int:
        """Call connect and hello; returns the first answer that is not CONTINUE."""
        return self._test._connect(host, helo, ip)

    def feedFile(
        self,
        fp: BinaryIO,
        sender: str = "spam@adv.com",
        rcpt: str = "victim@lamb.com",
        *rcpts: str,
    ) -> int:
        """Send a message; ends at the first answer that is not CONTINUE, and returns it.

        After eom it calls close.
        """
        return self._test._feedFile(fp, sender, rcpt, *rcpts)

    def feedMsg(self, fname: str, sender: str = "spam@adv.com", *rcpts: str) -> int:
        """Send the message in the file test/FNAME, or of an absolute path."""
        return self._test._feedMsg(fname, sender, *rcpts)

    _reply = _record("_reply")
    _addrcpt = _record("_addrcpt")
    _delrcpt = _record("_delrcpt")
    _body = _record("_body")
    _bodyreplaced = _record("_bodyreplaced")
    _headerschanged = _record("_headerschanged")
    _msg = _record("_msg")
    _envfromchanged = _record("_envfromchanged")
    _sender = _record("_sender")
    _sender_params = _record("_sender_params")
    _quarantined = _record("_quarantined")
    _macros = _record("_macros")
    _symlist = _record("_symlist")
    _stage = _record("_stage")
