"""Callbacks that run long: progress that the server sends for them, MTAs that hang up meanwhile,
and bodies that a slow MTA makes wait."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import Milter
import milter
import pytest
from Milter.testing import MTA

from . import procfs
from .conftest import Program, start_program
from .mta import DEADLINE, Mta
from .test_server import connect_to
from .test_server_life import LOOPBACK

SOON = 0.02  # seconds between progress


class Filter(Milter.Base):
    """Waits in the callback that a test names until the test lets it go."""

    where: ClassVar[str]
    go: ClassVar[threading.Event]
    inside: ClassVar[threading.Event]
    closed: ClassVar[threading.Event]
    asked: ClassVar[list[object]]

    def hold(self, step: str) -> int:
        if step == self.where:
            self.asked.append(self.mta_gone())
            self.inside.set()
            assert self.go.wait(DEADLINE)
            self.asked.append(self.mta_gone())
        return milter.CONTINUE

    def envfrom(self, f: str, *params: str) -> int:
        return self.hold("envfrom")

    def eom(self) -> int:
        self.addheader("X-Queued", "before the wait")
        return self.hold("eom")

    def close(self) -> int:
        self.closed.set()
        return milter.CONTINUE


@pytest.fixture
def held() -> Iterator[type[Filter]]:
    """A filter class of its own for each test, held in eom."""

    class Own(Filter):
        where = "eom"
        go = threading.Event()
        inside = threading.Event()
        closed = threading.Event()
        asked: ClassVar[list[object]] = []

    yield Own
    Own.go.set()


def connect(server: Milter.Server) -> Mta:
    ours, theirs = socket.socketpair()
    server.adopt(theirs)
    mta = Mta(ours)
    mta.negotiate()
    return mta


def test_progress_for_a_callback_that_runs_long(held: type[Filter]) -> None:
    with Milter.Server(held, None, progress=SOON) as server, connect(server) as mta:
        assert mta.mail() == "c"
        mta.send("E")
        assert [mta.receive() for _ in range(5)] == [("p", b"")] * 5
        held.go.set()
        packets = [mta.receive()]
        while packets[-1][0] != "c":
            packets.append(mta.receive())
        assert [packet for packet in packets if packet[0] != "p"] == [
            ("h", b"X-Queued\0before the wait\0"),
            ("c", b""),
        ]
        assert mta.mail() == "c"
    assert held.asked == [False, False]


def test_progress_of_runmilter(tmp_path: Path) -> None:
    program: Program = start_program(
        "ours-fast",
        tmp_path / "program",
        f"""
        class Filter(Milter.Base):
            def eom(self):
                go.wait()
                return Milter.CONTINUE
            def close(self):
                go.set()
                return Milter.CONTINUE
        go = threading.Event()
        run(Filter, progress={SOON})
        """,
    )
    try:
        mta = program.connect()
        mta.negotiate()
        mta.mail()
        mta.send("E")
        assert [mta.receive() for _ in range(3)] == [("p", b"")] * 3
        other = program.connect()  # its close callback lets the first one go on
        other.negotiate()
        other.quit()
        packets = [mta.receive()]
        while packets[-1][0] == "p":
            packets.append(mta.receive())
        assert packets[-1] == ("c", b"")
    finally:
        program.finish()


@pytest.mark.parametrize("where", ["envfrom", "eom"])
def test_an_mta_that_hangs_up(held: type[Filter], where: str) -> None:
    held.where = where
    with Milter.Server(held, None, progress=SOON) as server:
        with connect(server) as mta:
            if where == "eom":
                mta.mail()
            mta.send("E" if where == "eom" else "M", b"" if where == "eom" else b"<a@b>\0")
            assert held.inside.wait(DEADLINE)
        held.go.set()
        assert held.closed.wait(DEADLINE)
    assert held.asked == [False, True]


def test_the_question_belongs_to_the_callback(held: type[Filter]) -> None:
    """As all of a context: elsewhere there may be no connection to ask about."""

    class Asking(held):  # type: ignore[valid-type, misc]
        def eom(self) -> int:
            with ThreadPoolExecutor(1) as pool:
                self.asked.append(pool.submit(self.mta_gone).exception())
            return milter.CONTINUE

    with Milter.Server(Asking, None) as server, connect(server) as mta:
        mta.mail()
        mta.eom()
    [raised] = held.asked
    assert isinstance(raised, milter.error)
    assert str(raised) == "bad context"


def test_none_if_it_is_off(held: type[Filter]) -> None:
    with (
        Milter.Server(held, None, progress=0) as server,
        Milter.Server(held, None, progress=SOON) as other,
        connect(server) as mta,
        connect(other) as clock,
    ):
        for each in (mta, clock):
            each.mail()
            each.send("E")
        assert [clock.receive()[0] for _ in range(5)] == ["p"] * 5
        held.go.set()
        assert [mta.receive()[0] for _ in range(2)] == ["h", "c"]


def test_the_testing_mta_takes_it(held: type[Filter], tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/s"
    with (
        Milter.Server(held, path, progress=SOON),
        MTA(path) as mta,
        ThreadPoolExecutor(1) as pool,
    ):
        session = mta.session()
        session.mail("<a@b>")
        answer = pool.submit(session.eom)
        until = time.monotonic() + DEADLINE
        while sum("PROGRESS" in line for line in session.trace) < 3:
            assert time.monotonic() < until, session.trace
            time.sleep(0.01)
        held.go.set()
        assert answer.result().kind == "continue"
        session.close()


# ------------------------------------------------------------------------------------- bodies

BODY = 50 << 20

#: Replaces the body by BODY bytes in one call and tells by how many KiB memory grew at its peak.
REPLACER = """
import sys
import Milter

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field))

class Filter(Milter.Base):
    def envfrom(self, f, *params):
        self.large = f == "<large>"
        return Milter.CONTINUE
    def eom(self):
        if self.large:
            before = memory("VmRSS")
            self.replacebody(BODY)
            self.addheader("X-Grown", str(memory("VmHWM") - before))
        return Milter.CONTINUE

BODY = bytes(range(256)) * (int(sys.argv[2]) >> 8)
server = Milter.Server(Filter, sys.argv[1])
server.open()
print("open", flush=True)
server.serve_forever()
"""


def test_a_large_body_for_a_slow_mta(tmp_path: Path) -> None:
    """One call; others are served while its MTA does not read; it waits outside of memory."""
    most = 4096  # KiB of growth; a copy would be 51200
    path = tmp_path / "s"
    with subprocess.Popen(
        [sys.executable, "-c", REPLACER, f"unix:{path}", str(BODY)], stdout=subprocess.PIPE
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == b"open\n"
            with Mta.unix(str(path)) as mta, Mta.unix(str(path)) as other:
                for each in (mta, other):
                    each.negotiate()
                mta.mail("<large>")
                mta.send("E")
                letter, first = mta.receive()  # the call has begun, and soon finds the socket full
                for _ in range(20):
                    other.mail()
                    assert other.eom() == [("c", b"")]
                new = bytearray()
                while letter == "b":
                    new += first
                    letter, first = mta.receive()
                assert (letter, first[:8]) == ("h", b"X-Grown\0")
                assert len(new) == BODY
                assert new == bytes(range(256)) * (BODY >> 8)
                assert int(first[8:-1]) < most
                assert mta.receive() == ("c", b"")
        finally:
            program.kill()


def test_a_body_for_an_mta_that_never_reads(held: type[Filter]) -> None:
    """The call fails at the server's time-out, and the connection ends; others are served."""

    class Replacing(held):  # type: ignore[valid-type, misc]
        failed = False

        def eom(self) -> int:
            self.inside.set()
            try:
                self.replacebody(bytes(4 << 20))
            except milter.error as error:
                self.asked.append(str(error))
                self.failed = True
            return milter.CONTINUE

        def close(self) -> int:
            return super().close() if self.failed else milter.CONTINUE

    with Milter.Server(Replacing, None, timeout=1) as server, connect(server) as mta:
        mta.mail()
        mta.send("E")
        assert held.inside.wait(DEADLINE)
        with connect(server) as other:
            assert other.mail() == "c"
        assert held.closed.wait(DEADLINE)
        while mta.sock.recv(1 << 16):  # what it did not read, and the connection's end
            pass
    assert held.asked == ["the MTA did not answer in time"]
    assert server.stats.open == 0


# ------------------------------------------------------ what must not hold other connections up


def test_progress_while_the_interpreter_is_kept(tmp_path: Path) -> None:
    """One callback in C keeps the interpreter's lock, then a signal comes for Python's main thread,
    which waits for that lock too: the MTA of another callback still gets progress."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program: Program = start_program(
        "ours-fast",
        tmp_path / "program",
        f"""
        import ctypes, signal

        BLOCK = b'''
            echo '{{"tuple": ["keeps"]}}' >> "$RECORD"
            cat "$PIPE" > /dev/null
            echo '{{"tuple": ["releases"]}}' >> "$RECORD"
        '''

        class Filter(Milter.Base):
            def hello(self, name):
                ctypes.PyDLL(None).system(BLOCK)  # one call, in which nothing is released
                return Milter.CONTINUE
            def eom(self):
                go.wait()
                return Milter.CONTINUE

        def handler(number, frame):
            record("signal")
            go.set()

        go = threading.Event()
        signal.signal(signal.SIGUSR1, handler)
        run(Filter, progress={SOON})
        """,
        PIPE=str(pipe),
    )
    pid = program.process.pid
    try:
        mta, keeping = program.connect(), program.connect()
        for each in (mta, keeping):
            each.negotiate()
        mta.mail()
        mta.send("E")
        assert mta.receive() == ("p", b"")
        keeping.send("H", b"me\0")
        program.await_step("keeps")
        with pipe.open("wb"):
            sleeps = procfs.sleeps(pid)[pid]
            program.signal(signal.SIGUSR1)
            program.until(lambda: procfs.sleeps(pid)[pid] > sleeps)  # it has woken, and waits
            assert [mta.receive() for _ in range(20)] == [("p", b"")] * 20
            assert program.steps() == ["keeps"]
        assert keeping.receive() == ("c", b"")
        packets = [mta.receive()]
        while packets[-1][0] == "p":
            packets.append(mta.receive())
        assert packets[-1] == ("c", b"")
        assert program.steps() == ["keeps", "releases", "signal"]
    finally:
        program.finish()


class FullPipe(logging.Handler):
    """Writes to a pipe that is full and that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = None  # each line blocks by itself
        self.inside = threading.Event()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(self.writer, bytes(4096)):
                pass
        os.set_blocking(self.writer, True)

    def emit(self, record: logging.LogRecord) -> None:
        self.inside.set()
        with contextlib.suppress(BrokenPipeError):
            os.write(self.writer, self.format(record).encode())

    def unblock(self) -> None:
        """Lets what waits go on, and what is to come."""
        if self.reader >= 0:
            os.close(self.reader)
        self.reader = -1

    @contextlib.contextmanager
    def unblocking(self) -> Iterator[None]:
        """Unblocks it at the latest when this is left, so that its server can end."""
        try:
            yield
        finally:
            self.unblock()


@pytest.fixture
def full_pipe() -> Iterator[FullPipe]:
    """A handler that blocks until the test lets it go on."""
    handler = FullPipe()
    yield handler
    os.close(handler.writer)


@pytest.mark.parametrize(
    ("what", "max_threads"),
    [
        ("an exception", 2),  # its line is a part of the callback, which takes one thread
        ("a packet out of order", 1),
        ("a refused connection", 1),
    ],
)
def test_a_log_that_blocks(
    full_pipe: FullPipe, monkeypatch: pytest.MonkeyPatch, what: str, max_threads: int
) -> None:
    """It holds up the connection that the line is about, and no other one."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # exceptions are lines

    class Raising(Milter.Base):
        def hello(self, name: str) -> int:
            if name == "raise":
                raise ValueError
            return milter.CONTINUE

        def envrcpt(self, to: str, *params: str) -> int:
            return milter.CONTINUE

    logger = logging.Logger("full", logging.WARNING)
    logger.addHandler(full_pipe)
    limit = 2 if what == "a refused connection" else 0
    with (
        Milter.Server(
            Raising, LOOPBACK, logger=logger, max_threads=max_threads, max_connections=limit
        ) as server,
        connect_to(server) as own,
        connect_to(server) as other,
        full_pipe.unblocking(),
    ):
        for each in (own, other):
            each.negotiate()
        if what == "an exception":
            own.send("H", b"raise\0")
        elif what == "a packet out of order":
            assert own.mail() == "c"
            own.send("E")  # without a recipient
        else:
            with connect_to(server) as refused:
                assert refused.is_closed()
        assert full_pipe.inside.wait(DEADLINE)
        for _ in range(10):
            assert other.helo() == "c"
            assert other.mail() == "c"
            assert other.rcpt() == "c"
            assert other.eom() == [("c", b"")]
        full_pipe.unblock()
        if what == "an exception":
            assert own.receive()[0] in "ty"
        assert own.helo() == "c"
