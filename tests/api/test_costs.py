"""What a filter in Python costs the system, as counts: system calls per packet and message, bytes
of memory and wake-ups of idle connections. The engine's own part is in tests/unit/test_idle.c."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import termios
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from . import procfs
from .conftest import Program, Start
from .mta import Mta, packet, strings

OURS = pytest.mark.parametrize("implementation", ["ours-lowlevel", "ours-fast"], indirect=True)

EVERY_STEP = """
    class Every(Milter.Base):
        def _continue(self, *args):
            return Milter.CONTINUE

        connect = hello = envfrom = envrcpt = data = _continue
        header = eoh = body = eom = abort = _continue

    run(Every)
"""
#: The same, but replies are wanted at HELO and at the end of the message only.
NO_REPLIES = EVERY_STEP.replace(
    "    run(Every)",
    """
    class Silent(Every):
        @Milter.noreply
        def envfrom(self, *args): return Milter.CONTINUE
        @Milter.noreply
        def envrcpt(self, *args): return Milter.CONTINUE
        @Milter.noreply
        def data(self, *args): return Milter.CONTINUE
        @Milter.noreply
        def header(self, *args): return Milter.CONTINUE
        @Milter.noreply
        def eoh(self, *args): return Milter.CONTINUE
        @Milter.noreply
        def body(self, *args): return Milter.CONTINUE

    run(Silent)
""",
)
MESSAGE = [
    packet("M", strings("<a@b>")),
    packet("R", strings("<c@d>")),
    packet("T"),
    *[packet("L", strings(f"X-{i}", "value")) for i in range(5)],
    packet("N"),
    packet("B", b"x" * 4000),
    packet("E"),
]
MESSAGES = 30


@pytest.fixture
def start_traced(start: Start, tmp_path: Path) -> Start:
    """Starts a program whose system calls are written down. Those by which the engine reads a
    thread's clocks are not, and so cost no stop: strace's stops would look like waits there."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt-get install strace")
    under = ["strace", "-D", "-f", "--seccomp-bpf", "-e", "trace=!getrusage", "-s", "64"]
    return partial(start, under=[*under, "-o", str(tmp_path / "trace")])


@contextmanager
def traced(program: Program, mta: Mta, folder: Path) -> Iterator[list[str]]:
    """The system calls that the program's worker threads make meanwhile, by name. The watcher looks
    after them every few milliseconds while there is work; it is not counted."""
    calls: list[str] = []
    runners = {str(tid) for tid in procfs.named(program.process.pid, "mkit-runner")}
    assert mta.helo("begin") == "c"
    yield calls
    assert mta.helo("end") == "c"
    trace = folder / "trace"
    program.until(lambda: 'Hend\\0"' in trace.read_text(errors="replace"))
    lines = trace.read_text(errors="replace").splitlines()
    begin, end = (
        next(i for i, line in enumerate(lines) if f'H{name}\\0"' in line)
        for name in ("begin", "end")
    )
    for line in lines[begin + 1 : end + 1]:
        tid, call = line.split(None, 1)
        if name := re.match(r"(\w+)\(", call):
            calls.extend([name[1]] * (tid in runners))


def check(calls: list[str], most: int) -> None:
    """Judges them. The locks of the server cost a call only where two threads want the same one,
    which happens now and then."""
    locks = calls.count("futex")
    assert 0 < len(calls) - locks <= most, calls
    assert locks <= most / 10, calls


@OURS
def test_calls_with_every_step_answered(start_traced: Start, tmp_path: Path) -> None:
    """Three for each packet: wait, read, write."""
    program = start_traced(EVERY_STEP)
    mta = program.connect()
    mta.negotiate()
    with traced(program, mta, tmp_path) as calls:
        for _ in range(MESSAGES):
            for command in MESSAGE:
                mta.raw(command)
                assert mta.receive() == ("c", b"")
    # The HELO that begins is answered, the one that ends is read.
    check(calls, 3 * (MESSAGES * len(MESSAGE) + 1))


def await_read(mta: Mta) -> None:
    """Waits until the filter has read all that was sent to it."""
    unread = array("i", [1])
    while unread[0]:
        fcntl.ioctl(mta.sock, termios.TIOCOUTQ, unread)


@OURS
@pytest.mark.parametrize("writes", [1, 2])
def test_calls_without_replies(start_traced: Start, tmp_path: Path, writes: int) -> None:
    """Six at most for a whole message, which reaches the filter in one piece or in two."""
    program = start_traced(NO_REPLIES)
    mta = program.connect()
    mta.negotiate()
    half = len(MESSAGE) // 2
    parts = [MESSAGE] if writes == 1 else [MESSAGE[:half], MESSAGE[half:]]
    with traced(program, mta, tmp_path) as calls:
        for _ in range(MESSAGES):
            for part in parts:
                mta.raw(b"".join(part))
                await_read(mta)
            assert mta.receive() == ("c", b"")
    check(calls, 6 * MESSAGES + 3)


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many descriptors the test may have; as many as the system allows."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(before[1], 10_200) if os.geteuid() == 0 else before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0], most))


def open_idle(program: Program, count: int) -> None:
    """Opens connections and negotiates: an MTA has nothing to say to a filter without callbacks."""
    for _ in range(count):
        program.connect().negotiate()


@pytest.mark.parametrize("implementation", ["ours-fast"], indirect=True)
def test_idle_connections(start: Start, many_files: int) -> None:
    """With the object of an empty subclass of Base at most 3 KiB each; no thread, no wake-ups.
    What the system keeps for the sockets is not counted."""
    count = min(10_000, many_files - 200)
    assert count >= 4000
    program = start(
        """
        import resource
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

        class Empty(Milter.Base):
            pass

        run(Empty)
        """
    )
    warm = 200
    open_idle(program, warm)
    pid = program.process.pid
    procfs.await_stillness(pid)
    threads, memory = len(procfs.threads(pid)), procfs.memory(pid)
    open_idle(program, count - warm)
    procfs.await_stillness(pid)
    each = (procfs.memory(pid) - memory) / (count - warm)
    print(f"{count} idle connections, {each:.0f} bytes each")
    assert 0 < each <= 3072
    assert procfs.files(pid) >= count
    assert len(procfs.threads(pid)) <= threads + 1
