"""The thread model of docs/architecture.md as far as it needs an interpreter; the rest is tested in
C (tests/unit/test_threads.c). Callbacks block until something has happened, never for a time."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import Milter
import milter
import pytest

from . import procfs
from .conftest import Start
from .mta import ALL_ACTIONS, ALL_PROTOCOL, DEADLINE, Mta, inet, option_packet, packet, strings

OURS = pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)
GREETING = option_packet(6, ALL_ACTIONS, ALL_PROTOCOL)
CONNECT = packet("C", inet("localhost", "127.0.0.1", 1))


@pytest.fixture
def pair() -> Iterator[Callable[[Milter.Server], Mta]]:
    """Connects to servers by socket pairs, and closes them after the test."""
    made: list[Mta] = []

    def connect(server: Milter.Server) -> Mta:
        ours, theirs = socket.socketpair()
        made.append(Mta(theirs))
        with ours:  # which closes what was not adopted
            server.adopt(ours)
        return made[-1]

    yield connect
    for mta in made:
        mta.close()


def test_500_callbacks_block_at_once(pair: Callable[[Milter.Server], Mta]) -> None:
    """None goes on before the last one has come: as with 500 threads, they wait beside each
    other."""
    many = 500
    barrier = threading.Barrier(many)

    class Blocking(Milter.Base):
        def hello(self, name: str) -> int:
            barrier.wait(DEADLINE)
            return milter.CONTINUE

    with Milter.Server(Blocking, None, max_threads=512) as server:
        mtas = [pair(server) for _ in range(many)]
        for mta in mtas:
            mta.raw(GREETING + packet("H", strings("me")))
        for mta in mtas:
            assert mta.receive()[0] == "O"
            assert mta.receive() == ("c", b"")
        assert many <= server.stats.threads <= 512
    assert not barrier.broken


def test_a_callback_that_computes(pair: Callable[[Milter.Server], Mta]) -> None:
    """It computes until the connect callbacks of others have been answered: the interpreter
    switches between them."""
    others = 8
    order: list[str] = []
    answered = False

    class Computing(Milter.Base):
        def connect(self, host: str, family: int, address: object) -> int:
            order.append("connect")
            return milter.CONTINUE

        def hello(self, name: str) -> int:
            order.append("begins")
            end = time.monotonic() + DEADLINE
            while not answered and time.monotonic() < end:
                pass
            order.append("ends")
            return milter.CONTINUE

    with Milter.Server(Computing, None) as server:
        busy = pair(server)
        busy.raw(GREETING + packet("H", strings("me")))
        while "begins" not in order:
            time.sleep(0.001)
        mtas = [pair(server) for _ in range(others)]
        for mta in mtas:
            mta.raw(GREETING + CONNECT)
        for mta in mtas:
            assert mta.receive()[0] == "O"
            assert mta.receive() == ("c", b"")
        answered = True
        assert busy.receive()[0] == "O"
        assert busy.receive() == ("c", b"")
    assert order == ["begins", *["connect"] * others, "ends"]


@OURS
def test_a_callback_that_keeps_the_interpreter(start: Start, tmp_path: Path) -> None:
    """Code in C that blocks without releasing it stops all callbacks. The engine sees it, and one
    more thread accepts and reads until it has something to call; no others are started to wait
    with it. When the interpreter is free again, everything is served."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = start(
        """
        import ctypes

        BLOCK = b'''
            echo '{"tuple": ["keeps"]}' >> "$RECORD"
            cat "$PIPE" > /dev/null
            echo '{"tuple": ["releases"]}' >> "$RECORD"
        '''

        class Keeping(Seen):
            def hello(self, name):
                if name == "keep":
                    ctypes.PyDLL(None).system(BLOCK)  # one call, in which nothing is released
                return Milter.CONTINUE

        run(Keeping)
        """,
        PIPE=str(pipe),
    )
    others = 20
    first = program.connect()
    first.negotiate()
    pid = program.process.pid
    threads, files = len(procfs.threads(pid)), procfs.files(pid)
    first.send("H", strings("keep"))
    program.await_step("keeps")
    with pipe.open("wb"):
        mtas = [program.connect() for _ in range(others)]
        for mta in mtas:
            mta.raw(GREETING + CONNECT)
        program.until(lambda: procfs.files(pid) > files)
        ticks = procfs.sleeps(pid)[pid]  # of the main thread, which looks after the others
        program.until(lambda: procfs.sleeps(pid)[pid] >= ticks + 30)
    assert first.receive() == ("c", b"")
    for mta in mtas:
        assert mta.receive()[0] == "O"
        assert mta.receive() == ("c", b"")
    assert program.steps() == ["keeps", "releases", *["connect"] * others]
    # One more, or two where this machine lets a callback wait for a processor.
    assert len(procfs.threads(pid)) - threads <= 2
