"""A session as a table that people read: step, what was sent, what was answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from Milter import _wire
from Milter.testing.changes import needed_action, read_change
from Milter.testing.steps import ANSWERS, STEPS
from Milter.testing.text import printable
from Milter.testing.trace import Packet, Trace, format_flags

__all__ = ["Row", "rows", "table"]

_WIDEST = 50  # characters of what was sent

_STEP_OF = {b"O": "negotiate", **{step.command: name for name, step in STEPS.items()}}


class Row(NamedTuple):
    """A step, or like steps that follow each other; several lines of an answer are joined by LF.
    The answer is "" where none came or none was due."""

    step: str
    sent: str
    answer: str


def rows(trace: Trace) -> list[Row]:
    """The steps of a session, or of one message in it. Macros, ABORT and QUIT are left out; headers
    and chunks of the body that were answered alike are one row."""
    steps: list[tuple[str, Packet, list[Packet]]] = []
    for direction, packet in trace:
        if direction == _wire.TO_FILTER:
            if packet[0] in _STEP_OF:
                steps.append((_STEP_OF[packet[0]], packet, []))
        elif steps:
            steps[-1][2].append(packet)
    told = [(step, packet, "\n".join(_answers(answers))) for step, packet, answers in steps]
    alike = groupby(told, lambda each: (each[0], each[2]))
    return [
        Row(step, sent, answer)
        for (step, answer), run in alike
        for sent in _sent(step, [packet for _, packet, _ in run])
    ]


def table(of: Iterable[Row]) -> list[str]:
    """Rows as lines of text, in columns."""
    of = list(of)
    steps = max((len(row.step) for row in of), default=0)
    sent = max((len(row.sent) for row in of), default=0)
    lines = []
    for row in of:
        start = f"{row.step:<{steps}}  {row.sent:<{sent}}  "
        for line in row.answer.split("\n") or [""]:
            lines.append((start + line).rstrip())
            start = " " * len(start)
    return lines


# ----------------------------------------------------------------------------------- what was sent


def _sent(step: str, packets: Sequence[Packet]) -> list[str]:
    """What was sent in steps of one name that were answered alike: a text for each row."""
    if step in _TOGETHER:
        return [_TOGETHER[step](packets)]
    return [_shortened(_ALONE[step](*packet[1:])) if step in _ALONE else "" for packet in packets]


def _headers(packets: Sequence[Packet]) -> str:
    if len(packets) == 1:
        return _shortened(f"{_text(packets[0][1])}: {_text(packets[0][2])}")
    names = [_text(packet[1]) for packet in packets[:_WIDEST]]
    line = f"{len(packets)}: {', '.join(names)}"
    return _shortened(line)


def _chunks(packets: Sequence[Packet]) -> str:
    size = sum(packet[2] if len(packet) > 2 else len(packet[1]) for packet in packets)
    chunks = f"{len(packets)} chunks, " if len(packets) > 1 else ""
    return f"{chunks}{size} bytes"


def _connect(host: bytes, _family: bytes, port: int = 0, address: bytes = b"") -> str:
    where = f" [{_text(address)}]" if address else ""
    return _text(host) + where + (f":{port}" if port else "")


def _words(fields: Any) -> str:
    return _text(fields) if isinstance(fields, bytes) else " ".join(_text(each) for each in fields)


_TOGETHER: dict[str, Callable[[Sequence[Packet]], str]] = {"header": _headers, "body": _chunks}
_ALONE: dict[str, Callable[..., str]] = {
    "negotiate": lambda version, *_: f"version {version}",
    "connect": _connect,
    "helo": _words,
    "mail": _words,
    "rcpt": _words,
    "unknown": _words,
}


# ------------------------------------------------------------------------------- what was answered


def _answers(packets: Sequence[Packet]) -> list[str]:
    """Answers as words; the chunks of a new body are one."""
    lines = []
    for is_body, run in groupby(packets, lambda packet: packet[0] == b"b"):
        together = [*run]
        lines += (
            [f"replace body: {_chunks(together)}"]
            if is_body
            else [_answer(each) for each in together]
        )
    return lines


def _answer(packet: Packet) -> str:
    command, *fields = packet
    if command in ANSWERS:
        return ANSWERS[command]
    if command == b"y":
        return "\n".join(printable(line) for line in fields[0].split(b"\r\n"))
    if command == b"O":
        version, actions, *_ = fields
        known = "all" if actions == _wire.ALL_ACTIONS else format_flags(actions, _wire.ACTIONS)
        return f"version {version}, actions {known}"
    if needed_action(command):
        change = " ".join(str(read_change(command, tuple(fields))).split())
        return _shortened(printable(change), _WIDEST + 20)
    return "progress" if command == b"p" else printable(repr(command))


def _text(value: bytes | int) -> str:
    return printable(value) if isinstance(value, bytes) else str(value)


def _shortened(line: str, most: int = _WIDEST) -> str:
    return line if len(line) <= most else line[: most - 3] + "..."
