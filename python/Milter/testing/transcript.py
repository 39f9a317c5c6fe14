r"""Transcripts: what passes on one connection between an MTA and a filter, as text.

    == a recipient is refused
    > R <c@d>\0
    envrcpt "<c@d>"
        setreply "550" "5.7.1" "no" = ok
        return REJECT
    < y 550 5.7.1 no\0

`>` is what the MTA sends, `<` what the filter answers; between them stand the callbacks that the
filter sees, and what it does there. This module reads and writes the format; it plays nothing.
tests/transcripts/README.md describes the format in full.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "STEPS",
    "VERDICTS",
    "Answered",
    "Called",
    "Did",
    "Entry",
    "Returned",
    "Sent",
    "Transcript",
    "TranscriptError",
    "Value",
    "line_of",
    "parse",
    "render",
]

#: The callbacks that a transcript may name.
STEPS: Final = (
    *("negotiate", "connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body"),
    *("eom", "unknown", "abort", "close"),
)
#: The verdicts that have names, with their numbers. Others are written as numbers.
VERDICTS: Final = {
    "CONTINUE": 0,
    "REJECT": 1,
    "DISCARD": 2,
    "ACCEPT": 3,
    "TEMPFAIL": 4,
    "NOREPLY": 7,
    "SKIP": 8,
    "ALL_OPTS": 10,
}

#: An argument or a result: a text as bytes, a number, or None for what is absent.
Value = bytes | int | None


class TranscriptError(ValueError):
    """A text that is no transcript. The text of the error names the line."""


@dataclass(frozen=True)
class Sent:
    """Bytes of the MTA. data: a packet, or a part of one; None: it sends no more."""

    data: bytes | None


@dataclass(frozen=True)
class Answered:
    """Bytes of the filter. data: a packet, or a part of one."""

    data: bytes


@dataclass(frozen=True)
class Called:
    """A callback of the filter: step, its name, and args, its arguments."""

    step: str
    args: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Did:
    """A call of the filter inside the callback before: its name, and args, its arguments. result:
    "ok", an error's name, or what a question was answered."""

    call: str
    args: tuple[Value, ...]
    result: str | bytes | None


@dataclass(frozen=True)
class Returned:
    """The end of the callback before: a verdict; for negotiate with options: actions, protocol."""

    verdict: int
    options: tuple[int, ...] = ()


Event = Sent | Answered | Called | Did | Returned


@dataclass(frozen=True)
class Entry:
    """One line: an event. tags: whom it is for; none: everybody."""

    event: Event
    tags: frozenset[str] = frozenset()


@dataclass
class Transcript:
    """One connection: title, head, entries in order. head: what its reader should know beforehand,
    for example about the filter; a key may stand more than once."""

    title: str
    head: list[tuple[str, str]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def values(self, key: str) -> list[str]:
        """All values of one key of the head."""
        return [value for name, value in self.head if name == key]

    def events(self, *tags: str) -> list[Event]:
        """The lines for somebody who has these tags. Every callback ends by a Returned, CONTINUE
        where the text has none."""
        chosen = [e.event for e in self.entries if not e.tags or not e.tags.isdisjoint(tags)]
        return list(_with_returns(chosen))


def _with_returns(events: list[Event]) -> Iterator[Event]:
    """Puts a Returned behind the calls of each callback that has none."""
    for i, event in enumerate(events):
        yield event
        if not isinstance(event, Called | Did):
            continue
        after = i + 1
        while after < len(events) and isinstance(events[after], Answered):
            after += 1  # it is inside the callback if that goes on after it
        if after == len(events) or not isinstance(events[after], Did | Returned):
            yield Returned(VERDICTS["CONTINUE"])


# ------------------------------------------------------------------------------------- escapes

_REPEATS = re.compile(rb"(.)\1{63,}", re.DOTALL)
_ESCAPES = {b"\0": "\\0", b"\r": "\\r", b"\n": "\\n", b"\t": "\\t", b"\\": "\\\\", b'"': '\\"'}
_ESCAPED = re.compile(r'\\(?:x([0-9a-f]{2})|\{(\d+)\}|([0rnt\\"]))|\\|[^\\]')
_PLAIN = {text[1]: byte for byte, text in _ESCAPES.items()}


_SPECIAL = {quote: re.compile(rf"[^ -~]|[\\{quote}]") for quote in ('"', "")}


def _escape(data: bytes, quote: str = '"') -> str:
    """The text of bytes; the quote, if there is one, is escaped too."""

    def one(match: re.Match[str]) -> str:
        byte = match[0].encode("latin-1")
        return _ESCAPES.get(byte) or f"\\x{byte[0]:02x}"

    def plain(part: bytes) -> str:
        return _SPECIAL[quote].sub(one, part.decode("latin-1"))

    parts, at = [], 0
    for match in _REPEATS.finditer(data):
        parts += [plain(data[at : match.start()]), plain(match[1]), f"\\{{{len(match[0])}}}"]
        at = match.end()
    return "".join([*parts, plain(data[at:])])


#: Bytes that one packet or value may have when its repetitions are written out: many times what
#: the protocol lets be sent.
_MOST = 1 << 24


def _unescape(text: str) -> bytes:
    data = bytearray()
    for match in _ESCAPED.finditer(text):
        digits, count, letter = match.groups()
        if digits:
            data.append(int(digits, 16))
        elif count:
            if not data:
                raise TranscriptError("there is nothing to repeat")
            if len(data) + int(count) > _MOST:
                raise TranscriptError(f"more than {_MOST} bytes in one packet or value")
            data += data[-1:] * (int(count) - 1)
        elif letter:
            data += _PLAIN[letter]
        elif match[0] == "\\":
            raise TranscriptError("an unknown escape")
        else:
            data += match[0].encode()
    return bytes(data)


# --------------------------------------------------------------------------------------- lines

_VALUE = re.compile(r' *(?:"((?:[^"\\]|\\.)*)"|(NULL)|(-?(?:0x[0-9a-f]+|\d+)))(?= |$)')
_WORD = re.compile(r"[A-Za-z_]+")
_NAMES = {number: name for name, number in VERDICTS.items()}


def _value_text(value: Value) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else f'"{_escape(value)}"'


def _parse_values(text: str) -> tuple[Value, ...]:
    values: list[Value] = []
    text = text.rstrip()
    at = 0
    while at < len(text):
        match = _VALUE.match(text, at)
        if not match:
            raise TranscriptError(f"no value: {text[at:].strip()}")
        quoted, null, number = match.groups()
        values.append(None if null else int(number, 0) if number else _unescape(quoted))
        at = match.end()
    return tuple(values)


def _wire_text(data: bytes | None) -> str:
    if data is None:
        return "eof"
    if len(data) < 5 or len(data) - 4 != int.from_bytes(data[:4], "big"):
        return f"raw {data.hex()}"
    text = _escape(data[5:], quote="")
    if text[-1:] == " ":
        text = text[:-1] + "\\x20"
    return _escape(data[4:5], quote="").replace(" ", "\\x20") + (f" {text}" if text else "")


def _parse_wire(text: str) -> bytes | None:
    command, _, rest = text.partition(" ")
    if command == "eof":
        return None
    if command == "raw":
        return bytes.fromhex(rest)
    data = _unescape(command)
    if len(data) != 1:
        raise TranscriptError(f"{command} is not one character")
    data += _unescape(rest)
    return len(data).to_bytes(4, "big") + data


def line_of(event: Event) -> str:
    """The line that stands for an event, without its line end."""
    if isinstance(event, Sent):
        return f"> {_wire_text(event.data)}"
    if isinstance(event, Answered):
        return f"< {_wire_text(event.data)}"
    if isinstance(event, Returned):
        words = [_NAMES.get(event.verdict, str(event.verdict)), *map(hex, event.options)]
        return "    return " + " ".join(words)
    if isinstance(event, Called):
        masks = event.step == "negotiate"
        shown = [hex(it) if masks and isinstance(it, int) else _value_text(it) for it in event.args]
        return " ".join([event.step, *shown])
    result = event.result if isinstance(event.result, str) else _value_text(event.result)
    return f"    {' '.join([event.call, *map(_value_text, event.args)])} = {result}"


def _parse_return(text: str) -> Returned:
    verdict, *options = text.split()
    number = VERDICTS.get(verdict)
    return Returned(int(verdict) if number is None else number, tuple(int(o, 0) for o in options))


def _parse_event(text: str) -> Event:
    if text.startswith("< "):
        data = _parse_wire(text[2:])
        if data is None:
            raise TranscriptError("a filter's end is not written: it closes when all was said")
        return Answered(data)
    if text.startswith("> "):
        return Sent(_parse_wire(text[2:]))
    match = _WORD.match(text)
    word, rest = (match[0], text[match.end() :]) if match else ("", text)
    if word == "return":
        return _parse_return(rest)
    if word in STEPS:
        return Called(word, _parse_values(rest))
    call, equals, result = rest.rpartition(" = ")
    if not word or not equals:
        raise TranscriptError(f"what is this? {text}")
    is_value = result == "NULL" or result.startswith('"')
    value = _parse_values(result)[0] if is_value else result
    assert not isinstance(value, int)
    return Did(word, _parse_values(call), value)


_HEAD = re.compile(r"([a-z]+): (.*)")
_TAGGED = re.compile(r"( *)(?:\[([^]]+)\] )?(.*)")


def _parse_line(transcript: Transcript, line: str) -> None:
    if not transcript.entries and (head := _HEAD.fullmatch(line)):
        transcript.head.append((head[1], head[2]))
        return
    match = _TAGGED.fullmatch(line)
    assert match
    tags = frozenset((match[2] or "").split())
    transcript.entries.append(Entry(_parse_event(match[3]), tags))


def parse(text: str) -> list[Transcript]:
    """The transcripts of a text. Raises TranscriptError, which names the line."""
    transcripts: list[Transcript] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip(" \r")  # noqa: PLW2901
        if not line or line.startswith("#"):
            continue
        try:
            if line.startswith("== "):
                transcripts.append(Transcript(line[3:]))
            elif transcripts:
                _parse_line(transcripts[-1], line)
            else:
                raise TranscriptError("a transcript begins with == and its title")
        except ValueError as error:
            raise TranscriptError(f"line {number}: {error}") from None
    return transcripts


def render(transcripts: Iterable[Transcript]) -> str:
    """The text of transcripts, which parse() reads back as they are."""
    blocks = []
    for transcript in transcripts:
        lines = [f"== {transcript.title}"]
        lines += [f"{key}: {value}" for key, value in transcript.head]
        for entry in transcript.entries:
            text = line_of(entry.event)
            indent = len(text) - len(text.lstrip())
            tags = f"[{' '.join(sorted(entry.tags))}] " if entry.tags else ""
            lines.append(text[:indent] + tags + text[indent:])
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
