"""Messages that keep the bytes they were made from: what was not changed is written as it came.

The classes are the standard `email` package's, with the names of the older package's `mime` added.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from email.errors import MessageError
from email.generator import BytesGenerator
from email.message import Message
from email.policy import Policy
from io import BytesIO
from typing import Any, BinaryIO, Protocol

from mime import charsets, parameters, transfer
from mime.archives import zipnames
from mime.headers import HeaderFields
from mime.parse import Origin, parse
from mime.policy import MimePolicy

__all__ = ["MimeGenerator", "MimeMessage", "message_from_file"]

_LINE_END = re.compile(r"\r\n|\r|\n")
_BEGIN = re.compile(rb"(?:\A|(?<=[\r\n]))begin[ \t]+[^\s]+[ \t]+([^\r\n]+)")
_TYPES_WITH_PARTS = frozenset({"message", "multipart"})
_NAMES = frozenset({"filename", "name"})
_ZIP_TYPES = frozenset({"application/zip", "application/x-zip", "application/x-zip-compressed"})


class _Exact(str):
    """A payload that is written as it is."""

    __slots__ = ()


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


class MimeMessage(HeaderFields):
    """A message, or a part of one.

    fp: a binary file that is read to its end; without it the message is empty.
    headerchange: called as headerchange(message, name, value) after each header that is added or
    replaced, and with None before those of a name are deleted. It counts for this message only,
    not for its parts.
    defects: what is wrong with the message (email.errors), with NotTakenApartDefect where a limit
    of the parser was met.
    """

    _payload: Any  # the base class's

    def __init__(
        self, fp: BinaryIO | None = None, seekable: int = 1, *, policy: Policy | None = None
    ) -> None:
        super().__init__(policy or MimePolicy())
        self._origin: Origin | None = None
        if fp is not None:
            data = fp.read()
            if not isinstance(data, bytes):
                raise TypeError("a message is read from a file that is open in binary mode")
            line_end = data.find(b"\n")
            if line_end > 0 and data[line_end - 1 : line_end] == b"\r":
                self.policy = self.policy.clone(linesep="\r\n")
            parse(data, self)

    def new_part(self) -> MimeMessage:
        """An empty message with the same policy, to be a part of this one."""
        return type(self)(policy=self.policy)

    # ----------------------------------------------------------------------------- what changed

    def note(self, origin: Origin) -> None:
        """Remembers what the message is like now; for the parser."""
        origin.items = list(self.raw_items())
        origin.payload = self._payload
        origin.framing = self._framing()
        origin.unixfrom = self.get_unixfrom()
        self._origin = origin

    def _framing(self) -> tuple[str | None, str | None, str | None]:
        return self.preamble, self.epilogue, self.get_boundary()

    def ismodified(self) -> bool:
        """Whether it, or any part of it, is not what it was when it was read. True for a message
        that was not read from a file."""
        return any(_changed(part) for part in _all_parts(self))

    def header_is_modified(self) -> bool:
        """Whether a header of its own was changed, not one of its parts."""
        if not self._origin:
            return True
        before, now = self._origin.items, list(self.raw_items())
        return len(before) != len(now) or any(
            one[0] != other[0] or one[1] is not other[1]
            for one, other in zip(before, now, strict=True)
        )

    def _payload_is_modified(self) -> bool:
        origin = self._origin
        if not origin or self._payload is not origin.payload:
            return True
        return isinstance(self._payload, list) and (
            len(self._payload) != len(origin.parts)
            or any(
                now is not before.message
                for now, before in zip(self._payload, origin.parts, strict=True)
            )
        )

    # --------------------------------------------------------------------------------- contents

    def set_payload(self, payload: Any, charset: Any = None) -> None:
        """Sets the payload: text, bytes or a list of parts.

        Text gets the message's line ends when it is written; if it is not ASCII and comes without
        a charset it becomes UTF-8. Bytes, already in the transfer encoding, are written as they
        are.
        """
        if charset is None and isinstance(payload, str):
            try:
                payload.encode("ascii", "surrogateescape")
            except UnicodeEncodeError:
                charset = "utf-8"
        super().set_payload(payload, charset)
        if isinstance(payload, bytes) and charset is None:
            self._payload = _Exact(self._payload)

    def get_payload_source(self) -> bytes:
        """The bytes of the payload, or of all parts as they are written, without their transfer
        encoding, but with the line ends as they came, where get_payload has LF for all."""
        data = b"".join(_body(self, _touched(self)))
        return transfer.decode(data, transfer.encoding_of(self.getencoding()))

    def get_payload_decoded(self) -> Any:
        """The payload's bytes without their transfer encoding; None if it consists of parts."""
        return self.get_payload(decode=True)

    def get_payload(self, i: int | None = None, decode: bool = False) -> Any:
        """The payload, as in `email`: text, or a list of parts; with i, one of the parts. Of a
        multipart without parts it is text in which surrogates stand for bytes above 127.

        decode: the bytes without their transfer encoding. What cannot be decoded comes as it is.
        """
        payload = self._payload
        if isinstance(payload, list) or i is not None or not isinstance(payload, str):
            return super().get_payload(i, decode)  # type: ignore[call-overload]
        if decode:
            encoding = transfer.encoding_of(self.getencoding())
            return transfer.decode(charsets.as_bytes(payload), encoding)
        if payload.isascii() or self.get_content_maintype() == "multipart":
            return payload
        codec = charsets.codec_of(self.get_content_charset()) or "ascii"
        return charsets.as_bytes(payload).decode(codec, "replace")

    def get_submsg(self) -> list[Any] | None:
        """The parts, or the message inside, as a list; None if there are none."""
        payload = self._payload
        return payload if isinstance(payload, list) else None

    def decode(self, filt: _Sink) -> str | None:
        """Writes the decoded payload to a file or filter; returns the name of the encoding."""
        data = self.get_payload_decoded()
        if data is not None:
            filt.write(data)
        return self.getencoding()

    def getnames(self, scan_zip: bool = False) -> list[tuple[str, str]]:
        """Every name by which a mail program might store or run this part: (attribute, name).

        The attributes are those of Content-Type, `filename` and `name` of Content-Disposition,
        `location` for the file that Content-Location names, `begin` for one that is uuencoded, and
        with scan_zip `zipname` for each
        member of a zip archive. Each header of these counts, if there are several. A value that
        programs read in several ways stands there once for each. Raises zipfile.BadZipFile for an
        archive that cannot be looked into.
        """
        names: list[tuple[str, str]] = []
        loose: dict[tuple[str, str], None] = {}
        for header, wanted in (("content-type", None), ("content-disposition", _NAMES)):
            for field in self.fields(header):
                for name, value in parameters.decoded(parameters.parameters(field)):
                    if not wanted or name in wanted:
                        names += [(name, text) for text in parameters.readings(value)]
                for name, value in parameters.decoded(parameters.loosely_named(field)):
                    loose.update(((name, text), None) for text in parameters.readings(value))
        known = set(names)
        names += [each for each in loose if each not in known]
        for field in self.fields("content-location"):
            names += [("location", text) for text in parameters.located(field)]
        if any("uue" in field.lower() for field in self.fields("content-transfer-encoding")):
            body = b"".join(_body(self, _touched(self)))
            names += [("begin", charsets.as_text(name)) for name in _BEGIN.findall(body)]
        if scan_zip and self._is_zip(names) and (source := self.get_payload_source()).strip():
            names += zipnames(source)
        return names

    def _is_zip(self, names: list[tuple[str, str]]) -> bool:
        if self.is_multipart():
            return False
        return (
            self.get_content_type() in _ZIP_TYPES
            or any(parameters.ends_with(name, (".zip",)) for _, name in names)
            or self.get_payload_source().startswith(b"PK\x03\x04")
        )

    ismultipart = Message.is_multipart

    # ---------------------------------------------------------------------------------- writing

    def dump(self, file: _Sink, unixfrom: bool = False) -> None:
        """Writes the message to a binary file: every part that was not modified to the byte as it
        came. unixfrom: with the envelope line "From ...", if it has one."""
        line = self.get_unixfrom() if unixfrom else None
        if line is not None:
            origin = self._origin
            if origin and line == origin.unixfrom:
                file.write(origin.data[origin.start : origin.header])
            else:
                file.write(charsets.as_bytes(line.rstrip("\r\n") + self.policy.linesep))
        for piece in _pieces(self, _touched(self), is_whole=True):
            file.write(piece)

    def as_bytes(self, unixfrom: bool = False, policy: Policy | None = None) -> bytes:
        """The message as dump writes it; with a policy as `email` would write it."""
        if policy is not None:
            return super().as_bytes(unixfrom, policy)
        out = BytesIO()
        self.dump(out, unixfrom)
        return out.getvalue()

    def as_string(
        self, unixfrom: bool = False, maxheaderlen: int = 0, policy: Policy | None = None
    ) -> str:
        """The message as `email` writes it into text; where it raises, for 8-bit text that is not
        of its charset or of one that nobody knows, what as_bytes gives, as text."""
        try:
            return super().as_string(unixfrom, maxheaderlen, policy)
        except (LookupError, MessageError, TypeError, ValueError):
            return charsets.as_text(self.as_bytes(unixfrom))

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no headerchange: who asked for it did so for the message itself."""
        return {**self.__dict__, "headerchange": None}


class MimeGenerator(BytesGenerator):
    """Writes messages as dump does; other ones as `email` does. Arguments are BytesGenerator's."""

    _fp: BinaryIO  # the base class's

    def flatten(self, msg: Any, unixfrom: bool = False, linesep: str | None = None) -> None:
        """Writes a message to the file that the generator was made for."""
        if isinstance(msg, MimeMessage) and linesep is None:
            msg.dump(self._fp, unixfrom)
        else:
            super().flatten(msg, unixfrom, linesep)


def message_from_file(fp: BinaryIO) -> MimeMessage:
    """Reads a message from a binary file. It is unmodified at first.

    Never fails on what is in the file; what is wrong with it stands in `defects` of the message
    and of its parts. At most MAX_PARTS parts and MAX_DEPTH levels are taken apart.
    """
    return MimeMessage(fp)


def _all_parts(message: Message) -> Iterator[Message]:
    """A message and all that is in it, without recursion."""
    waiting: list[Message] = [message]
    while waiting:
        part = waiting.pop()
        yield part
        payload = part.get_payload() if not isinstance(part, MimeMessage) else part.get_submsg()
        if isinstance(payload, list):
            waiting += [child for child in payload if isinstance(child, Message)]


def _changed(part: Message) -> bool:
    """Whether a part itself, not one of its parts, was changed."""
    if not isinstance(part, MimeMessage) or part._origin is None:
        return True
    return (
        part._payload_is_modified()
        or part.header_is_modified()
        or (part.preamble, part.epilogue) != part._origin.framing[:2]
    )


def _touched(root: Message) -> set[int]:
    """Ids of the parts that were changed and of those that hold them: of all that are not written
    as they came."""
    touched = set()
    for part in reversed(list(_all_parts(root))):  # each comes behind the one that it is in
        parts = part.get_submsg() if isinstance(part, MimeMessage) else None
        if _changed(part) or any(id(child) in touched for child in parts or ()):
            touched.add(id(part))
    return touched


def _pieces(part: Any, touched: set[int], is_whole: bool = False) -> Iterator[bytes]:
    """The bytes of a message, in pieces; without its envelope line if it is the whole."""
    if not isinstance(part, MimeMessage):
        out = BytesIO()
        BytesGenerator(out, mangle_from_=False, policy=part.policy).flatten(part)
        yield out.getvalue()
        return
    origin = part._origin
    start = 0
    if origin:
        start = origin.header if is_whole else origin.start
    if origin and id(part) not in touched:
        yield origin.data[start : origin.end]
        return
    body = _body(part, touched)
    first = next(filter(None, body), b"")  # before the header is: framing may set a boundary
    yield _header(part, start, bool(first))
    yield first
    yield from body


def _body(part: MimeMessage, touched: set[int]) -> Iterator[bytes]:
    """What stands behind the header of a part that is not written as it came."""
    payload = part.get_submsg()
    if payload is None:
        return iter((_text(part),))
    if part._origin and _is_framed_as_before(part):
        return _refilled(part._origin, touched)
    return _framed(part, payload, touched)


def _header(part: MimeMessage, start: int, has_body: bool) -> bytes:
    """A part's header and the line behind it, as they came as far as that can be."""
    origin = part._origin
    line_end = part.policy.linesep.encode("ascii")
    is_new = origin is None or part._payload_is_modified()
    if origin and not part.header_is_modified():
        header = origin.data[start : origin.blank]
        if has_body and is_new and header and not header.endswith((b"\r", b"\n")):
            header += line_end
    else:
        header = b"".join(part.policy.fold_binary(*item) for item in part.raw_items())
        if origin:
            header = origin.data[start : origin.fields] + header
            if origin.blank == origin.end and not has_body:  # what ends it stands behind it
                cut = 1 + header.endswith(b"\r\n")
                return header if _ends_line(origin) else header[:-cut]
    if origin is None or (is_new and origin.blank == origin.body):
        return header + line_end
    return header + origin.data[origin.blank : origin.body]


def _ends_line(origin: Origin) -> bool:
    return origin.start == origin.end or origin.data[origin.end - 1 : origin.end] in (b"\r", b"\n")


def _is_framed_as_before(part: MimeMessage) -> bool:
    """Whether nothing but the parts themselves may have changed in what holds them; nor has it
    where the type says now that there are no parts."""
    origin = part._origin
    if not origin or part._payload_is_modified():
        return False
    return part._framing() == origin.framing or part.get_content_maintype() not in _TYPES_WITH_PARTS


def _refilled(origin: Origin, touched: set[int]) -> Iterator[bytes]:
    """What stood around the parts, with the parts as they are now."""
    at = origin.body
    for child in origin.parts:
        yield origin.data[at : child.start]
        yield from _pieces(child.message, touched)
        at = child.end
    yield origin.data[at : origin.end]


def _framed(part: MimeMessage, payload: list[Any], touched: set[int]) -> Iterator[bytes]:
    """Parts that were put together anew."""
    line_end = part.policy.linesep.encode("ascii")
    kind = part.get_content_maintype()
    if kind not in _TYPES_WITH_PARTS:
        raise TypeError(f"a {part.get_content_type()} cannot hold parts: set its type")
    if kind == "message":
        for index, child in enumerate(payload):
            yield line_end if index else b""
            yield from _pieces(child, touched)
        return
    if part.get_boundary() is None:
        part.set_boundary(f"=_{secrets.token_hex(16)}")
    delimiter = b"--" + charsets.as_bytes(part.get_boundary())
    if part.preamble is not None:
        yield _lines(part, part.preamble) + line_end
    for child in payload:
        yield delimiter + line_end
        yield from _pieces(child, touched)
        yield line_end
    yield delimiter + b"--" + line_end
    if part.epilogue:
        yield _lines(part, part.epilogue)


def _text(part: MimeMessage) -> bytes:
    """The body of a part that holds no others."""
    origin = part._origin
    if origin and not part._payload_is_modified():
        return origin.data[origin.body : origin.end]
    payload = part._payload
    if payload is None:
        return b""
    if not isinstance(payload, str):
        raise TypeError(f"a payload is text or a list of parts, not {type(payload).__name__}")
    if isinstance(payload, _Exact) or transfer.encoding_of(part.getencoding()) == "binary":
        return charsets.as_bytes(payload)
    return _lines(part, payload)


def _lines(part: MimeMessage, text: str) -> bytes:
    """Text with the line ends of its message."""
    return charsets.as_bytes(_LINE_END.sub(part.policy.linesep, text))
