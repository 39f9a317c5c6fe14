"""What the library itself writes to the system's log about connections: ours writes lines where
Sendmail's writes none. docs/differences.md lists them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from native import HERE, LIBRARIES, Told, compile_c, packet, wait_until
from test_same import OFFERS, PACKETS, offer

#: What an MTA sends, and what ours says of it.
LINES = {
    "cut inside a packet": (b"\0\0\0\5H", "the MTA closed the connection inside a packet"),
    "cut inside a message": (PACKETS["M"], "the MTA closed the connection inside a message"),
    "a packet that breaks the protocol": (packet("M", b"abc"), "packet MAIL"),
    "a length that is none": (b"\0\0\0\0M", "length"),
    "an orderly end": (PACKETS["Q"], None),
}


@contextlib.contextmanager
def logging(told: Told, library: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """A filter on a library: its socket, and the file that its log lines go to."""
    shim = compile_c(folder / "log.so", "-shared", "-fPIC", HERE / "log.c")
    path, log = folder / "socket", folder / "log"
    env = {**os.environ, **LIBRARIES[library], "LD_PRELOAD": str(shim)}
    command = (told.program, f"unix:{path}", folder / "calls", "7210", "0x01000001", "0x1ff", "-")
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, env=env, stderr=stderr) as process,
    ):
        try:
            wait_until(path.exists, "the filter's socket")
            yield path, log
        finally:
            process.kill()


@pytest.mark.parametrize("name", LINES)
def test_lines_of_connections(told: Told, tmp_path: Path, name: str) -> None:
    data, line = LINES[name]
    for library in LIBRARIES:
        folder = tmp_path / library
        folder.mkdir()
        with logging(told, library, folder) as (path, log):
            for sent in (data, PACKETS["Q"]):  # the second ends behind what is said of the first
                with socket.socket(socket.AF_UNIX) as peer:
                    wait_until(lambda to=peer: to.connect_ex(str(path)) == 0, "a connection")
                    peer.sendall(offer(OFFERS[0]) + PACKETS["C"] + sent)
                    peer.shutdown(socket.SHUT_WR)
                    with contextlib.suppress(ConnectionResetError):
                        while peer.recv(1 << 16):
                            pass
            if library == "ours" and line:
                wait_until(lambda at=log: line in at.read_text(), line)
            calls = folder / "calls"
            wait_until(lambda at=calls: at.read_text().count("close\n") >= 2, "both ends")
            if library == "theirs" or not line:
                assert log.read_text() == ""
