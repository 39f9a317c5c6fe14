"""A mixin for tests: puts itself before a filter's class, sends messages to it, and records.

    class Tested(TestBase, MyFilter): ...

It is a TestCtx within the object. New tests are better off with `Milter.testing`.
"""

from __future__ import annotations

from email.message import Message
from pathlib import Path
from typing import Any, BinaryIO

from Milter.testctx import TestCtx

__all__ = ["TestBase"]


class _OwnCtx(TestCtx):
    """A context whose object is the mixin: its `connect` is the test's, not the callback."""

    def _find(self, name: str) -> Any:
        return getattr(super(TestBase, self._priv), name)


class TestBase:
    """Drives the filter class that follows it. Records are as those of TestCtx; `_addrcpt` has
    addresses only."""

    __test__ = False
    _test: _OwnCtx

    def __init__(self, logfile: str = "test/milter.log") -> None:
        self._logfile = Path(logfile)
        self._test = _OwnCtx(logfile)
        self._setctx(self._test)  # type: ignore[attr-defined] # the filter's
        self._test._negotiate()

    def log(self, *msg: Any) -> None:
        """Append a line to the log file."""
        with self._logfile.open("a", encoding="utf-8", errors="surrogateescape") as file:
            print(*msg, file=file)

    def setsymval(self, name: str, val: str) -> None:
        """Set a macro for the filter's getsymval."""
        self._test._setsymval(name, val)

    def connect(self, host: str = "localhost", helo: str = "spamrelay", ip: str = "1.2.3.4") -> int:
        """Call connect and hello; returns the first answer that is not CONTINUE."""
        return self._test._connect(host, helo, ip)

    def feedFile(
        self,
        fp: BinaryIO,
        sender: str = "spam@adv.com",
        rcpt: str = "victim@lamb.com",
        *rcpts: str,
    ) -> int:
        """Send a message; ends at the first answer that is not CONTINUE, and returns it."""
        return self._test._feedFile(fp, sender, rcpt, *rcpts)

    def feedMsg(self, fname: str, sender: str = "spam@adv.com", *rcpts: str) -> int:
        """Send the message in the file test/FNAME, or of an absolute path."""
        return self._test._feedMsg(fname, sender, *rcpts)

    @property
    def _addrcpt(self) -> list[str]:
        return [rcpt for rcpt, _ in self._test._addrcpt]

    @property
    def _delrcpt(self) -> list[str]:
        return self._test._delrcpt

    @property
    def _reply(self) -> tuple[Any, ...] | None:
        return self._test._reply

    @property
    def _body(self) -> Any:
        return self._test._body

    @property
    def _bodyreplaced(self) -> bool:
        return self._test._bodyreplaced

    @property
    def _headerschanged(self) -> bool:
        return self._test._headerschanged

    @property
    def _envfromchanged(self) -> bool:
        return self._test._envfromchanged

    @property
    def _msg(self) -> Message | None:
        return self._test._msg

    @property
    def _sender(self) -> str | None:
        return self._test._sender
