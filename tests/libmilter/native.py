"""Programs in C, built against Debian's libmilter, that run on that library or, by LD_LIBRARY_PATH
alone, on ours."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILT = ROOT / "build" / "libmilter" / "src" / "libmilter"
OURS = Path(os.environ.get("MILTERKIT_LIBMILTER", BUILT))
SONAME = "libmilter.so.1.0.1"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-std=gnu17", "-O1", "-g")
DEADLINE = 20.0  # seconds; only what hangs reaches it

#: The libraries, and the environment that a program needs to run on each.
LIBRARIES: dict[str, dict[str, str]] = {"theirs": {}, "ours": {"LD_LIBRARY_PATH": str(OURS)}}


def packet(command: str, data: bytes = b"") -> bytes:
    """One packet of the protocol."""
    return struct.pack(">I", 1 + len(data)) + command.encode() + data


def told_to(**plans: str) -> bytes:
    """The packet of macros that tells the filter what to do in callbacks."""
    texts = (f"{{do:{step}}}\0{plan}\0" for step, plan in plans.items())
    return packet("D", b"C" + "".join(texts).encode())


def compile_c(output: Path, *words: str | Path) -> Path:
    """Compiles and links a program without a warning."""
    subprocess.run((os.environ.get("CC", "cc"), *WARNINGS, "-o", output, *words), check=True)
    return output


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Waits for something that is bound to happen."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {DEADLINE} s"
        time.sleep(0.005)


@dataclass
class Running:
    """A program told.c that runs."""

    process: subprocess.Popen[bytes]
    path: str
    logfile: Path
    read: int = field(default=0)

    def connect(self) -> socket.socket:
        """A connection, as an MTA has it."""
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(DEADLINE)
        peer.connect(self.path)
        return peer

    def log(self) -> str:
        """What the filter has written since this was asked last."""
        with self.logfile.open(errors="surrogateescape") as file:
            file.seek(self.read)
            text = file.read()
            self.read = file.tell()
        return text

    def play(self, data: bytes) -> tuple[bytes, str]:
        """Sends all bytes of an MTA, and returns all that came back and what the filter saw."""
        with self.connect() as peer:
            with contextlib.suppress(BrokenPipeError):  # it has ended the connection already
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
            answers = []
            with contextlib.suppress(ConnectionResetError):  # it closed with bytes unread
                while part := peer.recv(1 << 16):
                    answers.append(part)
        return b"".join(answers), self.log()


@dataclass
class Told:
    """Starts told.c."""

    program: Path
    folder: Path
    count: int = 0

    @contextlib.contextmanager
    def running(self, library: str, *words: str, timeout: int = 7210) -> Iterator[Running]:
        """A filter on a library. `words` are those of the command line from VERSION on."""
        self.count += 1
        path, log = (self.folder / f"{self.count}.{end}" for end in ("socket", "log"))
        command: tuple[str | Path, ...] = (self.program, f"unix:{path}", log, str(timeout), *words)
        with subprocess.Popen(command, env={**os.environ, **LIBRARIES[library]}) as process:
            try:
                filter_ = Running(process, str(path), log)

                def accepts() -> bool:
                    assert process.poll() is None, "the filter did not start"
                    with socket.socket(socket.AF_UNIX) as peer:
                        return peer.connect_ex(filter_.path) == 0

                wait_until(accepts, "the filter's socket")
                if "close" not in words:
                    wait_until(lambda: "close\n" in log.read_text(), "that peer's end")
                filter_.log()
                yield filter_
            finally:
                process.kill()
