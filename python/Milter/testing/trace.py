"""Packets as lines that people read: what was sent to a filter and what it answered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from Milter import _wire
from Milter.testing.text import printable

__all__ = ["Packet", "Trace", "format_flags", "format_packet", "packet_name"]

Packet = tuple[Any, ...]
"""A packet as Milter._wire.Decoder gives it: (command, field, ...)."""

_TABLES = {_wire.TO_FILTER: _wire.COMMANDS, _wire.TO_MTA: _wire.REPLIES}
_ARROWS = {_wire.TO_FILTER: ">", _wire.TO_MTA: "<"}
_SHOWN = 60  # bytes of a body chunk


def packet_name(direction: int, command: bytes) -> str:
    """A command's name; the byte itself if it has none."""
    kind = _TABLES[direction].get(command)
    return kind[0] if kind else repr(command)


def format_flags(value: int, names: dict[str, int]) -> str:
    """A bit mask as names joined by +; names: see ACTIONS and PROTOCOL of Milter._wire."""
    known = [name for name, bit in names.items() if value & bit]
    rest = value & ~sum(names.values())
    return "+".join([*known, *([hex(rest)] if rest else [])]) or "none"


def _strings(data: bytes) -> list[str]:
    return [printable(part) for part in data.split(b"\0")[:-1]]


def _field(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(_field(item) for item in value)
    return printable(value) if isinstance(value, bytes) else str(value)


def format_packet(direction: int, packet: Packet) -> str:
    """One packet as a line: an arrow, its name, its fields."""
    command, *fields = packet
    name = packet_name(direction, command)
    if command == b"O":
        version, actions, protocol, *lists = fields
        words = [
            f"version {version}",
            f"actions {format_flags(actions, _wire.ACTIONS)}",
            f"protocol {format_flags(protocol, _wire.PROTOCOL)}",
            *(_field(item) for item in lists),
        ]
    elif name == "MACRO" and isinstance(fields[1], bytes | list):
        strings = fields[1]
        texts = _strings(strings) if isinstance(strings, bytes) else [_field(s) for s in strings]
        pairs = [f"{key}={value}" for key, value in zip(texts[::2], texts[1::2], strict=False)]
        words = [packet_name(_wire.TO_FILTER, fields[0]), *pairs]
    elif name in ("BODY", "REPLBODY") and fields:
        data, size = (fields[0], len(fields[0])) if len(fields) == 1 else fields
        words = [f"{size} bytes:", printable(data[:_SHOWN]) + ("..." if size > _SHOWN else "")]
    else:
        words = [_field(field) for field in fields]
    return " ".join([_ARROWS[direction], name, *words]).rstrip()


class Trace:
    """The packets of a message, both ways, in order. Of body chunks only the start is kept."""

    def __init__(self) -> None:
        self._packets: list[tuple[int, Packet]] = []

    def add(self, direction: int, packet: Packet) -> None:
        """Notes a packet. direction: TO_FILTER or TO_MTA of Milter._wire."""
        if packet[0] in (b"B", b"b") and len(packet) == 2 and len(packet[1]) > _SHOWN:
            packet = (packet[0], packet[1][:_SHOWN], len(packet[1]))
        self._packets.append((direction, packet))

    def __iter__(self) -> Iterator[tuple[int, Packet]]:
        return iter(self._packets)

    def lines(self) -> list[str]:
        """The packets as lines, see format_packet."""
        return [format_packet(direction, packet) for direction, packet in self._packets]
