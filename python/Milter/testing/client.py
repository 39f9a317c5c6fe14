"""The SMTP client that an MTA tells its filters about, and the macros that follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from Milter.testing.text import to_bytes

__all__ = ["Client", "Macros", "bare_macros", "macro_key", "session_macros"]

Macros = Mapping[str, "str | None"]
"""Macro values by name, with or without braces. None: the macro has no value."""

_NAMED = re.compile(r"(?P<name>[^\[\]]*)\[(?P<address>[^\[\]]+)\](?::(?P<port>\d+))?")


@dataclass(frozen=True)
class Client:
    """Who connected: host name, address (IPv4, IPv6, a path, or None: not known), port."""

    name: str = "localhost"
    address: str | None = "127.0.0.1"
    port: int = 54321

    @classmethod
    def parse(cls, text: str) -> Client:
        """Reads NAME[ADDRESS]:PORT, as in mail logs; also ADDRESS alone. Raises ValueError."""
        match = _NAMED.fullmatch(text)
        if match:
            address, port = match["address"], int(match["port"] or cls.port)
            name = match["name"]
        elif re.fullmatch(r"[0-9a-fA-F.:]+|/.*", text):
            name, address, port = "", text, cls.port
        else:
            raise ValueError(f"{text!r} is no client: write NAME[ADDRESS] or ADDRESS")
        if port > 65535:
            raise ValueError(f"{text!r}: there is no port {port}")
        return cls("" if name == "unknown" else name, address, port)

    @property
    def host(self) -> str:
        """The host name as filters see it: without one, the address in brackets."""
        return self.name or (f"[{self.address}]" if self.address else "unknown")

    @property
    def fields(self) -> tuple[bytes | int, ...]:
        """The fields of a CONNECT packet (protocol sheet 1.3)."""
        if self.address is None:
            return (to_bytes(self.host), b"U")
        family = b"L" if "/" in self.address else b"6" if ":" in self.address else b"4"
        port = 0 if family == b"L" else self.port
        return (to_bytes(self.host), family, port, to_bytes(self.address))


def macro_key(name: str) -> str:
    """A macro's name without braces."""
    return name[1:-1] if name.startswith("{") and name.endswith("}") else name


def bare_macros(macros: Macros) -> dict[str, str | None]:
    """Macro values by their names without braces."""
    return {macro_key(name): value for name, value in macros.items()}


def session_macros(client: Client, hostname: str, software: str) -> dict[str, str | None]:
    """The values of the macros that an MTA knows once a client has connected."""
    address = client.address or "unknown"
    return {
        "j": hostname,
        "v": software,
        "_": f"{client.name or 'unknown'} [{address}]",
        "daemon_name": hostname,
        "daemon_addr": "127.0.0.1",
        "daemon_port": "25",
        "client_name": client.name or "unknown",
        "client_ptr": client.name or "unknown",
        "client_addr": address,
        "client_port": str(client.port),
        "client_connections": "0",
        "client_resolve": "OK" if client.name else "FAIL",
    }
