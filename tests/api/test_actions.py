"""What a filter may do to a message, byte for byte; and what is refused, with which exception."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import Program, Start, start_program
from .differences import DIFFERENCES, expected
from .mta import ALL_ACTIONS, Mta

# Evaluates the values of headers named Call: where their first word says.
CALLS = """
class Caller(Milter.Base):
    calls = ()
    def call(self, step):
        for where, expression in self.calls:
            if where == step:
                record(expression, attempt(eval, expression, {"self": self, "ctx": self._ctx,
                                                              "Milter": Milter}))
        return Milter.CONTINUE
    def connect(self, hostname, family, hostaddr):
        self.calls = eval(hostname)
        return self.call("connect")
    def hello(self, name): return self.call("hello")
    def envfrom(self, f, *params): return self.call("envfrom")
    def envrcpt(self, to, *params): return self.call("envrcpt")
    def data(self): return self.call("data")
    def header(self, field, value): return self.call("header")
    def eoh(self): return self.call("eoh")
    def body(self, chunk): return self.call("body")
    def eom(self): return self.call("eom")
    def abort(self): return self.call("abort")
    def close(self): return self.call("close")
run(Caller)
"""


@pytest.fixture(scope="module", params=["oracle", "ours-lowlevel", "ours-fast"])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def caller(implementation: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = start_program(implementation, tmp_path_factory.mktemp("caller"), CALLS)
    yield program
    program.finish()


def results(program: Program, before: int, count: int) -> list[Any]:
    program.until(lambda: len(program.seen()) >= before + count)
    return [what[1] for what in program.seen()[before:]]


def call_at_end(
    program: Program, *expressions: str, actions: int = ALL_ACTIONS
) -> tuple[list[tuple[str, bytes]], list[Any]]:
    """Evaluates expressions in eom. Returns the packets that came before the verdict, and what the
    calls gave."""
    before = len(program.seen())
    mta = program.connect()
    mta.negotiate(actions=actions)
    mta.connect(repr([("eom", expression) for expression in expressions]))
    mta.mail()
    mta.rcpt()
    packets = mta.eom()
    assert packets.pop() == ("c", b"")
    mta.quit()
    return packets, results(program, before, len(expressions))


def index(number: int) -> bytes:
    return struct.pack(">I", number)


SENT: list[tuple[str, list[tuple[str, bytes]]]] = [
    ("addheader('X', 'v')", [("h", b"X\0v\0")]),
    ("addheader('X', '')", [("h", b"X\0\0")]),
    ("addheader('X', 'v', 0)", [("i", index(0) + b"X\0v\0")]),
    ("addheader('X', 'v', 7)", [("i", index(7) + b"X\0v\0")]),
    ("addheader('X', 'v', -1)", [("h", b"X\0v\0")]),
    ("addheader('X', 'v', -5)", [("h", b"X\0v\0")]),
    ("addheader('X', 'one\\n two\\n\\tthree')", [("h", b"X\0one\n two\n\tthree\0")]),
    ("addheader('X', '\\xe9')", [("h", b"X\0\xc3\xa9\0")]),
    ("chgheader('X', 1, 'v')", [("m", index(1) + b"X\0v\0")]),
    ("chgheader('X', 0, '')", [("m", index(0) + b"X\0\0")]),
    ("chgheader('X', 2, None)", [("m", index(2) + b"X\0\0")]),
    ("chgheader('X', 1, 'a\\n b')", [("m", index(1) + b"X\0a\n b\0")]),
    ("addrcpt('<a@b>')", [("+", b"<a@b>\0")]),
    ("addrcpt('<a@b>', None)", [("+", b"<a@b>\0")]),
    ("addrcpt('<a@b>', 'NOTIFY=NEVER')", [("2", b"<a@b>\0NOTIFY=NEVER\0")]),
    ("delrcpt('<a@b>')", [("-", b"<a@b>\0")]),
    ("chgfrom('<x@y>')", [("e", b"<x@y>\0")]),
    ("chgfrom('<>')", [("e", b"<>\0")]),
    ("chgfrom('<x@y>', None)", [("e", b"<x@y>\0")]),
    ("chgfrom('<x@y>', 'RET=HDRS')", [("e", b"<x@y>\0RET=HDRS\0")]),
    ("replacebody('text\\r\\n')", [("b", b"text\r\n")]),
    ("replacebody('\\xe9')", [("b", b"\xc3\xa9")]),
    ("replacebody(b'\\x00\\xff')", [("b", b"\0\xff")]),
    ("replacebody(b'')", [("b", b"")]),
    ("replacebody('')", [("b", b"")]),
    ("replacebody(b'x' * 65536)", [("b", b"x" * 65535), ("b", b"x")]),
    ("quarantine('why')", [("q", b"why\0")]),
    ("progress()", [("p", b"")]),
]


@pytest.mark.parametrize("on", ["self", "ctx"])
@pytest.mark.parametrize(("call", "packets"), SENT, ids=[call for call, _ in SENT])
def test_what_is_sent(
    caller: Program, on: str, call: str, packets: list[tuple[str, bytes]]
) -> None:
    assert call_at_end(caller, f"{on}.{call}") == (packets, [("ok", None)])


def test_keywords(caller: Program) -> None:
    packets, got = call_at_end(
        caller,
        "self.addheader(field='X', value='v', idx=1)",
        "self.chgheader(field='X', idx=1, value='v')",
        "self.addrcpt(rcpt='<a>', params='P')",
        "self.delrcpt(rcpt='<a>')",
        "self.chgfrom(sender='<a>', params='P')",
        "self.quarantine(reason='why')",
        "self.replacebody(body=b'text')",
        "self.setreply(rcode='550', xcode='5.7.1', msg='text')",
        "self.setreply('550', msg='text')",
        "self.getsymval(sym='j')",
    )
    assert got == [("ok", None)] * 10
    assert [command for command, _ in packets] == ["i", "m", "2", "-", "e", "q", "b"]


def test_a_body_in_chunks(caller: Program) -> None:
    packets, _ = call_at_end(
        caller, "self.replacebody(b'one')", "self.replacebody('two')", "self.addheader('X', 'v')"
    )
    assert packets == [("b", b"one"), ("b", b"two"), ("h", b"X\0v\0")]


def test_a_large_body(caller: Program) -> None:
    """More than the engine holds back before it writes, while the MTA reads."""
    packets, got = call_at_end(caller, "self.replacebody(b'0123456789abcdef' * 65536 * 5)")
    assert got == [("ok", None)]
    assert b"".join(data for _, data in packets) == b"0123456789abcdef" * 65536 * 5
    assert {command for command, _ in packets} == {"b"}


def test_two_messages_have_each_their_own_edits(caller: Program) -> None:
    mta = caller.connect()
    mta.negotiate()
    mta.connect("[('eom', \"self.addheader('X-For', self.getsymval('i'))\")]")
    for queue_id in ("FIRST", "SECOND"):
        mta.macros("M", "i", queue_id)
        mta.mail()
        mta.rcpt()
        assert mta.eom() == [("h", b"X-For\0" + queue_id.encode() + b"\0"), ("c", b"")]


FAILING: list[tuple[str, str]] = [
    ("addheader('', 'v')", "error"),
    ("addheader('X', None)", "TypeError"),
    ("addheader('X', 5)", "TypeError"),
    ("addheader('X')", "TypeError"),
    ("addheader('X', 'v', 'x')", "TypeError"),
    ("addheader('X', 'x' * 65536)", "error"),
    ("chgheader('X', -1, 'v')", "error"),
    ("chgheader('', 1, 'v')", "error"),
    ("chgheader('X', '1', 'v')", "TypeError"),
    ("chgheader('X', 1, 5)", "TypeError"),
    ("addrcpt('')", "error"),
    ("addrcpt(None)", "TypeError"),
    ("delrcpt('')", "error"),
    ("delrcpt(5)", "TypeError"),
    ("chgfrom('')", "error"),
    ("chgfrom(None)", "TypeError"),
    ("replacebody(None)", "TypeError"),
    ("replacebody(5)", "TypeError"),
    ("quarantine('')", "error"),
    ("quarantine(None)", "TypeError"),
    ("getsymval(None)", "TypeError"),
    ("setreply('250', '2.0.0', 'x')", "error"),
    ("setreply('55', '5.7.1', 'x')", "error"),
    ("setreply('5500', '5.7.1', 'x')", "error"),
    ("setreply('5a0', '5.7.1', 'x')", "error"),
    ("setreply('550', '', 'x')", "error"),
    ("setreply('550', '5.7', 'x')", "error"),
    ("setreply('550', '5.1234.1', 'x')", "error"),
    ("setreply('550', '5.7.1', 'a\\nb')", "error"),
    ("setreply('550', '5.7.1', 'a', 'b\\r')", "error"),
    ("setreply('550', '5.7.1', 'x' * 981)", "error"),
    ("setreply(550, '5.7.1', 'x')", "TypeError"),
    ("setreply('550', '5.7.1', 5)", "TypeError"),
    ("setreply()", "TypeError"),
]


@pytest.mark.parametrize("on", ["self", "ctx"])
@pytest.mark.parametrize(("call", "error"), FAILING, ids=[call for call, _ in FAILING])
def test_what_is_refused(caller: Program, on: str, call: str, error: str) -> None:
    packets, got = call_at_end(caller, f"{on}.{call}")
    assert packets == []
    assert got[0][0] == error
    assert got[0][1] != ""


@pytest.mark.parametrize(
    "name", [name for name in DIFFERENCES if name.startswith(("self.", "ctx."))]
)
def test_differences(caller: Program, implementation: str, name: str) -> None:
    packets, got = call_at_end(caller, name)
    assert (packets, got[0][0]) == expected(implementation, name)


@pytest.mark.parametrize("call", ["self.setreply('550', '5.7.1', '100%')",
                                  "self.setreply('550', '5.7.1', 'a', 'b%%%')"])  # fmt: skip
def test_a_single_percent(caller: Program, call: str) -> None:
    _, got = call_at_end(caller, call)
    assert got[0][0] == "ValueError"
    assert "doubled" in got[0][1]


def test_33_lines(caller: Program) -> None:
    _, got = call_at_end(caller, "ctx.setreply('550', '5.7.1', *['x'] * 33)")
    assert got[0][0] == "TypeError"


EVERY_ACTION = {
    "addheader('X', 'v')": "ADDHDRS",
    "chgheader('X', 1, 'v')": "CHGHDRS",
    "addrcpt('<a@b>')": "ADDRCPT",
    "delrcpt('<a@b>')": "DELRCPT",
    "replacebody('x')": "MODBODY",
    "chgfrom('<x@y>')": "CHGFROM",
    "quarantine('why')": "QUARANTINE",
}

ELSEWHERE = ["connect", "hello", "envfrom", "envrcpt", "data", "header", "eoh", "body", "abort",
             "close"]  # fmt: skip


def a_whole_session(mta: Mta, calls: list[tuple[str, str]]) -> list[tuple[str, bytes]]:
    """A message that is aborted after its body; returns what came besides the verdicts."""
    mta.negotiate()
    got = [
        mta.connect(repr(calls)),
        mta.helo(),
        mta.mail(),
        mta.rcpt(),
        mta.data(),
        mta.header("X", "v"),
        mta.eoh(),
        mta.body(),
    ]
    mta.send("A")
    mta.quit()
    return [reply for reply in got if reply != "c"]  # type: ignore[misc]


def test_changes_at_another_step(caller: Program) -> None:
    calls = [(step, f"ctx.{call}") for step in ELSEWHERE for call in EVERY_ACTION]
    before = len(caller.seen())
    assert a_whole_session(caller.connect(), calls) == []
    for kind, text in results(caller, before, len(calls)):
        assert kind == "error"
        assert text != ""


def test_progress_at_another_step(caller: Program, implementation: str) -> None:
    before = len(caller.seen())
    mta = caller.connect()
    mta.negotiate()
    mta.connect("[('envfrom', 'self.progress()')]")
    assert mta.mail() == expected(implementation, "progress before the end of the message")[0]
    (result,) = results(caller, before, 1)
    assert result[0] == expected(implementation, "progress before the end of the message")[1]


def test_symbol_lists_after_the_negotiation(caller: Program, implementation: str) -> None:
    before = len(caller.seen())
    calls = [(step, "ctx.setsymlist(1, 'j')") for step in ("connect", "envfrom")]
    a_whole_session(caller.connect(), calls)
    kinds = [kind for kind, _ in results(caller, before, 2)]
    assert kinds == expected(implementation, "setsymlist after the negotiation")


@pytest.mark.parametrize("call", EVERY_ACTION)
def test_disabled_actions(caller: Program, call: str) -> None:
    flag = EVERY_ACTION[call]
    bit = {"ADDHDRS": 1, "MODBODY": 2, "ADDRCPT": 4, "DELRCPT": 8, "CHGHDRS": 16, "QUARANTINE": 32,
           "CHGFROM": 64}[flag]  # fmt: skip
    packets, got = call_at_end(caller, f"self.{call}", f"ctx.{call}", actions=ALL_ACTIONS & ~bit)
    assert packets == []
    assert got[0][0] == "DisabledAction"
    assert flag in got[0][1]
    assert got[1][0] == "error"
    packets, got = call_at_end(caller, f"self.{call}", actions=bit)
    assert len(packets) == 1
    assert got == [("ok", None)]


def test_disabled_recipient_parameters(caller: Program) -> None:
    call = "self.addrcpt('<a@b>', 'NOTIFY=NEVER')"
    packets, got = call_at_end(caller, call, actions=ALL_ACTIONS & ~0x80)
    assert packets == []
    assert got == [("DisabledAction", "ADDRCPT_PAR")]


def test_private_data(caller: Program) -> None:
    _, got = call_at_end(
        caller,
        "ctx.getpriv() is self",
        "ctx.setpriv(5) is self",
        "ctx.getpriv()",
        "ctx.setpriv(self)",
        "ctx.setpriv()",
    )
    assert got[:4] == [("ok", True), ("ok", True), ("ok", 5), ("ok", 5)]
    assert got[4][0] == "TypeError"


def test_the_context_cannot_be_made(caller: Program) -> None:
    _, got = call_at_end(
        caller,
        "type(ctx)()",
        "type(ctx).__name__",
        "type(ctx).__module__",
        "sorted(name for name in dir(ctx) if not name.startswith('_'))",
    )
    assert got[0][0] == "TypeError"
    assert got[1:3] == [("ok", "Context"), ("ok", "milter")]
    assert set(got[3][1]) >= {
        "addheader", "addrcpt", "chgfrom", "chgheader", "delrcpt", "getpriv", "getsymval",
        "progress", "quarantine", "replacebody", "setpriv", "setreply", "setsymlist",
    }  # fmt: skip


def test_the_context_after_its_connection(start: Start) -> None:
    program = start(
        """
        import threading
        class Filter(Milter.Base):
            def close(self):
                threading.Thread(target=look, args=(self._ctx,)).start()
                return Milter.CONTINUE
        ended = threading.Event()
        def look(ctx):
            ended.wait()
            for call, args in (("getsymval", ("j",)), ("setreply", ("550", "5.7.1", "x")),
                               ("addheader", ("X", "v")), ("progress", ())):
                record(call, attempt(getattr(ctx, call), *args))
        class Next(Milter.Base):
            def connect(self, *args):
                ended.set()
                return Milter.CONTINUE
        made = iter((Filter, Next))
        run(lambda: next(made)())
        """
    )
    mta = program.connect()
    mta.negotiate()
    mta.quit()
    mta = program.connect()
    mta.negotiate()
    mta.connect()
    program.until(lambda: len(program.seen()) >= 4)
    assert program.seen() == [
        (call, ("error", "bad context"))
        for call in ("getsymval", "setreply", "addheader", "progress")
    ]
