"""Finds the parts of a message in its bytes: in one pass, without recursion, within limits.

What a part is follows the standard `email` package, so that messages have the same shape here and
there. Its own parser does not serve because it forgets the bytes, takes time that grows with the
depth for each line, and gives up (RecursionError) on parts that are nested deeply.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email import errors
from typing import TYPE_CHECKING, Any, NamedTuple

from mime import charsets
from mime.policy import Written

if TYPE_CHECKING:
    from mime.message import MimeMessage

__all__ = [
    "MAX_DEPTH",
    "MAX_PARTS",
    "NotTakenApartDefect",
    "Origin",
    "SeveralReadingsDefect",
    "parse",
]

MAX_DEPTH = 100
"""Levels of parts within parts that are taken apart; a part below is left whole."""
MAX_PARTS = 20_000
"""Parts of a message that are taken apart; the last one keeps the rest."""

_HEADER = re.compile(rb"(?:(?:From |[!-9;-~]*[ \t]*:|[ \t])[^\r\n]*(?:\r\n|\r|\n|\Z))*")
_LINE = re.compile(rb"[^\r\n]+(?:\r\n|\r|\n|\Z)")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_DASHES = re.compile(rb"(?:\A|(?<=[\r\n]))--([^\r\n]*)(?:\r\n|\r|\n|\Z)")
_UNSEEN = b" \t\v\f\0"  # at the end of a delimiter
_BLOCK = re.compile(rb"(?:[^\r\n]+(?:\r\n|\r|\n|\Z))+")
_CR = re.compile(r"\r\n?")


class NotTakenApartDefect(errors.MessageDefect):
    """A part was left whole: the message has more than MAX_PARTS, or it lies below MAX_DEPTH."""


class SeveralReadingsDefect(errors.MessageDefect):
    """Mail programs differ on what a part is, or where its parts begin: it has two Content-Types
    of which one is a message, or two Content-Transfer-Encodings; or the boundary that we go by is
    not the only one that its header can be read to name, and there are lines that begin with
    others."""


@dataclass(eq=False)
class Origin:
    """Where a part came from, and what it was then: shows later what has changed.

    data is the whole message. The part's header is data[start:blank], its body data[body:end];
    between them stands the blank line. The header begins with the envelope line, up to `header`,
    and lines that are no fields, up to `fields`. The rest is as it was when the part had been read.
    """

    message: MimeMessage
    data: bytes
    start: int
    blank: int
    body: int
    end: int = 0
    header: int = 0
    fields: int = 0
    boundary: bytes | None = None
    parts: list[Origin] = field(default_factory=list)
    first: int | None = None  # the line of its first delimiter
    last: int | None = None  # behind its last delimiter, the closing one
    items: list[tuple[str, Any]] = field(default_factory=list)
    payload: object = None
    unixfrom: str | None = None
    framing: tuple[str | None, str | None, str | None] = (None, None, None)


class _Delimiter(NamedTuple):
    start: int
    end: int
    level: int
    closes: bool


def text_of(data: bytes) -> str:
    """The text of bytes as `email` has it: bytes above 127 as surrogates, every line end as LF."""
    text = data.decode("ascii", "surrogateescape")
    return _CR.sub("\n", text) if "\r" in text else text


def parse(data: bytes, root: MimeMessage) -> None:
    """Makes `root` the message that `data` holds. Never fails; limits leave a defect behind."""
    scan = _Scan(data, root)
    found = scan.begin(0, root)
    while found or (found := scan.find(len(data))):
        found = scan.at(found)
    for level, part in enumerate(scan.open):
        if part.first is not None and part.last is None:  # the end takes its delimiter's place
            scan.close(level + 1, len(data))
            break
    scan.close(0, len(data))


class _Scan:
    def __init__(self, data: bytes, root: MimeMessage) -> None:
        self.data = data
        self.new_part = root.new_part
        self.all_lines: set[bytes] | None = (
            None  # what begins with two dashes, once it is asked for
        )
        self.lines = _DASHES.finditer(data)
        self.line = next(self.lines, None)
        self.has_lines = self.line is not None
        self.open: list[Origin] = []
        self.known: dict[bytes, list[int]] = {}  # boundary: levels of `open`
        self.count = 0

    def find(self, end: int) -> _Delimiter | None:
        """The next line before `end` that delimits an open part. It and what precedes it are
        not looked at again."""
        found = None
        while self.line and self.line.start() < end and not found:
            text = self.line[1].rstrip(b" \t")
            levels = self.known.get(text)
            closes = not levels and text.endswith(b"--")
            if closes:
                levels = self.known.get(text[:-2])
            if levels:
                found = _Delimiter(*self.line.span(), levels[0], closes)  # the outermost one
            self.line = next(self.lines, None)
        return found

    def begin(self, start: int, message: MimeMessage) -> _Delimiter | None:
        """A part begins, and at once another one in it if it is itself a message. Returns the
        delimiter that cuts its header off, if one does."""
        while True:
            found = self.header(start, message)
            self.count += 1
            part = self.open[-1]
            kind = message.get_content_type()
            multipart = kind.startswith("multipart/")
            if message.has_several_readings() or self.has_other_boundary(message, multipart):
                message.defects.append(SeveralReadingsDefect())
            if kind == "message/delivery-status" or not (multipart or kind.startswith("message/")):
                return found
            if len(self.open) > MAX_DEPTH or self.count >= MAX_PARTS:
                message.defects.append(NotTakenApartDefect())
                return found
            if multipart:
                self.expect(part)
                return found
            start, message = part.body, self.new_part()
            if found:
                return found

    def header(self, start: int, message: MimeMessage) -> _Delimiter | None:
        """Reads the header of a part and opens the part."""
        if self.open and self.open[-1].message.get_content_type() == "multipart/digest":
            message.set_default_type("message/rfc822")
        match = _HEADER.match(self.data, start)
        blank = body = match.end() if match else start
        found = self.find(blank)
        if found:
            blank = body = found.start
        elif line_end := _LINE_END.match(self.data, blank):
            body = line_end.end()
        part = Origin(message, self.data, start, blank, body)
        _read_header(part, blank)
        if self.open:
            self.open[-1].parts.append(part)
        self.open.append(part)
        return found

    def has_other_boundary(self, message: MimeMessage, multipart: bool) -> bool:
        """Whether a part's header names a boundary that is not the one we take, of lines that are
        there; or none, though there are lines that some program may take for delimiters."""
        boundary = message.get_boundary() if multipart else None
        if multipart and boundary is None:
            return self.has_lines
        others = {charsets.as_bytes(name).rstrip(_UNSEEN) for name in message.boundaries()}
        others -= {b"", charsets.as_bytes(boundary or "").rstrip(_UNSEEN)}
        others.difference_update(self.known)  # those end this part, whatever it says
        if others and self.all_lines is None:
            self.all_lines = {line[1].rstrip(_UNSEEN) for line in _DASHES.finditer(self.data)}
        return bool(others) and not others.isdisjoint(self.all_lines or ())

    def expect(self, part: Origin) -> None:
        """A multipart: from now on its delimiters are looked for."""
        boundary = part.message.get_boundary()
        if boundary is None:
            part.message.defects.append(errors.NoBoundaryInMultipartDefect())
            return
        part.boundary = boundary.encode("utf-8", "surrogateescape")
        self.known.setdefault(part.boundary, []).append(len(self.open) - 1)

    def at(self, found: _Delimiter) -> _Delimiter | None:
        """Goes on at a delimiter: ends what it ends, and begins the next part."""
        multipart = self.open[found.level]
        if found.closes and multipart.first is None:
            return None  # it would end before it began: preamble
        if multipart.first is None:
            multipart.first = found.start
        self.close(found.level + 1, found.start)
        if multipart.parts and multipart.parts[-1].start == found.start:
            multipart.parts.pop()  # nothing stands between two delimiters
        if found.closes:
            multipart.last = found.end
            self.forget(multipart)
            return None
        if self.count >= MAX_PARTS:
            self.known.clear()
        part = self.new_part()
        next_found = self.begin(found.end, part)
        if not self.known:
            part.defects.append(NotTakenApartDefect())
        return next_found

    def forget(self, multipart: Origin) -> None:
        if multipart.boundary is not None and self.known:
            self.known[multipart.boundary].pop()
            multipart.boundary = None

    def close(self, level: int, at: int) -> None:
        """Ends the parts from a level on, before the line at `at`, whose delimiter has the line
        end in front of it; at the end of the message there is no delimiter."""
        end = at
        if level and at and self.data[at - 1] in b"\r\n":
            end -= 2 if self.data.startswith(b"\r\n", at - 2) else 1
        while len(self.open) > level:
            part = self.open.pop()
            part.end = max(end, part.start)
            part.blank = min(part.blank, part.end)
            _finish(part, level > 0)
            self.forget(part)


def _read_header(part: Origin, end: int) -> None:
    """Reads the header fields from part.start to `end`, or to a last line that is none after all,
    where the header then ends. Other lines that are none are kept with the field before them."""
    message = part.message
    fields: list[tuple[int, list[str]]] = []  # where each begins, and its lines
    field: list[str] | None = None
    part.header = part.start
    for line in _LINE.finditer(part.data, part.start, end):
        text = line[0].decode("ascii", "surrogateescape")
        defect: errors.MessageDefect
        if text[0] in " \t":
            if field is not None:
                field.append(text)
                continue
            defect = errors.FirstHeaderLineIsContinuationDefect(text)
        elif text.startswith("From "):
            if line.start() == part.start:
                message.set_unixfrom(text.rstrip("\r\n"))
                part.header = line.end()
                continue
            if line.end() == end:
                end = part.blank = part.body = line.start()
                break
            defect = errors.MisplacedEnvelopeHeaderDefect(text)
        elif text[0] == ":":
            defect = errors.InvalidHeaderDefect("Missing header name.")
        else:
            field = [text]
            fields.append((line.start(), field))
            continue
        field = None
        message.defects.append(defect)
    part.fields = fields[0][0] if fields else end
    stops = [start for start, _ in fields[1:]] + [end]
    for (start, lines), stop in zip(fields, stops, strict=False):
        name, value = message.policy.header_source_parse(lines)
        if isinstance(value, Written):
            value.source = part.data[start:stop]
        message.set_raw(name, value)


def _finish(part: Origin, within: bool) -> None:
    """Gives a part its payload, now that its end is known, and notes what it is like. within:
    whether it stands in a multipart."""
    message = part.message
    if part.first is not None:
        message.set_payload([])
        if part.first > part.body:
            message.preamble = text_of(part.data[part.body : part.first])[:-1]
        if part.last is None:
            message.defects.append(errors.CloseBoundaryNotFoundDefect())
        elif part.last <= part.end:
            message.epilogue = text_of(part.data[part.last : part.end])
    elif part.boundary is not None:
        message.epilogue = None if within else ""
        message.defects.append(errors.StartBoundaryNotFoundDefect())
    elif message.get_content_type() == "message/delivery-status":
        part.parts = _blocks(part)
    if part.parts:
        message.set_payload([child.message for child in part.parts])
    elif part.first is None:
        message.set_payload(text_of(part.data[part.body : part.end]))
    message.note(part)


def _blocks(whole: Origin) -> list[Origin]:
    """The blocks of fields of a delivery status, which blank lines separate (RFC 3464): at least
    one, at most MAX_PARTS."""
    spans = [found.span() for found in _BLOCK.finditer(whole.data, whole.body, whole.end)]
    spans = spans or [(whole.body, whole.body)]
    rest = spans[MAX_PARTS - 1 :]
    if len(rest) > 1:
        spans[MAX_PARTS - 1 :] = [(rest[0][0], whole.end)]
    blocks = []
    for start, end in spans:
        header = _HEADER.match(whole.data, start, end)
        body = header.end() if header else start
        part = Origin(whole.message.new_part(), whole.data, start, body, body, end)
        _read_header(part, body)
        is_status = part.message.get_content_type() == "message/delivery-status"  # of nothing
        part.message.set_payload([] if is_status else text_of(part.data[part.body : end]))
        part.message.note(part)
        blocks.append(part)
    if len(rest) > 1:
        blocks[-1].message.defects.append(NotTakenApartDefect())
    return blocks
