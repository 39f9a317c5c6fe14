"""A filter that answers each command by bytes of a table: what no library would let it answer."""

import contextlib
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from Milter import _wire
from mta import wait_for

Packet = tuple[Any, ...]


def packets(*each: bytes) -> bytes:
    """Packets as they are on the wire."""
    return b"".join(len(data).to_bytes(4, "big") + data for data in each)


def options(version: int = 6, actions: int = 0x1FF, protocol: int = 0, lists: bytes = b"") -> bytes:
    """The answer to a negotiation."""
    words = b"".join(number.to_bytes(4, "big") for number in (version, actions, protocol))
    return packets(b"O" + words + lists)


CONTINUE = packets(b"c")
USUAL: Mapping[bytes, bytes | None] = {b"O": options(), **dict.fromkeys((b"D", b"A", b"Q"), b"")}


class RawFilter:
    """Listens on a unix socket. `answers` has bytes for commands, None for closing; the others are
    answered by CONTINUE. Use as a context manager, for one connection after the other."""

    def __init__(self, path: Path, answers: Mapping[bytes, bytes | None]) -> None:
        self.answers = {**USUAL, **answers}
        self.seen: list[Packet] = []
        self._over = 0
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o777)  # the MTA's user must reach it
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "RawFilter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def wait(self) -> list[Packet]:
        """Waits for the end of a connection, and returns what came on it."""
        wait_for("the end of the filter's connection", lambda: self._over)
        return self.seen

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):
                self._talk(connection)
            self._over += 1

    def _talk(self, connection: socket.socket) -> None:
        decoder = _wire.Decoder(_wire.TO_FILTER)
        while data := connection.recv(65536):
            decoder.feed(data)
            while packet := decoder.next():
                self.seen.append(packet)
                answer = self.answers.get(packet[0], CONTINUE)
                if answer is None:
                    return
                if answer:
                    connection.sendall(answer)
