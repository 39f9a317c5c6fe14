"""Milter.testctx and Milter.test: what a filter sees and does is the same as in Milter.testing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import Milter
import pytest
from Milter.test import TestBase
from Milter.testctx import TestCtx
from Milter.testing import MTA, Client

CONTENT = (
    b"Received: from a\r\n\tby b\r\nSubject: Hi\r\nX-A: 1\r\nX-A: 2\r\n\r\nline one\r\nline two\r\n"
)
seen: list[Any] = []


class Filter(Milter.Base):
    def connect(self, hostname: str, family: int, hostaddr: Any) -> int:
        seen.append(("connect", hostname, int(family), hostaddr[0]))
        return Milter.CONTINUE

    @Milter.noreply
    def hello(self, hostname: str) -> int:
        seen.append(("hello", hostname))
        return Milter.CONTINUE

    def envfrom(self, f: str, *params: str) -> int:
        seen.append(("envfrom", f))
        return Milter.CONTINUE

    def envrcpt(self, to: str, *params: str) -> int:
        seen.append(("envrcpt", to))
        return Milter.CONTINUE

    def header(self, field: str, value: str) -> int:
        seen.append(("header", field, value))
        return Milter.REJECT if value == "refused" else Milter.CONTINUE

    def body(self, blk: bytes) -> int:
        seen.append(("body", blk))
        return Milter.CONTINUE

    def eom(self) -> int:
        seen.append(("eom", self.getsymval("x"), self.getsymval("{x}")))
        self.addheader("X-New", "v")
        self.chgheader("X-A", 2, "two")
        self.chgheader("Subject", 1, "")
        self.addrcpt("<q@r>")
        self.delrcpt("<victim@lamb.com>")
        self.chgfrom("<n@n>")
        self.replacebody(b"new ")
        self.replacebody("body\r\n")
        self.quarantine("why")
        return Milter.ACCEPT


class Mixed(TestBase, Filter):
    pass


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    seen.clear()
    monkeypatch.setattr(Milter, "factory", Filter)


def by_protocol(content: bytes) -> tuple[list[Any], Any]:
    client = Client("localhost", "1.2.3.4", 1234)
    with MTA(Filter, macros={"x": "y"}) as mta:
        result = mta.send(
            content, "spam@adv.com", ["victim@lamb.com"], client=client, helo="spamrelay"
        )
    told = list(seen)
    seen.clear()
    return told, result


def test_the_context_agrees_with_the_protocol() -> None:
    told, result = by_protocol(CONTENT)
    ctx = TestCtx()
    ctx._setsymval("{x}", "y")
    assert ctx._connect() == Milter.CONTINUE
    assert ctx._feedFile(io.BytesIO(CONTENT)) == Milter.ACCEPT
    assert seen == told
    assert ctx._msg is not None
    assert ctx._body is not None
    assert list(ctx._msg) == ["Received", "X-A", "X-A", "X-New"]
    assert ctx._msg.get_all("X-A") == ["1", "two"]
    assert ctx._body.getvalue().endswith(b"\r\n\r\nnew body\r\n")
    assert result.message.endswith(b"\r\n\r\nnew body\r\n")
    assert ctx._sender == "<n@n>"
    assert ctx._addrcpt == [("<q@r>", None)]
    assert ctx._delrcpt == ["<victim@lamb.com>"]
    assert result.envelope.rcpts == ("q@r",)
    assert result.envelope.sender == "n@n"
    assert ctx._quarantined == "why"
    assert (ctx._headerschanged, ctx._envfromchanged, ctx._bodyreplaced) == (True, True, True)


def test_the_mixin_agrees_with_the_protocol(tmp_path: Path) -> None:
    told, _ = by_protocol(CONTENT)
    mixed = Mixed(str(tmp_path / "log"))
    mixed.setsymval("x", "y")
    assert mixed.connect() == Milter.CONTINUE
    (tmp_path / "message").write_bytes(CONTENT)
    assert mixed.feedMsg(str(tmp_path / "message")) == Milter.ACCEPT
    assert seen == told
    assert mixed._addrcpt == ["<q@r>"]
    assert mixed._bodyreplaced
    mixed.log("a", 1)
    assert (tmp_path / "log").read_text() == "a 1\n"


def test_an_answer_ends_the_message() -> None:
    ctx = TestCtx()
    assert ctx._connect(ip="::1") == Milter.CONTINUE
    assert ctx._feedFile(io.BytesIO(b"A: refused\nB: c\n\nx\n")) == Milter.REJECT
    assert seen[-1] == ("header", "A", "refused")
    with pytest.raises(ValueError, match="invalid ip address: unix"):
        TestCtx()._connect(ip="unix")


@pytest.mark.parametrize("separator", [b"", b"From a@b Mon Jan  1 00:00:00 2024\n"])
def test_a_message_from_a_mailbox(separator: bytes) -> None:
    ctx = TestCtx()
    ctx._connect()
    seen.clear()
    ctx._feedFile(io.BytesIO(separator + b"Subject: Hi\n\nline\n"))
    assert seen[2:4] == [("header", "Subject", "Hi"), ("body", b"line\n")]
    assert ctx._body is not None
    assert ctx._body.getvalue() == separator + b"Subject: Hi\n\nnew body\r\n"


def test_macros_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asking(Milter.Base):
        @Milter.symlist("{rcpt_shutdown}", "{auth_type}")
        def envrcpt(self, to: str, *params: str) -> int:
            return Milter.CONTINUE

    monkeypatch.setattr(Milter, "factory", Asking)
    ctx = TestCtx()
    ctx._connect()
    expected: list[set[bytes] | None] = [None] * 7
    expected[Milter.M_ENVRCPT] = {b"{rcpt_shutdown}", b"{auth_type}"}
    assert ctx._symlist == expected


def test_a_message_step_by_step() -> None:
    ctx = TestCtx()
    ctx._connect()
    ctx._envfrom("<a@b>")
    assert ctx._envrcpt("<c@d>") == Milter.CONTINUE
    ctx._header("Subject", "Hi")
    ctx._eoh()
    ctx._feed_body(io.BytesIO(b"x" * 8193))
    assert [len(data) for step, data in seen[-2:] if step == "body"] == [8192, 1]
    assert ctx._eom() == Milter.ACCEPT
    assert ctx._msg is not None
    assert ctx._msg["X-New"] == "v"
    assert ctx._body is not None
    assert ctx._body.getvalue() == b"new body\r\n"


def test_nothing_returned_ends_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Milter.Base):
        def envfrom(self, f: str, *params: str) -> int:
            return None  # type: ignore[return-value]

        def header(self, field: str, value: str) -> int:
            raise AssertionError

    monkeypatch.setattr(Milter, "factory", Forgetful)
    ctx = TestCtx()
    ctx._connect()
    assert ctx._feedFile(io.BytesIO(CONTENT)) is None


def test_cleaning_up_without_a_connection() -> None:
    ctx = TestCtx()
    ctx._close()
    with pytest.raises(ValueError, match="invalid ip address"):
        ctx._connect(ip="unix")
    ctx._close()
    assert ctx.getpriv() is None


def test_actions_have_their_place() -> None:
    ctx = TestCtx()
    for act in (lambda: ctx.addheader("a", "b"), lambda: ctx.quarantine("x")):
        with pytest.raises(Milter.error, match="not called from eom"):
            act()
