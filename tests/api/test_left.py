"""Callbacks that do not return, at a server's end: it goes on without them, and says where they
stand. If they return after all, the filter gets what it is owed."""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import Milter
import milter
import pytest
from Milter.testing import MTA

from .conftest import Program, Start
from .mta import DEADLINE, Closed, Mta, strings
from .test_server import connect_to, until

OURS = pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)
LOOPBACK = "inet:0@127.0.0.1"
LINE = re.compile(
    r"(\w+): it has not returned for \d+ s: its thread is left behind, its connection closed: "
    r"it is at (.*)"
)


class Filter(Milter.Base):
    """Waits in hello until the test lets it go; writes down what is called."""

    seen: ClassVar[list[str]]
    inside: ClassVar[threading.Event]
    go: ClassVar[threading.Event]

    def hello(self, name: str) -> int:
        if name == "hang":
            self.inside.set()
            self.go.wait()
            self.seen.append("hello returns")
        return milter.CONTINUE

    def envfrom(self, f: str, *params: str) -> int:
        self.seen.append("envfrom")
        return milter.CONTINUE

    def abort(self) -> int:
        self.seen.append("abort")
        return milter.CONTINUE

    def close(self) -> int:
        self.seen.append("close")
        return milter.CONTINUE


@pytest.fixture
def hanging() -> Iterator[type[Filter]]:
    """A class of its own for each test, whose callback returns after it."""

    class Own(Filter):
        seen: ClassVar[list[str]] = []
        inside = threading.Event()
        go = threading.Event()

    yield Own
    Own.go.set()


def hang(server: Milter.Server, filter_class: type[Filter]) -> Mta:
    """A connection whose callback has begun, with the next step of it sent already."""
    mta = connect_to(server)
    mta.negotiate()
    mta.send("H", strings("hang"))
    mta.send("M", strings("<a@b>"))
    assert filter_class.inside.wait(DEADLINE)
    return mta


# ------------------------------------------------------------------------------------- programs

# The callback never returns; what stands behind its server runs.
HANGING = """
import time

class Hanging(Seen):
    def hello(self, name):
        record("inside")
        os.read(os.pipe()[0], 1)

"""
RUN = "run(Hanging, **json.loads(os.environ['OPTIONS']))\n"


def hanging_program(
    start: Start, options: str = '{"drain": 1, "grace": 1}', serve: str = RUN
) -> Program:
    program: Program = start(HANGING + serve, OPTIONS=options, tracebacks=True)
    mta = program.connect()
    mta.negotiate()
    mta.send("H", strings("me"))
    program.await_step("inside")
    return program


def told(program: Program) -> list[tuple[str, str]]:
    """Of each line about what was left behind, the step and the place."""
    return LINE.findall(program.output())


FAST = pytest.mark.parametrize("implementation", ["ours-fast"], indirect=True)


@FAST
def test_one_signal_ends_what_hangs(start: Start) -> None:
    """What stands behind runmilter runs, and the process ends well."""
    program = hanging_program(start)
    program.signal(signal.SIGTERM)
    assert program.wait() == 0, program.output()
    assert program.steps() == ["inside", "ended"]
    [(step, place)] = told(program)
    assert step == "helo"
    assert re.fullmatch(r"\S*program\.py:\d+ in \S*hello", place.split(",")[0]), place


@OURS
def test_further_signals_end_what_hangs(start: Start) -> None:
    """With the usual times, which nobody here waits for: each signal goes one step further."""
    program = hanging_program(start, "{}")
    inside = program.connect()
    inside.negotiate()
    inside.mail()
    program.signal(signal.SIGTERM)
    program.until(lambda: not Path(program.socket).exists())
    program.signal(signal.SIGTERM)
    assert inside.is_closed()
    program.signal(signal.SIGTERM)
    assert program.wait() == 0, program.output()
    assert program.steps()[-1] == "ended"
    assert len(told(program)) == 1


@OURS
def test_an_interrupt_ends_what_hangs(start: Start) -> None:
    program = hanging_program(start, "{}")
    program.signal(signal.SIGINT)
    program.until(lambda: not Path(program.socket).exists())
    program.signal(signal.SIGINT)
    assert program.wait() == 0, program.output()
    assert program.steps() == ["inside", "ended"]


@FAST
def test_an_interrupt_at_the_exit(start: Start) -> None:
    """The interpreter's end waits for the callbacks of a server that was started, for `grace`
    seconds; Ctrl-C ends the wait."""
    program = hanging_program(
        start,
        "{}",
        "Milter.Server(Hanging, os.environ['SOCKET'], grace=3600).start()\n"
        "while not os.path.exists(os.environ['RECORD'] + '.go'): time.sleep(0.01)\n",
    )
    (program.folder / "record.go").touch()
    program.until(lambda: not Path(program.socket).exists())
    program.signal(signal.SIGINT)
    assert program.wait() == 0, program.output()
    assert len(told(program)) == 1


@FAST
def test_an_interrupt_of_a_server_in_another_thread(start: Start) -> None:
    """The program waits for something itself; Ctrl-C ends it, and a second one the rest."""
    program = hanging_program(
        start,
        "{}",
        "Milter.Server(Hanging, os.environ['SOCKET'], grace=3600).start()\n"
        "try:\n"
        "    threading.Event().wait()\n"
        "except KeyboardInterrupt:\n"
        "    record('interrupted')\n",
    )
    program.signal(signal.SIGINT)
    program.await_step("interrupted")
    program.until(lambda: not Path(program.socket).exists())
    program.signal(signal.SIGINT)
    assert program.wait() == 0, program.output()


# ------------------------------------------------------------------------------ Server, in process


def test_stop_with_a_timeout(hanging: type[Filter], caplog: pytest.LogCaptureFixture) -> None:
    server = Milter.Server(hanging, LOOPBACK, grace=3600).start()
    with hang(server, hanging) as mta:
        server.stop(timeout=1)
        assert hanging.seen == []  # it hangs still
        assert server.stats[-3:] == (0, 0, 1)  # open, threads, left
        assert mta.is_closed()
        [line] = [line for line in caplog.messages if "left behind" in line]
        assert re.search(r": connection \d+: helo: it has not returned for \d+ s", line)
        hanging.go.set()
        until(lambda: server.stats.left == 0)
    assert hanging.seen == ["hello returns", "close"]


@pytest.mark.parametrize("step", ["envrcpt", "eom"])
def test_what_returns_late_is_dropped(hanging: type[Filter], step: str) -> None:
    """Abort, if the message was not at its end, and close follow. What the callback asks for, and
    its verdict, reach nobody; nor is the filter called for what its MTA had sent already."""
    late: list[str] = []

    class Message(hanging):  # type: ignore[valid-type, misc]
        def late(self) -> int:
            self.inside.set()
            self.go.wait()
            for name, *args in (
                ("addheader", "X", "y"),
                ("replacebody", b"x" * (1 << 20)),
                ("setreply", "550", "5.7.1", "no"),
                ("progress",),
                ("getsymval", "i"),
            ):
                try:
                    getattr(self, name)(*args)
                except milter.error:
                    late.append(name)
            self.seen.append("it returns")
            return milter.REJECT

        def envrcpt(self, to: str, *params: str) -> int:
            return self.late() if step == "envrcpt" else milter.CONTINUE

        def eom(self) -> int:
            return self.late()

    server = Milter.Server(Message, LOOPBACK).start()
    with connect_to(server) as mta:
        mta.negotiate()
        mta.mail()
        if step == "eom":
            mta.rcpt()
        mta.send(*{"envrcpt": ("R", strings("<c@d>")), "eom": ("E", b"")}[step])
        assert hanging.inside.wait(DEADLINE)
        server.abandon()
        assert server.join(DEADLINE)
        assert server.stats.left == 1
        hanging.go.set()
        until(lambda: server.stats.left == 0)
        with pytest.raises(Closed):
            mta.receive()
    ends = ["abort", "close"] if step == "envrcpt" else ["close"]
    assert hanging.seen == ["envfrom", "it returns", *ends]
    assert "replacebody" in late


def test_many_at_once(hanging: type[Filter]) -> None:
    """Each has its line, and each its end."""
    count = 30

    class Counting(hanging):  # type: ignore[valid-type, misc]
        begun = threading.Semaphore(0)

        def hello(self, name: str) -> int:
            self.begun.release()
            return super().hello(name)

    server = Milter.Server(Counting, LOOPBACK, grace=3600).start()
    mtas = [connect_to(server) for _ in range(count)]
    for mta in mtas:
        mta.negotiate()
        mta.send("H", strings("hang"))
    for _ in mtas:
        assert Counting.begun.acquire(timeout=DEADLINE)
    server.abandon()
    assert server.join(DEADLINE)
    assert server.stats.left == count
    for mta in mtas:
        assert mta.is_closed()
        mta.close()
    hanging.go.set()
    until(lambda: server.stats.left == 0)
    assert sorted(hanging.seen) == ["close"] * count + ["hello returns"] * count


def test_it_serves_again(hanging: type[Filter]) -> None:
    """Beside the thread that was left behind, and after its end."""
    server = Milter.Server(hanging, LOOPBACK).start()
    with hang(server, hanging) as first:
        server.abandon()
        assert server.join(DEADLINE)
        for _ in range(2):
            with server, connect_to(server) as mta:
                mta.negotiate()
                assert mta.mail() == "c"
            assert server.stats.left in (0, 1)
            hanging.go.set()
        assert first.is_closed()
    until(lambda: server.stats.left == 0)


def test_another_server_goes_on(hanging: type[Filter]) -> None:
    """Of two in one process, one of which is left by its callback."""
    with Milter.Server(Milter.Base, LOOPBACK) as other, connect_to(other) as mta:
        mta.negotiate()
        server = Milter.Server(hanging, LOOPBACK).start()
        with hang(server, hanging):
            assert mta.helo() == "c"
            server.abandon()
            assert server.join(DEADLINE)
            assert server.stats.left == 1
            for _ in range(20):
                assert mta.mail() == "c"
                assert mta.eom() == [("c", b"")]
            with connect_to(other) as new:
                new.negotiate()
                assert new.helo() == "c"
        hanging.go.set()
        until(lambda: server.stats.left == 0)
        assert mta.mail() == "c"


def test_the_testing_mta_abandons(hanging: type[Filter]) -> None:
    """A filter that does not answer in time fails its test, and holds nothing up."""
    with MTA(hanging, timeout=0.2) as mta:
        with pytest.raises(Exception, match="no answer within"), mta.session() as session:
            session.helo("hang")
        assert hanging.inside.is_set()
        assert "hello returns" not in hanging.seen


# ------------------------------------------------------------------------------ the log, at the end


class Blocking(logging.Handler):
    """Blocks in its first line."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = None  # each line comes here, also while another one blocks
        self.inside = threading.Event()
        self.go = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.inside.set()
        self.go.wait()


@pytest.fixture
def blocking() -> Iterator[tuple[logging.Logger, Blocking]]:
    """A logger whose lines all block until the end of the test."""
    handler = Blocking()
    logger = logging.Logger("blocking", logging.WARNING)  # no lines of a server that is well
    logger.addHandler(handler)
    yield logger, handler
    handler.go.set()


def test_a_log_that_blocks_when_it_is_told(
    hanging: type[Filter], blocking: tuple[logging.Logger, Blocking]
) -> None:
    """The line about what was left behind: who writes it is left behind as well."""
    logger, handler = blocking
    server = Milter.Server(hanging, LOOPBACK, logger=logger).start()
    with hang(server, hanging) as mta:
        server.abandon()
        assert handler.inside.wait(DEADLINE)
        assert server.join(DEADLINE)
        assert mta.is_closed()
        assert server.stats.left == 2  # the callback, and who was to tell of it
        handler.go.set()
        hanging.go.set()
        until(lambda: server.stats.left == 0)
    assert hanging.seen == ["hello returns", "close"]


def test_a_log_that_blocks_before_it(
    hanging: type[Filter], blocking: tuple[logging.Logger, Blocking]
) -> None:
    """A line about a limit, which a thread writes for the server as a whole."""
    logger, handler = blocking
    server = Milter.Server(hanging, LOOPBACK, logger=logger, max_connections=1).start()
    with connect_to(server) as mta, connect_to(server) as refused:
        mta.negotiate()
        assert refused.is_closed()
        assert handler.inside.wait(DEADLINE)
        assert mta.helo() == "c"
        server.abandon()
        assert server.join(DEADLINE)
        assert mta.is_closed()
    handler.go.set()
    until(lambda: server.stats.left == 0)
