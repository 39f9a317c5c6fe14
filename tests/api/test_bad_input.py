"""Peers that break the protocol, vanish, or speak something else: one log line that says what, that
connection closed with the callbacks that are owed, everybody else served on."""

from __future__ import annotations

import contextlib
import struct

import pytest

from .conftest import Program, Start
from .mta import Mta, option_packet, packet, strings

# The log goes to a file of its own lines: "LEVEL text".
LOGGED = """
import logging
class ToRecord(logging.Handler):
    def emit(self, line): record("log", line.levelname, line.getMessage())
logging.getLogger("Milter").addHandler(ToRecord())
logging.getLogger("Milter").setLevel(logging.WARNING)
class Filter(Seen):
    def envrcpt(self, to, *params): return Milter.CONTINUE
run(Filter)
"""

IN_MESSAGE = packet("M", strings("<a@b>"))

# What is sent after the negotiation (None: instead of it); what the log line must name; which
# callbacks are owed besides close.
BAD = {
    "HTTP": (None, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP", []),
    "TLS": (None, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), "packet", []),
    "SMTP": (None, b"EHLO example.org\r\n", "packet", []),
    "version 1": (None, option_packet(1, 0x1FF, 0x1FFFFF), "version 1", []),
    "version 0": (None, option_packet(0, 0x1FF, 0x1FFFFF), "version 0", []),
    "short options": (None, packet("O", bytes(11)), "OPTNEG", []),
    "length 0": (b"", b"\0\0\0\0H", "length 0", []),
    "length 0 in a message": (IN_MESSAGE, b"\0\0\0\0N", "length 0", ["envfrom", "abort"]),
    "2 GB": (IN_MESSAGE, b"\x7f\xff\xff\xffB", "BODY", ["envfrom", "abort"]),
    "4 GB": (IN_MESSAGE, b"\xff\xff\xff\xffN", "EOH", ["envfrom", "abort"]),
    "unknown command": (b"", packet("Z"), "Z", []),
    "command 0": (b"", packet("\0"), "0x00", []),
    "command 255": (b"", packet("\xff"), "0xff", []),
    "empty HELO": (b"", packet("H"), "HELO", []),
    "unterminated HELO": (b"", packet("H", b"me"), "HELO", []),
    "empty MAIL": (b"", packet("M"), "MAIL", []),
    "unterminated MAIL": (b"", packet("M", b"<a>"), "MAIL", ["abort"]),
    "empty RCPT": (IN_MESSAGE, packet("R"), "RCPT", ["envfrom", "abort"]),
    "empty body": (IN_MESSAGE + packet("R", b"<c>\0"), packet("B"), "BODY", ["envfrom", "abort"]),
    "header without value": (
        IN_MESSAGE + packet("R", b"<c>\0"),
        packet("L", b"Name\0"),
        "HEADER",
        ["envfrom", "abort"],
    ),
    "header without name": (
        IN_MESSAGE + packet("R", b"<c>\0"),
        packet("L", b"\0value\0"),
        "HEADER",
        ["envfrom", "abort"],
    ),
    "address of no family": (b"", packet("C", b"h\0X\0\x191.2.3.4\0"), "CONNECT", []),
    "address of another family": (b"", packet("C", b"h\x004\0\x19::1\0"), "CONNECT", []),
    "no address": (b"", packet("C", b"h\x004"), "CONNECT", []),
    "unterminated address": (b"", packet("C", b"h\x004\0\x191.2.3.4"), "CONNECT", []),
    "long path": (b"", packet("C", b"h\0L\0\0/" + b"x" * 200 + b"\0"), "CONNECT", []),
}

OURS = pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)


def one_log_line(program: Program) -> str:
    program.until(lambda: "log" in program.steps())
    ((_, level, text),) = [what for what in program.seen() if what[0] == "log"]
    assert level in ("WARNING", "ERROR")
    assert "testfilter" in text
    assert "\n" not in text
    return str(text)


def is_served(mta: Mta) -> None:
    """A whole short message goes through."""
    assert mta.helo("healthy") == "c"
    assert mta.mail("<x@y>") == "c"
    assert mta.rcpt("<z@y>") == "c"
    assert mta.eom() == [("c", b"")]


@OURS
@pytest.mark.parametrize("name", BAD)
def test_a_broken_packet(start: Start, name: str) -> None:
    before, bad, word, owed = BAD[name]
    program = start(LOGGED)
    healthy = program.connect()
    healthy.negotiate()
    mta = program.connect()
    if before is not None:
        mta.negotiate()
        mta.raw(before)
        for _ in range(before.count(b"<")):
            assert mta.receive() == ("c", b"")
    mta.raw(bad)
    assert mta.is_closed()
    assert word in one_log_line(program)
    steps = [step for step in program.steps() if step != "log"]
    program.until(lambda: "close" in program.steps() or before is None)
    steps = [step for step in program.steps() if step not in ("log", "close")]
    assert steps == owed
    is_served(healthy)
    other = program.connect()
    other.negotiate()
    is_served(other)


@pytest.mark.parametrize(
    "name", ["HTTP", "version 1", "2 GB", "unknown command", "empty HELO", "address of no family"]
)
def test_a_broken_packet_closes(start: Start, name: str) -> None:
    """What both packages have in common."""
    before, bad, _, owed = BAD[name]
    program = start("run(Seen)")
    mta = program.connect()
    if before is not None:
        mta.negotiate()
        mta.raw(before)
        for _ in range(before.count(b"<")):
            assert mta.receive() == ("c", b"")
    mta.raw(bad)
    assert mta.is_closed()
    program.until(lambda: "close" in program.steps() or before is None)
    assert [step for step in program.steps() if step != "close"] == owed
    other = program.connect()
    other.negotiate()
    is_served(other)


@OURS
@pytest.mark.parametrize("where", ["inside a packet", "inside a message"])
def test_a_peer_that_vanishes(start: Start, where: str) -> None:
    program = start(LOGGED)
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    if where == "inside a packet":
        mta.raw(b"\0\0\0\x09Rrest")
    mta.close()
    program.await_step("close")
    assert where in one_log_line(program)
    assert [step for step in program.steps() if step != "log"] == ["envfrom", "abort", "close"]


@OURS
def test_a_peer_that_goes_quietly(start: Start) -> None:
    """Between messages that is no fault: Postfix does it."""
    program = start(LOGGED)
    mta = program.connect()
    mta.negotiate()
    is_served(mta)
    mta.close()
    program.await_step("close")
    assert "log" not in program.steps()


@OURS
def test_a_peer_that_vanishes_before_the_answer(start: Start) -> None:
    """The answer cannot be written; nobody else suffers."""
    program = start(
        """
        import threading
        class Filter(Seen):
            def hello(self, name):
                record("hello", name)
                if name == "gone":
                    vanished.wait()
                else:
                    vanished.set()
                return Milter.CONTINUE
        vanished = threading.Event()
        run(Filter)
        """
    )
    other = program.connect()
    other.negotiate()
    mta = program.connect()
    mta.negotiate()
    mta.send("H", b"gone\0")
    program.await_step("hello")
    mta.close()
    assert other.helo("other") == "c"
    program.await_step("close")
    is_served(other)


@OURS
def test_100000_recipients(start: Start) -> None:
    """More than the limit of 65536: the message is not held in memory for ever."""
    program = start(
        LOGGED.replace("def envrcpt", "count = 0\n    @Milter.noreply\n    def envrcpt").replace(
            "def envrcpt(self, to, *params): return Milter.CONTINUE",
            """def envrcpt(self, to, *params):
        self.count += 1
        return Milter.CONTINUE
    def close(self):
        record("count", self.count)
        return super().close()""",
        )
    )
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            mta.raw(packet("R", strings("<c@d>")) * 1000)
    assert mta.is_closed()
    assert "65536 recipients" in one_log_line(program)
    program.await_step("close")
    assert [what for what in program.seen() if what[0] not in ("log",)] == [
        ("envfrom", "<a@b>"),
        ("abort",),
        ("count", 65536),
        ("close",),
    ]


@OURS
def test_headers_without_end(start: Start) -> None:
    """They are handed on and not kept, so their number has no limit: an honest MTA may be set to
    messages of any size."""
    program = start(LOGGED)
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    header = packet("L", strings("X", b"x" * 60000))
    for _ in range(400):
        mta.raw(header)
        assert mta.receive() == ("c", b"")
    mta.raw(packet("N") + packet("E"))
    assert [mta.receive(), mta.receive()] == [("c", b""), ("c", b"")]


@OURS
def test_a_header_of_100_kib(start: Start) -> None:
    """Postfix may send it."""
    program = start("run(Seen)")
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    assert mta.header("X", b"x" * 102400) == "c"
    assert program.seen()[-1] == ("header", "X", "x" * 102400)


@OURS
def test_commands_out_of_order(start: Start) -> None:
    """They are ignored without a reply, after an abort where one is owed."""
    program = start("run(Seen)")
    mta = program.connect()
    mta.negotiate()
    mta.send("R", b"<c>\0")
    mta.send("E")
    assert mta.mail() == "c"
    mta.send("T")
    assert mta.mail() == "c"
    assert mta.rcpt() == "c"
    assert program.steps() == ["envfrom", "abort", "envfrom", "envrcpt"]


@OURS
@pytest.mark.parametrize("size", [1, 3, 7])
def test_bytes_that_trickle_in(start: Start, size: int) -> None:
    program = start("run(Seen)")
    mta = program.connect()
    mta.negotiate()
    whole = b"".join(
        struct.pack(">I", len(data) + 1) + command + data
        for command, data in (
            (b"H", b"me\0"),
            (b"M", b"<a>\0"),
            (b"R", b"<b>\0"),
            (b"L", b"X\0v\0"),
            (b"N", b""),
            (b"B", b"text"),
            (b"E", b""),
        )
    )
    for at in range(0, len(whole), size):
        mta.raw(whole[at : at + size])
    assert [mta.receive() for _ in range(7)] == [("c", b"")] * 7
    assert program.seen()[-2:] == [("body", b"text"), ("eom",)]
