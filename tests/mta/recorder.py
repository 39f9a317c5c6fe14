"""A proxy between an MTA and a filter that keeps what each of them sends."""

import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

from mta import wait_for


@dataclass
class Connection:
    """One connection: what passed, in order, and who sent it: "mta" or "filter"."""

    passed: list[tuple[str, bytes]] = field(default_factory=list)
    over: bool = False

    def sent(self, who: str) -> bytes:
        """All that one side sent."""
        return b"".join(data for sender, data in self.passed if sender == who)


class Recorder:
    """Listens on a unix socket, and connects to the filter's for each connection that it takes.
    Use as a context manager."""

    def __init__(self, listen: Path, to: Path) -> None:
        self.to = to
        self.connections: list[Connection] = []
        listen.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(listen))
        listen.chmod(0o777)  # the MTA's user must reach it
        self._server.listen()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> "Recorder":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()

    def finished(self) -> list[Connection]:
        """Waits until there is a connection and all are over, and returns them."""
        wait_for(
            "the end of the connections",
            lambda: self.connections and all(each.over for each in self.connections),
        )
        return self.connections

    def _accept(self) -> None:
        while True:
            try:
                mta, _ = self._server.accept()
            except OSError:
                return
            connection = Connection()
            self.connections.append(connection)
            thread = threading.Thread(target=self._pass_on, args=(connection, mta))
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, connection: Connection, mta: socket.socket) -> None:
        with mta, socket.socket(socket.AF_UNIX) as filter_, selectors.DefaultSelector() as ready:
            filter_.connect(str(self.to))
            ready.register(mta, selectors.EVENT_READ, ("mta", filter_))
            ready.register(filter_, selectors.EVENT_READ, ("filter", mta))
            while ready.get_map():
                for key, _ in ready.select():
                    who, other = key.data
                    data = b""
                    with contextlib.suppress(ConnectionError):
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if data:
                        connection.passed.append((who, data))
                    with contextlib.suppress(OSError):  # the other may be gone
                        other.sendall(data) if data else other.shutdown(socket.SHUT_WR)
                    if not data:
                        ready.unregister(key.fileobj)
        connection.over = True
