"""A message as an MTA holds it in its queue, and the changes that filters may make to it.

How changes are made here is Postfix's way (protocol sheet, section 8). Another MTA's way is a
subclass that does otherwise what is done otherwise there.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass, field

from Milter.testing.text import bare, to_bytes, to_str

__all__ = ["Draft", "Envelope", "Header", "split_message"]

# A header's first line: a name, perhaps white space, a colon.
_WHITE_COLON = re.compile(rb"\A([^\s:]+)[ \t]+:")
_HEADER = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:")


@dataclass(frozen=True)
class Envelope:
    """Who a message is from and for; addresses without angle brackets, "" the null sender.

    sender_params and rcpt_params hold the ESMTP parameters given with an address, if any.
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
    """One header, folds included: `raw` without the last line end, lines joined by LF."""

    raw: bytes
    own: bool = False
    """Whether the MTA itself put it there: filters do not see it, and it is not shown."""

    @property
    def name(self) -> bytes:
        """All before the colon."""
        return self.raw.partition(b":")[0]

    @property
    def value(self) -> bytes:
        """All after the colon, leading white space included."""
        return self.raw.partition(b":")[2]

    def is_called(self, name: bytes) -> bool:
        """Whether it has this name, in whatever case of letters."""
        return self.name.lower() == name.lower()


def split_message(message: bytes) -> tuple[list[Header], bool, bytes]:
    """Splits a message with LF line ends into headers, whether a blank line belongs after
    them, and the body.

    As in Postfix's cleanup: headers end at an empty line or at the first line that is none, and
    white space before the colon goes.
    """
    spans: list[tuple[int, int]] = []
    blank = False
    at = 0
    while at < len(message):
        end = message.find(b"\n", at)
        end = len(message) if end < 0 else end
        if end == at:
            blank = True
            at += 1
            break
        if message[at : at + 1] in b" \t" and spans:
            spans[-1] = (spans[-1][0], end)
        elif _HEADER.match(message, at, end):
            spans.append((at, end))
        else:
            break
        at = end + 1
    headers = [Header(_WHITE_COLON.sub(rb"\1:", message[start:end])) for start, end in spans]
    body = message[at:]
    return headers, blank or bool(body), body


class Draft:
    """A queued message that takes changes.

    message: bytes with any line ends; LF, CRLF, or a mixture (then the first one decides what
    the result has). A missing line end at the end is added, as SMTP does.
    leading_space: whether header values that filters send bring their own (HDR_LEADSPC).
    """

    def __init__(self, message: bytes, envelope: Envelope, *, leading_space: bool = False) -> None:
        first = message.find(b"\n")
        self.eol = b"\r\n" if first > 0 and message[first - 1 : first] == b"\r" else b"\n"
        message = message.replace(b"\r\n", b"\n")
        if message and not message.endswith(b"\n"):
            message += b"\n"
        headers, self._blank, self.body = split_message(message)
        # The MTA's own Received is on top. It counts where headers are inserted.
        self.headers = [Header(b"Received: by the MTA", own=True), *headers]
        self.leading_space = leading_space
        self.sender = envelope.sender
        self.sender_params = envelope.sender_params
        self.rcpts = list(envelope.rcpts)
        self.rcpt_params = dict(envelope.rcpt_params)
        self._added: set[str] = set()
        self.quarantined: str | None = None

    def copy(self) -> Draft:
        """Another draft with the same content."""
        twin = copy(self)
        twin.headers = self.headers.copy()
        twin.rcpts = self.rcpts.copy()
        twin.rcpt_params = self.rcpt_params.copy()
        twin._added = self._added.copy()
        return twin

    @property
    def message(self) -> bytes:
        """The message as it would be delivered, without what the MTA itself adds."""
        lines = [header.raw + b"\n" for header in self.headers if not header.own]
        if self._blank or self.body:
            lines.append(b"\n")
        lines.append(self.body)
        return self._ended(b"".join(lines))

    @property
    def envelope(self) -> Envelope:
        """Sender and recipients as they are now."""
        return Envelope(self.sender, tuple(self.rcpts), self.sender_params, dict(self.rcpt_params))

    @property
    def wire_body(self) -> bytes:
        """The body as filters get it: CRLF line ends."""
        return self.body.replace(b"\n", b"\r\n")

    def wire_headers(self) -> list[tuple[bytes, bytes]]:
        """Names and values as filters get them: LF in folds, one leading space dropped unless
        HDR_LEADSPC was negotiated, cut at a NUL because they are strings there."""
        pairs = []
        for header in self.headers:
            if header.own:
                continue
            value = header.value.partition(b"\0")[0]
            if not self.leading_space:
                value = value.removeprefix(b" ")
            pairs.append((header.name, value))
        return pairs

    def add_header(self, name: str, value: str) -> None:
        """Appends a header below all others."""
        self.headers.append(self._header(name, value))

    def insert_header(self, index: int, name: str, value: str) -> None:
        """Inserts a header: 0 is above the MTA's own Received, 1 below it, and so on; beyond
        the last one it is appended."""
        self.headers.insert(index, self._header(name, value))

    def change_header(self, index: int, name: str, value: str) -> None:
        """Replaces the index-th header of a name (0 stands for 1), deletes it when value is
        empty, appends one when there are not so many. A deletion shifts those that follow."""
        wanted = to_bytes(name)
        places = [
            place
            for place, header in enumerate(self.headers)
            if not header.own and header.is_called(wanted)
        ]
        index = max(index, 1)
        if index > len(places):
            if value:
                self.add_header(name, value)
        elif value:
            self.headers[places[index - 1]] = self._header(name, value)
        else:
            del self.headers[places[index - 1]]

    def add_recipient(self, address: str, params: str | None = None) -> None:
        """Adds a recipient unless a filter added it before, in whatever case of letters. One that
        the client gave already is there twice then, and gets the message twice."""
        rcpt = bare(address)
        if rcpt.casefold() not in self._added:
            self._added.add(rcpt.casefold())
            self.rcpts.append(rcpt)
            if params:
                self.rcpt_params[rcpt] = params

    def delete_recipient(self, address: str) -> None:
        """Removes a recipient, each time that it is there in just this case of letters. It may be
        added again, in any case of letters."""
        rcpt = bare(address)
        self._added.discard(rcpt.casefold())
        self.rcpts = [other for other in self.rcpts if other != rcpt]
        self.rcpt_params.pop(rcpt, None)

    def change_sender(self, address: str, params: str | None = None) -> None:
        """Puts another sender in place, "" or "<>" for the null sender. Its ESMTP parameters are
        replaced as well.
        """
        self.sender = bare(address)
        self.sender_params = params or ""

    def replace_body(self, body: bytes) -> None:
        """Puts another body in place, below a blank line: CRLF becomes the queue's line end, a
        lone CR stays, a missing line end at the end is added."""
        body = body.replace(b"\r\n", b"\n")
        self._blank = True
        self.body = body + b"\n" if body and not body.endswith(b"\n") else body

    def quarantine(self, reason: str) -> None:
        """Holds the message, for the reason given last."""
        self.quarantined = reason

    def _header(self, name: str, value: str) -> Header:
        space = b"" if self.leading_space else b" "
        return Header(to_bytes(name) + b":" + space + to_bytes(value))

    def _ended(self, message: bytes) -> bytes:
        return message if self.eol == b"\n" else message.replace(b"\n", self.eol)

    def __repr__(self) -> str:
        names = ", ".join(to_str(header.name) for header in self.headers if not header.own)
        return f"<{type(self).__name__} from {self.sender!r}: {names}; {len(self.body)} bytes>"
