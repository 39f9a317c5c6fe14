"""Programs of others as they run: in the foreground or not, as root or not."""

import os
import signal
import socket
import struct
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mta import wait_for
from program import ENDED, Program


class Running:
    """A program that serves on a unix socket, on our library or on Debian's. Use as a context
    manager; when that ends, or at the latest then, so does the program."""

    def __init__(self, program: Program, ours: bool, folder: Path) -> None:
        self.program, self.ours, self.folder = program, ours, folder
        folder.mkdir()
        folder.chmod(0o777)  # programs that give up being root make files there
        self.socket = folder / "socket"
        self._said = folder / "output"
        self._stack = ExitStack()
        self.pid = 0

    def __enter__(self) -> "Running":
        with ExitStack() as stack:
            start = stack.enter_context(self.program.start(self.ours, self.folder, self.socket))
            with self._said.open("wb") as said:
                process = subprocess.Popen(
                    start.arguments,
                    env={**os.environ, **start.environment},
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    umask=0,  # Postfix's user must reach the socket
                )
            self.process = process
            stack.callback(self._end)
            wait_for("the program to answer", lambda: self._answers() or process.poll())
            assert not process.poll(), self.said()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _answers(self) -> bool:
        """Whether its socket takes connections; notes who listens there."""
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.socket)):
                return False
            peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid = struct.unpack("3i", peer)[0]
        return True

    def _end(self) -> None:
        """Kills it."""
        if self.pid and self._alive():
            os.kill(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    @property
    def _background(self) -> bool:
        """Whether it left what was started."""
        return self.pid != self.process.pid

    def _alive(self) -> bool:
        """Whether the process that listens has not ended."""
        if not self._background:
            return self.process.poll() is None
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except FileNotFoundError:
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"

    def end(self) -> int:
        """Waits for its end. Returns its exit code, or ENDED if that is not known."""
        wait_for("the program to end", lambda: not self._alive())
        return ENDED if self._background else self.process.wait()

    def said(self) -> str:
        """What it wrote so far."""
        text = self._said.read_text(errors="replace")
        return text.replace(str(self.folder), "FOLDER")

    def libraries(self) -> list[str]:
        """The files that it has mapped of what it is run on."""
        lines = Path(f"/proc/{self.pid}/maps").read_text().splitlines()
        files = {line.split()[-1] for line in lines}
        return sorted(name for name in files if self.program.library.search(name))

    def facts(self) -> dict[str, Any]:
        """What it made of itself, and its socket."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        where = self.socket.stat()
        file = self.folder / "pid"
        return {
            **{name: fields[name].split() for name in ("Uid", "Gid", "Groups", "Umask")},
            "folder": os.readlink(f"/proc/{self.pid}/cwd").replace(str(self.folder), "FOLDER"),
            "in the background": self._background,
            "leads its session": os.getsid(self.pid) == self.pid,
            "PID file": file.exists() and file.read_text() == str(self.pid),
            "socket": (oct(where.st_mode), where.st_uid, where.st_gid),
        }
