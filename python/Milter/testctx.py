"""A connection's context for tests: calls a filter's callbacks directly, and records its actions.

It serves tests that exist. New ones are better off with `Milter.testing`, which speaks the
protocol.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from email.message import Message
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import milter
import mime

from Milter._base import macro_lists
from Milter._decorators import MACRO_CALLBACKS, OPTIONAL_CALLBACKS, symlists
from Milter.testing.draft import Draft, Envelope, Header
from Milter.testing.text import bracketed, to_bytes, to_str

__all__ = ["TestCtx"]

#: Where messages of tests are, for those who name them.
_FOLDER = Path("test")
_CHUNK = 8192  # bytes of a body in one call: tests count them
_PORT = 1234  # of the client


class _Draft(Draft):
    """A message of which a mailbox's separator is left out."""

    def first_line(self, line: bytes) -> Header | None:
        return None


class TestCtx:
    """Stands in for the context of a connection.

    `_connect` makes a new object by `Milter.factory`; `_feedFile` and `_feedMsg` send a message,
    the others are single steps. All return what the callback did, a single step also NOREPLY;
    `_abort`, which ends the connection as well, and `_close` return None. What the filter did is in
    `_reply` (a tuple), `_addrcpt` (address, parameters), `_delrcpt`, `_bodyreplaced`, `_body` (a
    file of the whole message), `_headerschanged`, `_msg` (the message with its headers changed),
    `_envfromchanged`, `_sender`, `_sender_params`, `_quarantined`; in `_symlist`, by stage, the
    names of macros that were asked for. In a callback with such a list, getsymval knows these only.
    """

    __test__ = False  # for pytest: it is no test itself
    #: What is offered in negotiation: actions, protocol options.
    default_opts = (milter.CURR_ACTS, 0x1FFFFF, 0, 0)

    def __init__(self, logfile: str = "test/milter.log") -> None:
        self._logfile = logfile
        self._priv: Any = None
        self._macros: dict[str, str] = {}
        self._symlist: list[set[bytes] | None] = [None] * 7
        self._stage: str | None = None
        self._opts = list(self.default_opts)
        self._protocol = 0
        self._forget()

    def _forget(self) -> None:
        """Take a new message: what was recorded is of the one before."""
        self._reply: tuple[Any, ...] | None = None
        self._addrcpt: list[Any] = []
        self._delrcpt: list[str] = []
        self._body: BytesIO | None = None
        self._body_at = 0
        self._bodyreplaced = False
        self._headerschanged = False
        self._msg: Message | None = None
        self._sender: str | None = None
        self._sender_params: str | None = None
        self._envfromchanged = False
        self._quarantined: str | None = None

    # -------------------------------------------------------------------------- the filter's calls

    def getpriv(self) -> Any:
        """Return the connection's object."""
        return self._priv

    def setpriv(self, priv: Any) -> Any:
        """Set the connection's object; returns the one before."""
        before, self._priv = self._priv, priv
        return before

    def getsymval(self, name: str) -> str | None:
        """Return a macro that `_setsymval` has set, with or without braces, or None.

        In a callback that has asked for macros the others are hidden. (A real MTA sends the usual
        ones with those that @symlist names.)
        """
        plain = name.strip("{}")
        stage = MACRO_CALLBACKS.get(self._stage or "")
        asked = None if stage is None else self._symlist[stage]
        hidden = asked is not None and to_bytes(plain) not in {each.strip(b"{}") for each in asked}
        return None if hidden else self._macros.get(plain)

    def setsymlist(self, stage: int, macros: str) -> None:
        """Record the macros asked for, as bytes; in negotiate only."""
        self._need("negotiate", "setsymlist")
        self._symlist[stage] = _names(macros)

    def setreply(self, rcode: str, xcode: str | None = None, *msg: str | None) -> None:
        """Record the reply."""
        self._reply = (rcode, xcode, *msg)

    def progress(self) -> None:
        """Do nothing: nobody waits."""

    def mta_gone(self) -> bool:
        """Return False: the test is there."""
        return False

    def _need(self, stage: str, action: str) -> None:
        if self._stage != stage:
            raise milter.error(f"{action} not called from {stage}()")

    def _headers(self, name: str) -> list[int]:
        assert self._msg is not None
        return [at for at, (key, _) in enumerate(_pairs(self._msg)) if key.lower() == name.lower()]

    def addheader(self, field: str, value: str | bytes, idx: int = -1) -> None:
        """Add a header to `_msg`, or insert it at idx."""
        self._need("eom", "addheader")
        assert self._msg is not None
        pairs = _pairs(self._msg)
        pairs.insert(len(pairs) if idx < 0 else max(idx - 1, 0), (field, _text(value)))
        self._headerschanged = True

    def chgheader(self, field: str, idx: int, value: str | bytes | None) -> None:
        """Change the idx-th header of that name in `_msg`; "" and None delete it."""
        self._need("eom", "chgheader")
        assert self._msg is not None
        pairs = _pairs(self._msg)
        places = self._headers(field)
        if value and idx > len(places):
            pairs.append((field, _text(value)))
        elif 1 <= max(idx, 1) <= len(places):
            at = places[max(idx, 1) - 1]
            pairs[at : at + 1] = [(pairs[at][0], _text(value))] if value else []
        self._headerschanged = True

    def addrcpt(self, rcpt: str, params: str | None = None) -> None:
        """Record a recipient to add."""
        self._need("eom", "addrcpt")
        self._addrcpt.append((rcpt, params))

    def delrcpt(self, rcpt: str) -> None:
        """Record a recipient to remove."""
        self._need("eom", "delrcpt")
        self._delrcpt.append(rcpt)

    def chgfrom(self, sender: str, params: str | None = None) -> None:
        """Record another sender, and its ESMTP parameters."""
        self._need("eom", "chgfrom")
        self._envfromchanged = True
        self._sender = sender
        self._sender_params = params

    def quarantine(self, reason: str) -> None:
        """Record why the message is to be held."""
        self._need("eom", "quarantine")
        self._quarantined = reason

    def replacebody(self, chunk: bytes | str) -> None:
        """Put a new body into `_body`; further calls append to it."""
        self._need("eom", "replacebody")
        assert self._body is not None
        if not self._bodyreplaced:
            self._bodyreplaced = True
            self._body.seek(self._body_at)
            self._body.truncate()
        self._body.write(to_bytes(chunk) if isinstance(chunk, str) else chunk)

    # ------------------------------------------------------------------------------ the MTA's side

    def _methods(self) -> Any:
        """What has the filter's callbacks."""
        return self._priv

    def _call(self, name: str, *args: Any) -> int:
        """Call a callback, unless it was negotiated that it is not wanted; returns its answer."""
        bits = OPTIONAL_CALLBACKS.get(name.removesuffix("_bytes"), (0, 0))
        if self._protocol & bits[1]:
            return milter.CONTINUE
        self._stage = name.removesuffix("_bytes")
        try:
            result: int = getattr(self._methods(), name)(*args)
        finally:
            self._stage = None
        return result

    def _setsymval(self, name: str, val: str) -> None:
        self._macros[name.strip("{}")] = val

    def _make(self) -> None:
        """Make the connection's object."""
        import Milter  # noqa: PLC0415 - its factory as it is at this moment

        Milter.factory()._setctx(self)

    def _negotiate(self) -> int:
        self._make()
        self._symlist = [None] * 7
        self._opts = list(self.default_opts)
        result = self._call("negotiate", self._opts)
        self._protocol = self._opts[1] if result != milter.ALL_OPTS else 0
        self._leave_out_usual()
        return result

    def _leave_out_usual(self) -> None:
        """Keep of the lists what @symlist names, without the usual ones that are sent with it."""
        asked = {MACRO_CALLBACKS[name]: names for name, names in symlists(self._methods()).items()}
        for stage, sent in macro_lists(self._methods()).items():
            if self._symlist[stage] in (None, _names(" ".join(sent))):  # not the filter's own
                self._symlist[stage] = _names(" ".join(asked[stage])) if stage in asked else None

    def _connect(
        self, host: str = "localhost", helo: str | None = "spamrelay", ip: str = "1.2.3.4"
    ) -> int:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        try:
            socket.inet_pton(family, ip)
        except OSError as error:
            raise ValueError(f"TestCtx.connect: invalid ip address: {ip}") from error
        result = self._negotiate()
        if result in (milter.CONTINUE, milter.ALL_OPTS):
            address = (ip, _PORT, 0, 0) if family == socket.AF_INET6 else (ip, _PORT)
            result = _answer(self._call("connect", host, family, address))
        if result == milter.CONTINUE and helo is not None:
            result = _answer(self._helo(helo))
        if result != milter.CONTINUE:
            self._close()
        return result

    def _helo(self, helo: str) -> int:
        return self._call("hello", helo)

    def _envfrom(self, *s: str) -> int:
        self._forget()
        self._sender = s[0]
        return self._call("envfrom_bytes", *map(to_bytes, s))

    def _envrcpt(self, *s: str) -> int:
        return self._call("envrcpt_bytes", *map(to_bytes, s))

    def _data(self) -> int:
        return self._call("data")

    def _header(self, fld: str, val: str | bytes) -> int:
        return self._call("header_bytes", fld, to_bytes(val) if isinstance(val, str) else val)

    def _eoh(self) -> int:
        return self._call("eoh")

    def _feed_body(self, bfp: BinaryIO) -> int:
        while chunk := bfp.read(_CHUNK):
            result = _answer(self._call("body", chunk))
            if result == milter.SKIP:
                break
            if result != milter.CONTINUE:
                return result
        return milter.CONTINUE

    def _eom(self) -> int:
        if self._body is None:  # what eom changes where a test goes step by step
            self._body = BytesIO()
            self._msg = mime.message_from_file(BytesIO())
        return self._call("eom")

    def _abort(self) -> None:
        self._call("abort")
        self._close()

    def _close(self) -> None:
        if self._priv is None:  # a test that cleans up, whether it has connected or not
            return
        try:
            self._call("close")
        finally:
            self._priv._setctx(None)

    def _feedFile(
        self,
        fp: BinaryIO,
        sender: str = "spam@adv.com",
        rcpt: str = "victim@lamb.com",
        *rcpts: str,
    ) -> int:
        """Send a message; ends at the first answer that is not CONTINUE, and returns it."""
        content = fp.read()
        draft = _Draft(content, Envelope(sender, (rcpt, *rcpts)))
        body_at = draft._body_at
        if draft._first_line:  # it is no header, and has been read already
            body_at = content.rfind(b"\n", 0, max(body_at - 1, 0)) + 1
        result = _answer(self._envfrom(bracketed(sender)))
        self._msg = mime.message_from_file(BytesIO(content))
        self._body_at = body_at
        rest: list[Callable[[], int]] = [
            *(partial(self._envrcpt, bracketed(each)) for each in (rcpt, *rcpts)),
            self._data,
            *(partial(self._header, to_str(name), value) for name, value in draft.wire_headers()),
            self._eoh,
            partial(self._feed_body, BytesIO(content[body_at:])),
        ]
        for step in rest:
            if result != milter.CONTINUE:  # None too, of a callback that returns nothing
                return result
            result = _answer(step())
        if result != milter.CONTINUE:
            return result
        self._body = BytesIO()
        self._body.write(content)
        return self._eom()

    def _feedMsg(self, fname: str, sender: str = "spam@adv.com", *rcpts: str) -> int:
        """Send the message in the file test/FNAME, or of an absolute path."""
        with (_FOLDER / fname).open("rb") as file:
            return self._feedFile(file, sender, *rcpts)


def _answer(result: int) -> int:
    """Return what an answer means for what follows."""
    return milter.CONTINUE if result == milter.NOREPLY else result


def _pairs(msg: Message) -> list[tuple[str, str]]:
    """The headers of a message, to be changed in place."""
    pairs: list[tuple[str, str]] = msg._headers  # type: ignore[attr-defined]
    return pairs


def _names(macros: str) -> set[bytes]:
    """A list of macros as it is recorded."""
    return set(to_bytes(macros).split())


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else to_str(value or b"")
