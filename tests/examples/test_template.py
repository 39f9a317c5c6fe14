"""examples/template.py: as a program, with its processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter.testing import MTA, AddHeader, Result
from template import scan

EXAMPLES = Path(__file__).parents[2] / "examples"
CLEAN = b"From: a@b\n\nhello\n"
FRAUD = b"From: a@b\nContent-Transfer-Encoding: base64\n\nQSBXaXJlIFRyYW5zZmVyCg==\n"
#: Put into the filter's scan.
CRASH = '    if b"Subject: crash" in message:\n        signal.raise_signal(signal.SIGKILL)\n'
COMMANDS = {
    "milterkit": [f"{Path(sys.executable).parent}/milterkit", "run", "template.py", "--socket",
                  "unix:socket"],
    "python": [sys.executable, "template.py"],
}  # fmt: skip

#: How many workers there are after the first message: as a program, it starts all of them before.
STARTED = {"milterkit": 1, "python": 2}
T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str) -> T:
    """Waits for something that is bound to happen; returns what the condition did."""
    end = time.monotonic() + 20
    while not (result := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.005)
    return result


class Program:
    """The filter, and what it has logged."""

    def __init__(self, command: str, folder: Path, *settings: str) -> None:
        self.command = command
        self.folder = folder
        code, at, rest = (EXAMPLES / "template.py").read_text().partition("    for part in mime.")
        assert at
        (folder / "template.py").write_text(code + CRASH + at + rest)
        text = (EXAMPLES / "template.conf").read_text()
        for setting in ("socket = unix:socket", *settings):
            text = re.sub(rf"(?m)^{setting.split()[0]} = .*", setting, text)
        (folder / "template.conf").write_text(text)
        self.process = subprocess.Popen(
            COMMANDS[command], cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        try:
            wait_until(self._answers, "the socket to answer")
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.folder / "socket")) == 0

    def _read(self) -> None:
        assert self.process.stderr
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def workers(self, count: int) -> list[str]:
        """The ids of the processes that were started, in order, once there are so many."""
        return wait_until(
            lambda: (
                found
                if len(found := re.findall(r"worker (\d+) started", self.log())) >= count
                else []
            ),
            f"{count} workers",
        )

    def next_worker(self) -> int:
        """The one that the next message goes to, after one message."""
        return int(self.workers(STARTED[self.command])[-1])

    def log(self) -> str:
        return "".join(self.lines)

    def mta(self) -> MTA:
        return MTA(self.folder / "socket")

    def send(self, message: bytes) -> str:
        with self.mta() as mta:
            return outcome(mta.send(message))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal, 0 for none, and waits until nobody is left who could write a line."""
        self.process.send_signal(number)
        status = self.process.wait(20)
        self.reader.join(20)
        assert not self.reader.is_alive(), "some process is left"
        assert self.process.stderr
        self.process.stderr.close()
        return status


def outcome(result: Result) -> str:
    return f"{result.code} {result.enhanced}" if result.reply else str(result.verdict)


class Sending(threading.Thread):
    """A message that is on its way."""

    def __init__(self, program: Program, message: bytes) -> None:
        super().__init__(daemon=True)
        self.program, self.message = program, message
        self.outcome = ""
        self.start()

    def run(self) -> None:
        self.outcome = self.program.send(self.message)

    def end(self) -> str:
        self.join(20)
        assert not self.is_alive()
        return self.outcome


@contextmanager
def running(command: str, folder: Path, *settings: str) -> Iterator[Program]:
    """The filter, which has to end well, if the test has not ended it."""
    program = Program(command, folder, "max_bytes = 100000", *settings)
    try:
        yield program
        if program.process.returncode is None:
            assert program.end() == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.process.pid, signal.SIGKILL)


@pytest.fixture(params=COMMANDS)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    with running(request.param, tmp_path) as made:
        yield made


@contextmanager
def stopped(worker: int) -> Iterator[None]:
    """A worker does not answer meanwhile; if it is still there afterwards, it goes on."""
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)


def is_gone(process: int) -> bool:
    """Whether it has ended, waited for or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_messages(program: Program) -> None:
    with program.mta() as mta:
        clean = mta.send(CLEAN)
        assert clean.changes == (AddHeader("X-Scanned", "yes"),)
        assert outcome(mta.send(FRAUD)) == "550 5.7.1"
        assert outcome(mta.send(CLEAN + 50_000 * b"x\n")) == "552 5.3.4"
        assert outcome(mta.send(b"")) == "accepted"


@given(
    st.binary(), st.sampled_from([b"", b"Content-Type: text/html; charset=x\n", b"Content-Type: "])
)
def test_any_message_can_be_scanned(content: bytes, head: bytes) -> None:
    assert scan(head + content, [b"word"]) in (b"", b"word")


def test_lines_have_the_queue_id(program: Program) -> None:
    with program.mta() as mta:
        mta.send(CLEAN, "\x1b[31m\udcff@d", ["b@d", "c@d"])
        mta.send(FRAUD)
        with mta.session() as session:
            session.mail("a@d")
            session.abort()
    program.end()
    lines = [
        line.partition(" INFO ")[2].strip()
        for line in program.lines
        if " template INFO " in line and " worker " not in line
    ]
    assert lines == [
        r"QUEUEID001: from '<\x1b[31m\udcff@d>', recipients: 2",
        "QUEUEID001: clean",
        "QUEUEID002: from '<sender@example.org>', recipients: 1",
        "QUEUEID002: refused: it has b'wire transfer'",
        "localhost: given up",
    ]


def test_messages_are_scanned_in_several_processes(program: Program) -> None:
    assert program.send(CLEAN) == "accepted"
    with stopped(program.next_worker()):
        both = [Sending(program, CLEAN) for _ in range(2)]
        wait_until(lambda: not all(each.is_alive() for each in both), "one of two messages")
        assert any(each.is_alive() for each in both)
        assert len(program.workers(2)) == 2
    assert [each.end() for each in both] == ["accepted", "accepted"]


def test_a_crash_costs_one_message(program: Program) -> None:
    assert program.send(b"Subject: crash\n\nhi\n") == "451 4.7.1"
    wait_until(lambda: "QUEUEID001: not scanned: " in program.log(), "a line about it")
    assert [program.send(CLEAN) for _ in range(3)] == ["accepted"] * 3


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    with running("python", tmp_path, "seconds = 2") as program:
        worker = program.next_worker()
        with stopped(worker):
            assert program.send(CLEAN) == "451 4.7.1"
            assert is_gone(worker)
        wait_until(lambda: "no answer within 2 seconds" in program.log(), "a line about it")
        # The next one has as much time, which may be too short for its start.
        wait_until(lambda: program.send(CLEAN) == "accepted", "a worker that answers")


def test_a_worker_that_dies_while_it_is_free_costs_nothing(program: Program) -> None:
    assert program.send(CLEAN) == "accepted"
    worker = program.next_worker()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: is_gone(worker), "the end of the worker")
    assert program.send(CLEAN) == "accepted"


def test_a_stop_lets_a_message_finish(program: Program) -> None:
    with program.mta() as mta, mta.session() as session:
        session.mail("a@d")
        session.rcpt("b@d")
        session.data()
        session.eoh()
        wait_until(lambda: "QUEUEID001: from" in program.log(), "the filter, in the message")
        program.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not (program.folder / "socket").exists(), "the end of the socket")
        assert session.eom().kind == "continue"
        assert session.changes == (AddHeader("X-Scanned", "yes"),)
    assert program.end(0) == 0


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_of_them_ends_them(command: str, number: int, tmp_path: Path) -> None:
    """As from systemd, or from the terminal by Ctrl-C."""
    with running(command, tmp_path, "workers = 1") as program:
        assert program.send(CLEAN) == "accepted"  # by now no worker is still being started
        os.killpg(program.process.pid, number)
        assert program.end(0) == 0
        assert "Traceback" not in program.log()


def test_workers_end_when_the_filter_dies(program: Program) -> None:
    assert program.send(CLEAN) == "accepted"
    assert program.end(signal.SIGKILL) == -signal.SIGKILL
    workers = [int(each) for each in program.workers(1)]
    wait_until(lambda: all(is_gone(each) for each in workers), "the end of the workers")
