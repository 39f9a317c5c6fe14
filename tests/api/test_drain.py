"""SIGTERM under load: with connections in every step, what is inside a message finishes and gets
its verdict, everything else is closed, nothing new is taken, and the program ends well."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Program, Start
from .mta import Mta, packet, strings

OURS = pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)
FAST = pytest.mark.parametrize("implementation", ["ours-fast"], indirect=True)
EACH = 5  # connections in each step

# The sender <wait-STEP> makes a callback block until there is a file `go`.
FILTER = """
import os
import threading
from pathlib import Path

FOLDER = Path(os.environ["RECORD"]).parent

class Filter(Seen):
    def envfrom(self, f, *params):
        self.where = f.strip("<>").removeprefix("wait-")
        return self.wait("mail")

    def wait(self, step):
        record(step)
        if self.where == step:
            record("blocked")
            while not (FOLDER / "go").exists():
                threading.Event().wait(0.01)
        return Milter.CONTINUE

    def data(self):
        return self.wait("data")

    def body(self, chunk):
        return self.wait("body")

    def eom(self):
        self.addheader("X-Seen", "whole")
        self.wait("eom")
        return Milter.CONTINUE
"""
SERVE = "run(Filter)\n"
SERVE_A_SECOND = "run(Filter, drain=1)\n"

EOM = [("h", strings("X-Seen", "whole")), ("c", b"")]

# The steps of a session up to the end of a message, and after it.
STEPS: tuple[tuple[str, Callable[[Mta], object], object], ...] = (
    ("nothing", lambda _: None, None),
    ("negotiate", lambda mta: mta.negotiate()[0], 6),
    ("connect", lambda mta: mta.connect(), "c"),
    ("helo", lambda mta: mta.helo(), "c"),
    ("mail", lambda mta: mta.mail(), "c"),
    ("rcpt", lambda mta: mta.rcpt(), "c"),
    ("data", lambda mta: mta.data(), "c"),
    ("header", lambda mta: mta.header("Subject", "x"), "c"),
    ("eoh", lambda mta: mta.eoh(), "c"),
    ("body", lambda mta: mta.body(), "c"),
    ("eom", lambda mta: mta.eom(), EOM),
)
NAMES = [name for name, _, _ in STEPS]
INSIDE = NAMES[NAMES.index("mail") : NAMES.index("eom")]
BLOCKED = ("mail", "data", "body", "eom")


def walk(mta: Mta, first: str, last: str) -> None:
    """Goes the steps from `first` to `last`, each of which must be answered."""
    for _, step, answer in STEPS[NAMES.index(first) : NAMES.index(last) + 1]:
        assert step(mta) == answer


def finish(mta: Mta, after: str) -> None:
    """The rest of a message; then the connection is closed."""
    walk(mta, NAMES[NAMES.index(after) + 1], "eom")
    assert mta.is_closed()


def stopped(program: Program) -> None:
    """Waits until it has acted on its stop: its socket's path is gone."""
    program.until(lambda: not os.path.exists(program.socket))


def ended(program: Program) -> Counter[str]:
    """What it saw, once it has ended well."""
    assert program.wait() == 0, program.output()
    return Counter(program.steps())


@OURS
def test_stopped_in_every_step(start: Start) -> None:
    program = start(FILTER + SERVE)
    at: dict[str, list[Mta]] = {name: [] for name in NAMES}
    parts = []
    for name in NAMES:
        for _ in range(EACH):
            at[name].append(program.connect())
            walk(at[name][-1], "nothing", name)
    for _ in range(EACH):  # the first part of a packet outside and inside a message
        outside, inside = program.connect(), program.connect()
        walk(outside, "nothing", "helo")
        walk(inside, "nothing", "data")
        for mta in (outside, inside):
            mta.raw(packet("L", strings("Subject", "x"))[:9])
        at["helo"].append(outside)
        parts.append(inside)
    aborted = program.connect()
    walk(aborted, "nothing", "body")
    aborted.send("A")
    program.await_step("abort")
    blocked = []
    for name in BLOCKED * EACH:
        mta = program.connect()
        walk(mta, "nothing", "helo")
        mta.send("M", strings(f"<wait-{name}>"))
        if name != "mail":
            assert mta.receive() == ("c", b"")
            walk(mta, "rcpt", NAMES[NAMES.index(name) - 1])
            mta.send({"data": "T", "body": "B", "eom": "E"}[name], b"x" if name == "body" else b"")
        blocked.append((name, mta))
    messages = len(parts) + len(blocked) + EACH * len(INSIDE)
    program.await_step("blocked", len(blocked))

    program.signal(signal.SIGTERM)
    stopped(program)
    for name in (*NAMES[: NAMES.index("mail")], "eom"):
        assert all(mta.is_closed() for mta in at[name]), name
    assert aborted.is_closed()
    with pytest.raises(FileNotFoundError):
        Mta.unix(program.socket)
    (program.folder / "go").touch()
    for name, mta in blocked:
        if name == "eom":
            assert [mta.receive(), mta.receive()] == EOM
            assert mta.is_closed()
        else:
            assert mta.receive() == ("c", b"")
            finish(mta, name)
    for mta in parts:
        mta.raw(packet("L", strings("Subject", "x"))[9:])
        assert mta.receive() == ("c", b"")
        finish(mta, "header")
    for name in INSIDE:
        for mta in at[name]:
            finish(mta, name)
    seen = ended(program)
    assert seen["eom"] == messages + EACH
    assert seen["abort"] == 1
    assert seen["close"] == len(program.connections) - EACH  # "nothing" has made no object
    assert seen["ended"] == 1


@FAST
def test_a_message_that_does_not_end(start: Start) -> None:
    """The drain's time is over: it is aborted, where others have finished."""
    program = start(FILTER + SERVE_A_SECOND)
    never, good = program.connect(), program.connect()
    walk(never, "nothing", "body")
    walk(good, "nothing", "body")
    program.signal(signal.SIGTERM)
    stopped(program)
    finish(good, "body")
    assert never.is_closed()
    seen = ended(program)
    assert (seen["eom"], seen["abort"], seen["close"], seen["ended"]) == (1, 1, 2, 1)


@FAST
def test_no_time_at_all(start: Start) -> None:
    program = start(FILTER + "run(Filter, drain=0)\n")
    mta = program.connect()
    walk(mta, "nothing", "body")
    program.signal(signal.SIGTERM)
    assert mta.is_closed()
    seen = ended(program)
    assert (seen["eom"], seen["abort"], seen["close"], seen["ended"]) == (0, 1, 1, 1)


@FAST
@pytest.mark.parametrize("where", ["mail", "eom"])
def test_a_callback_that_outlasts_the_drain(start: Start, where: str) -> None:
    """The program waits for it: nothing ends a thread from outside. Its answer is still sent; after
    the end of a message nothing is left to do, another message is aborted."""
    program = start(FILTER + SERVE_A_SECOND)
    mta, other = program.connect(), program.connect()
    walk(other, "nothing", "body")
    walk(mta, "nothing", "helo")
    mta.send("M", strings(f"<wait-{where}>"))
    if where == "eom":
        assert mta.receive() == ("c", b"")
        walk(mta, "rcpt", "body")
        mta.send("E")
    program.await_step("blocked")
    program.signal(signal.SIGTERM)
    assert other.is_closed()  # when the time is over
    assert program.process.poll() is None
    (program.folder / "go").touch()
    got: list[tuple[str, bytes]] = []
    while not got or got[-1][0] == "h":
        got.append(mta.receive())
    assert got == (EOM if where == "eom" else [("c", b"")])
    assert mta.is_closed()
    seen = ended(program)
    assert (seen["abort"], seen["close"]) == (2 if where == "mail" else 1, 2)


@OURS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_a_drain(start: Start, number: signal.Signals) -> None:
    """Whoever sends one more wants the end sooner: the message gets its abort, and no verdict."""
    program = start(FILTER + SERVE)
    mta = program.connect()
    walk(mta, "nothing", "data")
    program.signal(signal.SIGTERM)
    stopped(program)
    walk(mta, "header", "header")  # the first one lets it go on
    program.signal(number)
    assert mta.is_closed()
    seen = ended(program)
    assert (seen["eom"], seen["abort"], seen["close"]) == (0, 1, 1)


@OURS
def test_sigint_ends_a_drain(start: Start) -> None:
    """At once: each message gets its abort, and none a verdict."""
    program = start(FILTER + SERVE)
    mtas = []
    for name in INSIDE:
        mtas.append(program.connect())
        walk(mtas[-1], "nothing", name)
    program.signal(signal.SIGTERM)
    stopped(program)
    program.signal(signal.SIGINT)
    assert all(mta.is_closed() for mta in mtas)
    seen = ended(program)
    assert (seen["eom"], seen["abort"], seen["close"]) == (0, len(INSIDE), len(INSIDE))


@OURS
def test_the_next_program_takes_over(start: Start) -> None:
    """It listens on the same path while the first one drains, and keeps it when that one ends."""
    first = start(FILTER + SERVE)
    old = first.connect()
    walk(old, "nothing", "data")
    first.signal(signal.SIGTERM)
    stopped(first)
    second = start(FILTER + SERVE, SOCKET=f"unix:{first.socket}")
    new = first.keep(first.until(lambda: Mta.unix(first.socket), OSError))
    walk(new, "nothing", "data")
    finish(old, "data")
    assert ended(first)["eom"] == 1
    walk(new, "header", "eom")
    another = second.keep(Mta.unix(first.socket))
    walk(another, "nothing", "eom")
    second.signal(signal.SIGTERM)
    assert ended(second)["eom"] == 2
    assert not os.path.exists(first.socket)


@OURS
def test_the_next_program_takes_the_port(start: Start, free_port: int) -> None:
    spec = f"inet:{free_port}@127.0.0.1"

    def connect(program: Program) -> Mta:
        found: Any = program.until(lambda: Mta.inet("127.0.0.1", free_port), OSError)
        return program.keep(found)

    def refused() -> bool:
        try:
            Mta.inet("127.0.0.1", free_port).close()
        except OSError:
            return True
        return False

    first = start(FILTER + SERVE, SOCKET=spec)
    old = connect(first)
    walk(old, "nothing", "data")
    first.signal(signal.SIGTERM)
    first.until(refused)
    second = start(FILTER + SERVE, SOCKET=spec)
    new = connect(second)
    walk(new, "nothing", "data")
    finish(old, "data")
    assert ended(first)["eom"] == 1
    walk(new, "header", "eom")
    second.signal(signal.SIGTERM)
    assert ended(second)["eom"] == 1
