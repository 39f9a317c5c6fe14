"""Logs that cannot be written, because a disk is full or a handler is broken: mail goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .mta import DEADLINE, Mta
from .test_server import until

FILTER = """
import Milter
class Filter(Milter.Base):
    def hello(self, name):
        if name == "print":
            print("hello", flush=True)
        if name == "raise":
            raise RuntimeError("deliberate")
        return Milter.CONTINUE
    def eom(self):
        self.addheader("X-Seen", "yes")
        return Milter.CONTINUE
"""

SERVING = """
import logging, os, sys
def install():
    {log}
full = os.open("/dev/full", os.O_WRONLY)
os.dup2(full, 1)
os.dup2(full, 2)
install()
with Milter.Server(Filter, "unix:" + sys.argv[1], max_connections=1) as server:
    sys.stdin.read()
"""

# Python's own word for standard output that it could not write out at the end.
UNWRITTEN = 120
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}

LOGS = {
    "a file": 'logging.basicConfig(filename="/dev/full", level="DEBUG")',
    "standard error": 'logging.basicConfig(level="DEBUG")',
    "none": "pass",
    "a handler that raises": (
        "logging.Handler.emit = lambda self, line: 1 / 0; "
        "logging.getLogger().addHandler(logging.Handler())"
    ),
    "a handler and a hook that raise": (
        "logging.Handler.emit = lambda self, line: 1 / 0; "
        "logging.getLogger().addHandler(logging.Handler()); "
        "sys.unraisablehook = lambda args: 1 / 0"
    ),
}


def answers(path: Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether the filter serves by now."""
    assert process.poll() is None
    try:
        mta = Mta.unix(str(path))
    except OSError:
        return False
    with mta:
        mta.negotiate()
        mta.quit()
    return True


def check(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Callbacks that fail, a connection too many, and a whole message after each."""
    until(lambda: answers(path, process))
    for name in ("raise", "print", "raise"):
        with Mta.unix(str(path)) as mta:
            mta.negotiate()
            assert mta.helo(name)[0] == "y"
            with Mta.unix(str(path)) as other:
                assert other.is_closed()
            assert mta.helo() == "c"
            assert mta.mail() == mta.rcpt() == mta.data() == mta.eoh() == mta.body() == "c"
            assert [command for command, _ in mta.eom()] == ["h", "c"]
            mta.quit()


@pytest.mark.parametrize("log", LOGS)
def test_a_server(tmp_path: Path, log: str) -> None:
    path = tmp_path / "socket"
    source = FILTER + SERVING.format(log=LOGS[log])
    command = [sys.executable, "-c", source, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=BUFFERED) as process:
        try:
            check(path, process)
            process.communicate(timeout=DEADLINE)
            assert process.returncode == UNWRITTEN
        finally:
            process.kill()


def test_the_program(tmp_path: Path) -> None:
    """`milterkit run`, which logs to standard error."""
    path = tmp_path / "socket"
    (tmp_path / "filter.py").write_text(FILTER)
    arguments = ["run", str(tmp_path / "filter.py"), "--socket", f"unix:{path}"]
    with (
        open("/dev/full", "wb") as full,
        subprocess.Popen(
            [sys.executable, "-m", "Milter", *arguments, "--max-connections", "1"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
            env=BUFFERED,
        ) as process,
    ):
        try:
            check(path, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == UNWRITTEN
        finally:
            process.kill()
