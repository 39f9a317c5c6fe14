"""The SMTP client that an MTA tells its filters about: who it is, how it logged in, its TLS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from Milter.testing.text import to_bytes

__all__ = ["Auth", "Client", "Macros", "Tls", "bare_macros", "macro_key"]

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
        """Reads NAME[ADDRESS]:PORT, as in mail logs; also ADDRESS alone. An IPv6 address may have
        its SMTP tag, as [IPv6:2001:db8::1]. Raises ValueError."""
        text = re.sub(r"(^|\[)IPv6:", r"\1", text, count=1, flags=re.IGNORECASE)
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


@dataclass(frozen=True)
class Auth:
    """How the client logged in, as macros tell it: name, {auth_authen}; mechanism, {auth_type};
    author, {auth_author}; strength, {auth_ssf}. None: that one has no value."""

    name: str
    mechanism: str = "PLAIN"
    author: str | None = None
    strength: int | None = None


@dataclass(frozen=True)
class Tls:
    """The client's encryption, as macros tell it: version, {tls_version}; cipher; bits,
    {cipher_bits}; and of its certificate, if it has shown one: subject, {cert_subject}; issuer,
    {cert_issuer}."""

    version: str = "TLSv1.3"
    cipher: str = "TLS_AES_256_GCM_SHA384"
    bits: int = 256
    subject: str | None = None
    issuer: str | None = None


def macro_key(name: str) -> str:
    """A macro's name without braces."""
    return name[1:-1] if name.startswith("{") and name.endswith("}") else name


def bare_macros(macros: Macros) -> dict[str, str | None]:
    """Macro values by their names without braces."""
    return {macro_key(name): value for name, value in macros.items()}
