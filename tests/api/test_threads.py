"""The thread model of docs/architecture.md as far as it needs an interpreter; the rest is tested in
C (tests/unit/test_threads.c). Callbacks block until something has happened, never for a time."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
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
        (watcher,) = procfs.named(pid, "mkit-watcher")
        ticks = procfs.sleeps(pid)[watcher]
        program.until(lambda: procfs.sleeps(pid)[watcher] >= ticks + 30)
    assert first.receive() == ("c", b"")
    for mta in mtas:
        assert mta.receive()[0] == "O"
        assert mta.receive() == ("c", b"")
    assert program.steps() == ["keeps", "releases", *["connect"] * others]
    # One more, or two where this machine lets a callback wait for a processor.
    assert len(procfs.threads(pid)) - threads <= 2


def test_what_callbacks_start_has_the_programs_signals(
    pair: Callable[[Milter.Server], Mta],
) -> None:
    """None is blocked that the program does not block: a scanner can be ended, and its own alarms
    reach it."""
    show = ["grep", "^SigBlk", "/proc/self/status"]
    found: list[bytes | int] = []

    class Starting(Milter.Base):
        def hello(self, name: str) -> int:
            found.append(subprocess.check_output(show))
            with subprocess.Popen(["sleep", "60"]) as child:
                child.terminate()
                found.append(child.wait(DEADLINE))
            return milter.CONTINUE

    with Milter.Server(Starting, None) as server:
        mta = pair(server)
        mta.negotiate()
        assert mta.helo() == "c"
    assert found == [subprocess.check_output(show), -signal.SIGTERM]


def test_signals_that_reach_the_engines_threads(pair: Callable[[Milter.Server], Mta]) -> None:
    """They interrupt whatever a thread does in the kernel, and no message; Python's handlers run in
    the main thread."""
    seen: set[int] = set()
    handled_in: set[int] = set()
    ended = threading.Event()

    class Counting(Milter.Base):
        def eom(self) -> int:
            self.addheader("X-Seen", "yes")
            return milter.CONTINUE

    def send() -> None:
        while not ended.is_set():
            for task in procfs.threads(os.getpid()):
                if task in ours:
                    continue
                # signal.pthread_kill crashes on threads that have ended.
                if libc.tgkill(os.getpid(), task, signal.SIGUSR1) == 0:
                    seen.add(task)

    libc = ctypes.CDLL(None)
    sender = threading.Thread(target=send)
    before = signal.signal(signal.SIGUSR1, lambda *_: handled_in.add(threading.get_native_id()))
    try:
        ours = {threading.get_native_id()}
        with Milter.Server(Counting, None) as server:
            mtas = [pair(server) for _ in range(4)]
            for mta in mtas:
                mta.negotiate()
            sender.start()
            ours.add(sender.native_id or 0)
            for _ in range(100):
                for mta in mtas:
                    assert mta.helo() == mta.mail() == mta.rcpt() == mta.data() == "c"
                    assert [command for command, _ in mta.eom()] == ["h", "c"]
            ended.set()
            sender.join()
    finally:
        ended.set()
        signal.signal(signal.SIGUSR1, before)
    assert seen
    assert handled_in == {threading.get_native_id()}
