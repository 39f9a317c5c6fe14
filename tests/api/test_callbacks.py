"""What callbacks see: arguments, types, order."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from .conftest import Start
from .differences import expected
from .mta import Closed, strings

SEEN = "run(Seen)\n"


def test_a_whole_message(start: Start) -> None:
    program = start(SEEN)
    mta = program.connect()
    mta.negotiate()
    assert mta.connect() == "c"
    assert mta.helo() == "c"
    assert mta.mail("<a@b>", "SIZE=100", "BODY=8BITMIME") == "c"
    assert mta.rcpt("<c@d>", "NOTIFY=NEVER") == "c"
    assert mta.rcpt("<e@f>") == "c"
    assert mta.data() == "c"
    assert mta.header("Subject", "hello") == "c"
    assert mta.eoh() == "c"
    assert mta.body(b"one\r\n\0\xff") == "c"
    assert mta.body(b"two") == "c"
    assert mta.eom() == [("c", b"")]
    mta.quit()
    program.until(lambda: "close" in program.steps())
    assert program.seen() == [
        ("connect", "localhost", 2, ("127.0.0.1", 1234)),
        ("hello", "me"),
        ("envfrom", "<a@b>", "SIZE=100", "BODY=8BITMIME"),
        ("envrcpt", "<c@d>", "NOTIFY=NEVER"),
        ("envrcpt", "<e@f>"),
        ("data",),
        ("header", "Subject", "hello"),
        ("eoh",),
        ("body", b"one\r\n\0\xff"),
        ("body", b"two"),
        ("eom",),
        ("close",),
    ]


@pytest.mark.parametrize(
    ("data", "hostname", "family", "hostaddr"),
    [
        (b"host\x004\x04\xd21.2.3.4\0", "host", 2, ("1.2.3.4", 1234)),
        (b"\x004\x00\x001.2.3.4\0", "", 2, ("1.2.3.4", 0)),
        (b"host\x006\x00\x19::1\0", "host", 10, ("::1", 25, 0, 0)),
        (b"host\x006\x00\x19IPv6:2001:db8::1\0", "host", 10, ("2001:db8::1", 25, 0, 0)),
        (b"host\0L\0\0/run/client\0", "host", 1, "/run/client"),
        (b"host\0L\0\0\0", "host", 1, ""),
        (b"host\0U", "host", 0, None),
    ],
    ids=["inet", "no name, port 0", "inet6", "IPv6 tag", "unix", "unix without path", "unknown"],
)
def test_client_addresses(
    start: Start, data: bytes, hostname: str, family: int, hostaddr: Any
) -> None:
    program = start(SEEN)
    mta = program.connect()
    mta.negotiate()
    assert mta.step("C", data) == "c"
    assert program.seen() == [("connect", hostname, family, hostaddr)]


@pytest.mark.parametrize(
    "strategy", ["default", "bytes", "strict", "ignore", "replace", "surrogateescape"]
)
def test_decode_strategies(start: Start, strategy: str) -> None:
    decode = "" if strategy == "default" else f"@Milter.decode({strategy!r})"
    program = start(
        f"""
        class Filter(Seen):
            {decode}
            def envfrom(self, f, *params): return self._see("envfrom", f, *params)
            {decode}
            def envrcpt(self, to, *params): return self._see("envrcpt", to, *params)
            {decode}
            def header(self, field, value): return self._see("header", field, value)
        run(Filter)
        """
    )
    eight_bit, ascii_text = {
        "default": ("a\udce9b", "plain"),
        "bytes": (b"a\xe9b", b"plain"),
        "strict": (b"a\xe9b", "plain"),
        "ignore": ("ab", "plain"),
        "replace": ("a\ufffdb", "plain"),
        "surrogateescape": ("a\udce9b", "plain"),
    }[strategy]
    accent: Any = b"\xc3\xa9" if strategy == "bytes" else "\xe9"
    parameter: Any = b"plain" if strategy == "strict" else ascii_text
    mta = program.connect()
    mta.negotiate()
    assert mta.mail(b"a\xe9b", b"plain") == "c"
    assert mta.rcpt(b"plain") == "c"
    assert mta.header(b"X", b"a\xe9b") == "c"
    assert mta.header(b"X", b"plain") == "c"
    assert mta.header(b"X", b"\xc3\xa9") == "c"
    assert program.seen() == [
        ("envfrom", eight_bit, parameter),
        ("envrcpt", ascii_text),
        ("header", "X", eight_bit),
        ("header", "X", ascii_text),
        ("header", "X", accent),
    ]


@pytest.mark.parametrize("step", ["connect", "hello", "unknown"])
def test_eight_bit_elsewhere(start: Start, implementation: str, step: str) -> None:
    program = start(SEEN, tracebacks=implementation == "oracle")
    mta = program.connect()
    mta.negotiate()
    command, data = {
        "connect": ("C", b"h\xe9\x00U"),
        "hello": ("H", b"h\xe9\0"),
        "unknown": ("U", b"h\xe9\0"),
    }[step]
    reply = mta.step(command, data)
    arguments = {"connect": ("h\udce9", 0, None)}.get(step, ("h\udce9",))
    answered, was_seen = expected(implementation, "8-bit text")
    assert (reply if isinstance(reply, str) else reply[0]) == answered
    assert program.seen() == ([(step, *arguments)] if was_seen else [])


def test_bytes_methods_can_be_overridden(start: Start) -> None:
    program = start(
        """
        class Filter(Seen):
            def envfrom_bytes(self, *b): return self._see("from bytes", *b)
            def envrcpt_bytes(self, *b): return self._see("rcpt bytes", *b)
            def header_bytes(self, field, value): return self._see("header bytes", field, value)
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    assert mta.mail("<a>", "B") == "c"
    assert mta.rcpt("<c>") == "c"
    assert mta.header("Name", b"v\xe9") == "c"
    seen = program.seen()
    assert seen[:2] == [("from bytes", b"<a>", b"B"), ("rcpt bytes", b"<c>")]
    assert seen[2] == ("header bytes", "Name", b"v\xe9")


def test_bytes_methods_call_the_others(start: Start) -> None:
    program = start(
        """
        class Filter(Seen):
            def header_bytes(self, field, value):
                record("bytes", value)
                return super().header_bytes(field, value.upper())
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    assert mta.header("X", "value") == "c"
    assert program.seen()[2:] == [("bytes", b"value"), ("header", "X", "VALUE")]


def test_texts_at_the_edge(start: Start) -> None:
    program = start(SEEN)
    mta = program.connect()
    mta.negotiate()
    for reply in (
        mta.helo(""),
        mta.mail("<>"),
        mta.rcpt("", "", "A=b"),
        mta.header("X", ""),
        mta.header("X", " one\n\ttwo\n  three"),
        mta.header(b"\xc3\xa9", " "),
        mta.eoh(),
        mta.body(b"\0"),
        mta.body(b"x" * 65535),
    ):
        assert reply == "c"
    seen = program.seen()
    assert seen[:-1] == [
        ("hello", ""),
        ("envfrom", "<>"),
        ("envrcpt", "", "", "A=b"),
        ("header", "X", ""),
        ("header", "X", " one\n\ttwo\n  three"),
        ("header", "\xe9", " "),
        ("eoh",),
        ("body", b"\0"),
    ]
    assert seen[-1] == ("body", b"x" * 65535)


def test_the_last_chunk_may_come_with_the_end(start: Start) -> None:
    program = start(SEEN)
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    assert mta.step("E", b"last\r\n") == "c"
    assert program.seen()[2:] == [("body", b"last\r\n"), ("eom",)]


def test_abort_and_close(start: Start) -> None:
    program = start(SEEN)
    mta = program.connect()
    mta.negotiate()
    mta.send("A")  # outside a message: nothing
    mta.mail()
    mta.send("A")
    mta.send("A")
    mta.mail()
    mta.quit()
    program.await_steps("envfrom", "abort", "envfrom", "abort", "close")


def test_a_peer_that_vanishes(start: Start) -> None:
    program = start(SEEN)
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.close()
    program.await_steps("envfrom", "abort", "close")


def test_one_close_after_a_finished_message(start: Start) -> None:
    program = start(SEEN)
    mta = program.connect()
    mta.negotiate()
    mta.mail()
    mta.rcpt()
    mta.eom()
    mta.send("A")  # Postfix sends it even then
    mta.quit()
    program.await_steps("envfrom", "envrcpt", "eom", "close")


def test_a_second_connection_on_the_same_socket(start: Start) -> None:
    """QUIT_NC: the object is closed, and the next client gets an object of its own."""
    program = start(
        """
        class Filter(Seen):
            made = 0
            def __init__(self):
                Filter.made += 1
                self.number = Filter.made
            def connect(self, hostname, family, hostaddr):
                return self._see("connect", hostname, self.number)
            def close(self):
                return self._see("close", self.number)
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.connect("one")
    mta.mail()
    mta.rcpt()
    mta.eom()
    mta.send("K")
    assert mta.connect("two") == "c"
    assert mta.helo() == "c"
    assert mta.mail() == "c"
    mta.send("A")
    mta.quit()
    seen = program.await_steps(
        "connect", "envfrom", "envrcpt", "eom", "close", "connect", "hello", "envfrom", "abort",
        "close",
    )  # fmt: skip
    assert [what for what in seen if what[0] in ("connect", "close")] == [
        ("connect", "one", 1),
        ("close", 1),
        ("connect", "two", 2),
        ("close", 2),
    ]


def test_commands_may_come_in_one_piece(start: Start) -> None:
    program = start(SEEN)
    mta = program.connect()
    mta.negotiate()
    mta.raw(
        b"".join(
            struct.pack(">I", len(data) + 1) + command + data
            for command, data in (
                (b"H", strings("me")),
                (b"M", strings("<a>")),
                (b"R", strings("<b>")),
                (b"L", strings("X", "v")),
                (b"N", b""),
                (b"B", b"text"),
                (b"E", b""),
            )
        )
    )
    assert [mta.receive() for _ in range(7)] == [("c", b"")] * 7
    assert program.steps() == ["hello", "envfrom", "envrcpt", "header", "eoh", "body", "eom"]


MACROS = """
class Filter(Milter.Base):
    def look(self, step):
        record(step, *[self.getsymval(name) for name in ("i", "{i}", "j", "{foo}", "foo", "{r}")])
        return Milter.CONTINUE
    def connect(self, hostname, family, hostaddr): return self.look("connect")
    def hello(self, name): return self.look("hello")
    def envfrom(self, f, *params): return self.look("envfrom")
    def envrcpt(self, to, *params): return self.look("envrcpt")
    def eom(self): return self.look("eom")
    def abort(self): return self.look("abort")
    def close(self): return self.look("close")
run(Filter)
"""


def test_macros(start: Start) -> None:
    program = start(MACROS)
    mta = program.connect()
    mta.negotiate()
    mta.macros("C", "j", "host", "{foo}", "braces")
    mta.connect()
    mta.macros("H", "j", "other")
    mta.helo()
    mta.macros("M", "i", "QUEUE1")
    mta.mail()
    mta.macros("R", "{r}", "1")
    mta.rcpt()
    mta.rcpt()  # without a packet of its own: what was sent last stays
    mta.macros("E", "{i}", "QUEUE2")
    mta.eom()
    mta.macros("M", "{r}", "")
    mta.mail()
    mta.send("A")
    mta.quit()
    program.until(lambda: "close" in program.steps())
    assert program.seen() == [
        ("connect", None, None, "host", "braces", None, None),
        ("hello", None, None, "other", "braces", None, None),
        ("envfrom", "QUEUE1", "QUEUE1", "other", "braces", None, None),
        ("envrcpt", "QUEUE1", "QUEUE1", "other", "braces", None, "1"),
        ("envrcpt", "QUEUE1", "QUEUE1", "other", "braces", None, "1"),
        ("eom", "QUEUE2", "QUEUE2", "other", "braces", None, "1"),
        ("envfrom", None, None, "other", "braces", None, ""),
        ("abort", None, None, "other", "braces", None, ""),
        ("close", None, None, "other", "braces", None, ""),
    ]


def test_odd_macro_packets(start: Start) -> None:
    """No strings, an odd number of them, unknown commands: nothing of it ends the session."""
    program = start(MACROS)
    mta = program.connect()
    mta.negotiate()
    mta.send("D", b"M")
    mta.send("D", b"Mfoo")
    mta.send("D", b"Li\0x\0")
    mta.send("D", b"Zi\0x\0")
    mta.send("D", b"Mi\0QUEUE\0j\0")
    assert mta.mail() == "c"
    assert program.seen() == [("envfrom", "QUEUE", "QUEUE", None, None, None, None)]


def test_eight_bit_macros(start: Start, implementation: str) -> None:
    program = start(
        """
        class Filter(Milter.Base):
            def envfrom(self, f, *params):
                record(attempt(self.getsymval, "{foo}")[1])
                return Milter.CONTINUE
        run(Filter)
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.macros("M", "{foo}", b"v\xe9")
    assert mta.mail() == "c"
    assert program.seen() == [(expected(implementation, "8-bit macros"),)]


def test_a_protocol_error_ends_one_session(start: Start) -> None:
    program = start(SEEN)
    healthy = program.connect()
    healthy.negotiate()
    mta = program.connect()
    mta.negotiate()
    with pytest.raises(Closed):
        mta.step("C", b"host\0X\0\x191.2.3.4\0")
    program.await_steps("close")
    assert healthy.helo() == "c"
