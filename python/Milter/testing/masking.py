"""Packets without what they say of people: letters and digits become fillers of the same length.

What a filter negotiates, verdicts, codes, names of headers and macros, and the form of everything
stay; addresses, names of clients, header values, bodies and texts do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from Milter import _wire

__all__ = ["mask"]

_OTHERS = re.compile(rb"[^\s]", re.ASCII)
_LETTERS = re.compile(rb"[^\W_]|[\x80-\xff]")
_HEX = re.compile(rb"[0-9A-Fa-f]")
#: ESMTP parameters that tell nothing of anybody.
_PLAIN_PARAMETERS = (b"SIZE", b"BODY", b"RET", b"NOTIFY", b"SMTPUTF8")
#: Macros likewise.
_PLAIN_MACROS = frozenset(
    b"j v {daemon_name} {daemon_port} {mail_mailer} {rcpt_mailer} {auth_type} {auth_ssf}"
    b" {tls_version} {cipher} {cipher_bits} {verify} {client_resolve} {client_connections}".split()
)
_REPLY = re.compile(rb"(?m)^\d\d\d[ -](?:\d\.\d{1,3}\.\d{1,3} )?")


def _text(data: bytes) -> bytes:
    """Letters and digits become x and 1; what stands between them stays."""
    return _LETTERS.sub(lambda match: b"1" if match[0].isdigit() else b"x", data)


def _body(data: bytes) -> bytes:
    """All but white space becomes x."""
    return _OTHERS.sub(b"x", data)


def _address(data: bytes) -> bytes:
    """An IP address stays one."""
    tag, colon, rest = data.partition(b":")
    if tag.upper() == b"IPV6":
        return tag + colon + _HEX.sub(b"1", rest)
    return _HEX.sub(b"1", data)


def _connect(data: bytes) -> bytes:
    host, nul, rest = data.partition(b"\0")
    family, port, address = rest[:1], rest[1:3], rest[3:]
    masked = _address(address) if family in (b"4", b"6") else _text(address)
    return _text(host) + nul + family + port + masked


def _arguments(data: bytes) -> bytes:
    """An address and ESMTP parameters."""
    first, *more = data.split(b"\0")
    return b"\0".join([_text(first), *map(_parameter, more)])


def _parameter(data: bytes) -> bytes:
    name, equals, value = data.partition(b"=")
    return name + equals + (value if name.upper() in _PLAIN_PARAMETERS else _text(value))


def _macros(data: bytes) -> bytes:
    parts = data[1:].split(b"\0")
    for at in range(0, len(parts) - 1, 2):
        name, value = parts[at], parts[at + 1]
        if name not in _PLAIN_MACROS:
            parts[at + 1] = _address(value) if name.endswith(b"_addr}") and _is_ip(value) else (
                _text(value)
            )  # fmt: skip
    return data[:1] + b"\0".join(parts)


def _is_ip(value: bytes) -> bool:
    return re.fullmatch(rb"(?i)(ipv6:)?[0-9a-f:.]+", value) is not None


def _header(data: bytes) -> bytes:
    name, nul, value = data.partition(b"\0")
    return name + nul + _text(value)


def _header_at(data: bytes) -> bytes:
    return data[:4] + _header(data[4:])


def _reply(data: bytes) -> bytes:
    """The codes of each line stay."""
    found = bytearray()
    at = 0
    for match in _REPLY.finditer(data):
        found += _text(data[at : match.start()]) + match[0]
        at = match.end()
    return bytes(found) + _text(data[at:])


def _command(data: bytes) -> bytes:
    verb, space, rest = data.partition(b" ")
    return verb + space + _text(rest)


#: What carries something, by direction and command; all else stays as it is.
_MASKS: Final[Mapping[int, Mapping[bytes, Callable[[bytes], bytes]]]] = {
    _wire.TO_FILTER: {
        b"C": _connect, b"D": _macros, b"H": _text, b"M": _arguments, b"R": _arguments,
        b"L": _header, b"B": _body, b"E": _body, b"U": _command,
    },
    _wire.TO_MTA: {
        b"+": _text, b"-": _text, b"2": _arguments, b"e": _arguments, b"h": _header,
        b"i": _header_at, b"m": _header_at, b"b": _body, b"q": _text, b"y": _reply,
    },
}  # fmt: skip


def mask(direction: int, packet: bytes) -> bytes:
    """A packet of the same length and form. direction: TO_FILTER or TO_MTA of Milter._wire;
    packet: all of it, its length first. Bytes that are no packet are masked throughout."""
    if len(packet) < 5 or int.from_bytes(packet[:4], "big") != len(packet) - 4:
        return b"x" * len(packet)
    masked = _MASKS[direction].get(packet[4:5])
    return packet[:5] + masked(packet[5:]) if masked else packet
