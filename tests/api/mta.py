"""The MTA's side of the protocol at the level of bytes, for the tests of the compatible API.
Made with `struct` alone, on purpose: it must not share a mistake with the product's codec."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

ALL_ACTIONS = 0x1FF
ALL_PROTOCOL = 0x1FFFFF
DEADLINE = 20.0  # seconds; only a filter that hangs reaches it


def strings(*texts: str | bytes) -> bytes:
    """NUL-terminated strings, one after the other."""
    parts = (text.encode() if isinstance(text, str) else text for text in texts)
    return b"".join(part + b"\0" for part in parts)


def packet(command: str, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 1) + command.encode("latin-1") + data


def option_packet(version: int, actions: int, protocol: int) -> bytes:
    return packet("O", struct.pack(">III", version, actions, protocol))


def inet(host: str | bytes, address: str, port: int) -> bytes:
    """Data of a CONNECT packet for an IPv4 client."""
    return strings(host) + b"4" + struct.pack(">H", port) + strings(address)


class Closed(Exception):
    """The filter has closed the connection."""


class Mta:
    """One connection to a filter. Methods that send wait for what the protocol says follows."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(DEADLINE)
        self.buffer = b""

    @classmethod
    def unix(cls, path: str) -> Mta:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    @classmethod
    def inet(cls, host: str, port: int) -> Mta:
        return cls(socket.create_connection((host, port)))

    def __enter__(self) -> Mta:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, command: str, data: bytes = b"") -> None:
        self.raw(packet(command, data))

    def _fill(self, count: int) -> None:
        while len(self.buffer) < count:
            try:
                more = self.sock.recv(65536)
            except ConnectionError as error:
                raise Closed from error
            if not more:
                raise Closed
            self.buffer += more

    def receive(self) -> tuple[str, bytes]:
        """The next packet: command and data. Raises Closed at the end of the connection."""
        self._fill(4)
        (length,) = struct.unpack(">I", self.buffer[:4])
        self._fill(4 + length)
        whole, self.buffer = self.buffer[4 : 4 + length], self.buffer[4 + length :]
        return chr(whole[0]), whole[1:]

    def is_closed(self) -> bool:
        """Whether the filter closes the connection now, without sending anything."""
        try:
            self.receive()
        except Closed:
            return True
        return False

    def negotiate(
        self, version: int = 6, actions: int = ALL_ACTIONS, protocol: int = ALL_PROTOCOL
    ) -> tuple[int, int, int]:
        """Offers options; returns the filter's version, actions and protocol."""
        command, data = self.negotiate_raw(version, actions, protocol)
        assert command == "O"
        got_version, got_actions, got_protocol = struct.unpack(">III", data[:12])
        return got_version, got_actions, got_protocol

    def negotiate_raw(
        self, version: int = 6, actions: int = ALL_ACTIONS, protocol: int = ALL_PROTOCOL
    ) -> tuple[str, bytes]:
        self.raw(option_packet(version, actions, protocol))
        return self.receive()

    def step(self, command: str, data: bytes = b"") -> str | tuple[str, bytes]:
        """Sends one command and awaits one reply: its letter, or letter and data if it has any."""
        self.send(command, data)
        reply, text = self.receive()
        return (reply, text) if text else reply

    def macros(self, command: str, *names_and_values: str | bytes) -> None:
        self.send("D", command.encode() + strings(*names_and_values))

    def connect(
        self, host: str | bytes = "localhost", address: str = "127.0.0.1", port: int = 1234
    ) -> str | tuple[str, bytes]:
        return self.step("C", inet(host, address, port))

    def helo(self, name: str | bytes = "me") -> str | tuple[str, bytes]:
        return self.step("H", strings(name))

    def mail(self, *args: str | bytes) -> str | tuple[str, bytes]:
        return self.step("M", strings(*(args or ("<a@b>",))))

    def rcpt(self, *args: str | bytes) -> str | tuple[str, bytes]:
        return self.step("R", strings(*(args or ("<c@d>",))))

    def data(self) -> str | tuple[str, bytes]:
        return self.step("T")

    def header(self, name: str | bytes, value: str | bytes) -> str | tuple[str, bytes]:
        return self.step("L", strings(name, value))

    def eoh(self) -> str | tuple[str, bytes]:
        return self.step("N")

    def body(self, chunk: bytes = b"body\r\n") -> str | tuple[str, bytes]:
        return self.step("B", chunk)

    def eom(self) -> list[tuple[str, bytes]]:
        """Ends the message; returns all packets up to and with the final reply."""
        self.send("E")
        packets = [self.receive()]
        while packets[-1][0] not in "acdrty":
            packets.append(self.receive())
        return packets

    def quit(self) -> None:
        """Ends the session as an MTA does, and waits until the filter has closed."""
        self.send("Q")
        assert self.is_closed()
        self.close()
