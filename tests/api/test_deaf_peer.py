"""An MTA that sends and never reads: what the server holds of its replies is bounded, and nothing
of them is lost when it reads after all."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import Milter

from .mta import ALL_ACTIONS, ALL_PROTOCOL, DEADLINE, Mta, inet, option_packet, packet

LINE = "x" * 900
HELO = packet("H", b"\0")
OUTPUT = 256 << 10  # limits.output, by default
SOCKET = 4 << 20  # more than the system holds of one


class Refusing(Milter.Base):
    asked: ClassVar[int] = 0

    def hello(self, name: str) -> int:
        Refusing.asked += not name
        if not name:
            self.setreply("550", "5.7.1", LINE)
            return Milter.REJECT
        return Milter.CONTINUE


def send_all_that_fits(sock: socket.socket) -> int:
    """Sends HELOs until the socket takes no more; returns how many are whole there."""
    data = memoryview(HELO * 100_000)
    sent = 0
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while sent < len(data):
            sent += sock.send(data[sent:])
    sock.settimeout(DEADLINE)
    return sent


def test_replies_are_held_up_to_the_limit(tmp_path: Path) -> None:
    Refusing.asked = 0
    where = tmp_path / "socket"
    server = Milter.Server(Refusing, f"unix:{where}")
    server.open()
    with Mta.unix(str(where)) as deaf:
        deaf.raw(option_packet(6, ALL_ACTIONS, ALL_PROTOCOL))
        deaf.raw(packet("C", inet("host", "127.0.0.1", 25)))
        sent = send_all_that_fits(deaf.sock)
        assert sent * len(LINE) // len(HELO) > 2 * (OUTPUT + SOCKET)
        with server, Mta.unix(str(where)) as other:
            other.negotiate()
            for _ in range(10):  # the other one's turns come in between
                assert other.helo("me") == "c"
            assert 0 < Refusing.asked * len(LINE) <= OUTPUT + SOCKET
            assert deaf.receive()[0] == "O"
            assert deaf.receive()[0] == "c"
            for _ in range(sent // len(HELO)):
                assert deaf.receive() == ("y", f"550 5.7.1 {LINE}".encode() + b"\0")
            rest = sent % len(HELO)
            deaf.raw(HELO[rest:] if rest else b"")
            deaf.raw(packet("H", b"me\0"))
            while (reply := deaf.receive())[0] == "y":
                pass
            assert reply == ("c", b"")
