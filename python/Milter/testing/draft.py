"""A message as an MTA holds it in its queue, and the changes that filters may make to it.

What is the same for all MTAs. How each reads a message and makes the changes is in a subclass, in
the file of its profile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO

from Milter.testing.reply import Reply
from Milter.testing.text import bare, to_bytes, to_str

__all__ = ["Draft", "Envelope", "Header"]

_PIECE = 1 << 16  # bytes of a body that are worked on at a time
_LONG = 1000  # bytes in which the colon of a header must be
_HEADER = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")


@dataclass(frozen=True)
class Envelope:
    """Who a message is from and for; addresses without angle brackets, "" the null sender.

    sender, rcpts: the addresses. sender_params and rcpt_params hold the ESMTP parameters given with
    an address, if any.
    """

    sender: str
    rcpts: tuple[str, ...]
    sender_params: str = ""
    rcpt_params: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The envelope as SMTP commands, for people."""

        def line(start: str, address: str, params: str) -> str:
            return f"{start}:<{address}> {params}".rstrip()

        return [
            line("MAIL FROM", self.sender, self.sender_params),
            *(line("RCPT TO", rcpt, self.rcpt_params.get(rcpt, "")) for rcpt in self.rcpts),
        ]


@dataclass(frozen=True)
class Header:
    """One header: its name, and all after the colon, white space and folds included, with LF
    between lines. text None: it only has a place, and is not there for anybody to see."""

    name: bytes
    text: bytes | None
    own: bool = False
    """Whether the MTA itself put it there: filters do not see it."""

    def is_called(self, name: bytes) -> bool:
        """Whether it has this name, in whatever case of letters."""
        return self.name.lower() == name.lower()


def _pieces(text: bytes, at: int, plain: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """A text from a place on, made plain piece by piece, and never cut within a line end."""
    while at < len(text):
        end = min(at + _PIECE, len(text))
        while end < len(text) and text[end - 1 : end] == b"\r":
            end += 1  # what follows decides what a CR is
        yield plain(text[at:end])
        at = end


class Draft:
    """A queued message that takes changes.

    head_size: bytes of the header section as it came in, with LF line ends and with the line that
    ends it.

    content: bytes with any line ends; LF, CRLF, or a mixture (then the first one decides what
    the result has). A missing line end at the end is added, as SMTP does. It is kept as it is,
    and its body worked on in pieces, so that a message needs its own size and little more.
    leading_space: whether header values that filters send bring their own (HDR_LEADSPC).
    """

    #: The headers that the MTA has of its own when a message comes in, on top.
    own_headers: tuple[Header, ...] = (Header(b"Received", None, own=True),)
    #: Whether there is an empty line below the headers where there is no body.
    always_blank = False
    #: Whether a line end is added to a filter's body that has none at its end.
    ends_new_body = False
    #: What a mailbox's separator begins with, which may stand above the headers.
    separators: tuple[bytes, ...] = (b"From ",)

    def __init__(self, content: bytes, envelope: Envelope, *, leading_space: bool = False) -> None:
        first = content.find(b"\n")
        self.eol = b"\r\n" if first > 0 and content[first - 1 : first] == b"\r" else b"\n"
        self.content = content
        self.headers = list(self.own_headers)
        self.head_size = 0
        self._blank = False
        self._first_line = b""  # of the body, if it is not below an empty line
        self._body_at = self._read_headers()
        self._new_body: bytes | None = None
        self.leading_space = leading_space
        self.sender = envelope.sender
        self.sender_params = envelope.sender_params
        self.rcpts = list(envelope.rcpts)
        self.rcpt_params = dict(envelope.rcpt_params)
        self.quarantined: str | None = None

    def copy(self) -> Draft:
        """Another draft with the same content."""
        twin = copy(self)
        for name, value in vars(self).items():
            if isinstance(value, list | dict | set):
                setattr(twin, name, value.copy())
        return twin

    # --------------------------------------------------------------- reading, as the MTA does it

    def refusal(self) -> Reply | None:
        """What the MTA itself says to a message that it does not take; None if it takes it."""
        return None

    def plain(self, text: bytes) -> bytes:
        """A part of the message, which does not end in the midst of a line end, with LF line ends
        and what else the MTA makes of odd bytes."""
        return text.replace(b"\r\n", b"\n")

    def first_line(self, line: bytes) -> Header | None:
        """The header that a mailbox's separator becomes; None if it is left out."""
        raise NotImplementedError

    def header(self, name: bytes, text: bytes) -> Header | None:
        """A header of the message, as the MTA keeps it; None if it does not."""
        return Header(name, text)

    def header_line(self, line: bytes) -> bytes:
        """A line of the header section, before it is looked at."""
        return line

    def _read_headers(self) -> int:
        """Reads the headers. They end at an empty line or at the first line that is none, and
        white space before the colon goes. Returns where the rest of the body begins."""
        content = self.content
        at = 0
        lines: list[bytes] = []  # of the header that is being read
        name = b""

        def finish() -> None:
            if lines and (header := self.header(name, b"\n".join(lines))):
                self.headers.append(header)
            lines.clear()

        while at < len(content):
            found = content.find(b"\n", at)
            end = found + 1 if found >= 0 else len(content)
            goes_on = lines and content[at : at + 1] in b" \t"
            if end - at > _LONG and not goes_on and not _HEADER.match(content, at, at + _LONG):
                break  # nothing to copy of what may be the whole message
            line = self.header_line(self.plain(content[at:end]).removesuffix(b"\n"))
            self.head_size += len(line) + 1
            if not line:
                self._blank = True
                at = end
                break
            if line[:1] in b" \t" and lines:
                lines.append(line)
            elif match := _HEADER.match(line):
                finish()
                name = match[1]
                lines.append(line[match.end() :])
            elif at > 0 or not line.startswith(self.separators):
                self._first_line = line + b"\n"
                at = end
                break
            elif header := self.first_line(line):
                self.headers.append(header)
            at = end
        finish()
        return at

    def _pieces(self) -> Iterator[bytes]:
        """The body as it is now, with LF line ends, piece by piece."""
        if self._new_body is not None:
            yield from _pieces(self._new_body, 0, lambda text: text.replace(b"\r\n", b"\n"))
            if self._new_body and self.ends_new_body and not self._new_body.endswith(b"\n"):
                yield b"\n"
            return
        if self._first_line:
            yield self._first_line
        yield from _pieces(self.content, self._body_at, self.plain)
        if self._body_at < len(self.content) and not self.content.endswith(b"\n"):
            yield b"\n"

    # ---------------------------------------------------------------------------- what filters get

    def wire_headers(self) -> Iterator[tuple[bytes, bytes]]:
        """Names and values as filters get them: LF in folds, one leading space dropped unless
        HDR_LEADSPC was negotiated."""
        for header in self.headers:
            if header.text is not None and not header.own:
                value = header.text if self.leading_space else header.text.removeprefix(b" ")
                yield header.name, value

    def wire_body(self, size: int) -> Iterator[bytes]:
        """The body as filters get it, with CRLF line ends, in chunks of `size` bytes and a last
        one of what is left."""
        held = bytearray()
        for piece in self._pieces():
            held += piece.replace(b"\n", b"\r\n")
            while len(held) >= size:
                yield bytes(held[:size])
                del held[:size]
        if held:
            yield bytes(held)

    # -------------------------------------------------------------------------------- as it is now

    @property
    def body(self) -> bytes:
        """The body with LF line ends."""
        return b"".join(self._pieces())

    def body_start(self, lines: int) -> bytes:
        """The first lines of the body, if they are not too long."""
        start = b""
        for piece in self._pieces():
            start += piece
            if len(start) >= _PIECE or start.count(b"\n") >= lines:
                break
        return b"".join(line + b"\n" for line in start.split(b"\n")[:-1][:lines])

    @property
    def body_replaced(self) -> bool:
        """Whether a filter has put another body in place."""
        return self._new_body is not None

    @property
    def head(self) -> bytes:
        """The header section with LF line ends, with the empty line below it where there is one."""
        lines = [b"%s:%s\n" % (each.name, each.text) for each in self.headers
                 if each.text is not None]  # fmt: skip
        body = (
            self._new_body
            if self.body_replaced
            else self._first_line or self._body_at < len(self.content)
        )
        return b"".join(lines) + (b"\n" if self._blank or body or self.always_blank else b"")

    @property
    def message(self) -> bytes:
        """The message as it would be delivered, without what the MTA itself adds."""
        whole = BytesIO()
        self.write(whole)
        return whole.getvalue()

    def write(self, file: IO[bytes]) -> None:
        """Writes `message` to a file, piece by piece."""
        file.write(self._ended(self.head))
        for piece in self._pieces():
            file.write(self._ended(piece))

    @property
    def envelope(self) -> Envelope:
        """Sender and recipients as they are now."""
        return Envelope(self.sender, tuple(self.rcpts), self.sender_params, dict(self.rcpt_params))

    # ------------------------------------------------------------------------------------- changes

    def add_header(self, name: str, value: str) -> None:
        """addheader without an index."""
        self.headers.append(self.made(name, value))

    def insert_header(self, index: int, name: str, value: str) -> None:
        """addheader with an index."""
        raise NotImplementedError

    def change_header(self, index: int, name: str, value: str) -> None:
        """chgheader; an empty value deletes."""
        raise NotImplementedError

    def add_recipient(self, address: str, params: str | None = None) -> None:
        """addrcpt."""
        raise NotImplementedError

    def delete_recipient(self, address: str) -> None:
        """delrcpt; without effect if it is not there."""
        raise NotImplementedError

    def change_sender(self, address: str, params: str | None = None) -> None:
        """chgfrom: "" and "<>" are the null sender. Its ESMTP parameters are replaced as well."""
        self.sender = bare(address)
        self.sender_params = params or ""

    def replace_body(self, body: bytes) -> None:
        """replacebody, all chunks together: CRLF becomes the queue's line end, a lone CR stays."""
        self._blank = True
        self._new_body = body

    def quarantine(self, reason: str) -> None:
        """Holds the message, for the reason given last."""
        self.quarantined = reason

    def made(self, name: str, value: str) -> Header:
        """A header that a filter adds."""
        space = b"" if self.leading_space else b" "
        return Header(to_bytes(name), space + to_bytes(value))

    def _ended(self, text: bytes) -> bytes:
        return text if self.eol == b"\n" else text.replace(b"\n", self.eol)

    def __repr__(self) -> str:
        names = ", ".join(to_str(each.name) for each in self.headers if each.text is not None)
        size = len(self._new_body or b"") if self.body_replaced else len(self.content)
        return f"<{type(self).__name__} from {self.sender!r}: {names}; {size} bytes>"
