"""Postfix as filters know it (protocol sheet, section 8; measured with 3.7.11)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from Milter import macros
from Milter.testing.draft import Draft, Envelope, Header
from Milter.testing.profile import Profile
from Milter.testing.reply import Reply, read_lines
from Milter.testing.steps import STEPS, Answer
from Milter.testing.text import bare, to_bytes

__all__ = ["POSTFIX", "PostfixDraft"]

_PERCENT = re.compile("%(.?)", re.DOTALL)
_CR_BEFORE_END = re.compile(rb"\r+(?=\n|\Z)")
_DROPPED = (b"bcc", b"content-length", b"resent-bcc", b"return-path")
_LONGEST_HEADER = 60000  # bytes; what is more is cut off
_UNAVAILABLE = "Service unavailable - try again later"


class PostfixDraft(Draft):
    """A message in Postfix's queue."""

    ends_new_body = True
    separators = (b"From ", b">From ")

    def __init__(self, content: bytes, envelope: Envelope, *, leading_space: bool = False) -> None:
        super().__init__(content, envelope, leading_space=leading_space)
        self._added: set[tuple[str, str]] = set()

    def plain(self, text: bytes) -> bytes:
        """CR before a line end go, others become spaces."""
        text = text.replace(b"\r\n", b"\n")
        if b"\r" in text:
            text = _CR_BEFORE_END.sub(b"", text).replace(b"\r", b" ")
        return text

    def first_line(self, line: bytes) -> Header | None:
        """A mailbox's separator is kept as a header."""
        return Header(b"X-Mailbox-Line", b" " + line)

    def header(self, name: bytes, text: bytes) -> Header | None:
        """Some are never kept (message_drop_headers); a value ends at a NUL."""
        if name.lower() in _DROPPED:
            return None
        room = _LONGEST_HEADER - len(name) - 1
        if len(text) > room:
            text = text[:room].rstrip(b"\n ")
        return Header(name, text.partition(b"\0")[0])

    def insert_header(self, index: int, name: str, value: str) -> None:
        """0 is above Postfix's own Received, 1 below it, and so on; beyond the last one it is
        appended."""
        self.headers.insert(index, self.made(name, value))

    def change_header(self, index: int, name: str, value: str) -> None:
        """Replaces the index-th header of a name (0 stands for 1), deletes it when value is
        empty, appends one when there are not so many. A deletion shifts those that follow."""
        wanted = to_bytes(name)
        places = [place for place, each in enumerate(self.headers)
                  if not each.own and each.is_called(wanted)]  # fmt: skip
        index = max(index, 1)
        if index > len(places):
            if value:
                self.add_header(name, value)
        elif value:
            self.headers[places[index - 1]] = self.made(name, value)
        else:
            del self.headers[places[index - 1]]

    def add_recipient(self, address: str, params: str | None = None) -> None:
        """Adds a recipient unless a filter added it before with the same parameters, in whatever
        case of letters. One that the client gave already is there twice then, and gets the
        message twice."""
        rcpt = bare(address)
        key = (rcpt.casefold(), params or "")
        if key not in self._added:
            self._added.add(key)
            self.rcpts.append(rcpt)
            if params:
                self.rcpt_params[rcpt] = params

    def delete_recipient(self, address: str) -> None:
        """Removes a recipient, each time that it is there in just this case of letters. It may be
        added again, in any case of letters."""
        rcpt = bare(address)
        self._added = {key for key in self._added if key[0] != rcpt.casefold()}
        self.rcpts = [other for other in self.rcpts if other != rcpt]
        self.rcpt_params.pop(rcpt, None)


class Postfix(Profile):
    """What Postfix does by rules of its own."""

    def read_reply(self, text: str) -> Reply:
        """A digit behind the code begins an enhanced code, which must be of its class. `%%`
        becomes `%`, and a single `%` is dropped."""
        reply, rests = read_lines(text)
        for rest in rests:
            if rest[:1].isdigit() and rest[:1] != text[:1]:
                raise ValueError(f"the enhanced code of {rest!r} does not agree with {text[:3]}")
        return Reply(reply.code, reply.enhanced, _PERCENT.sub(r"\1", reply.text))

    def reply(self, step: str, kind: str, given: Reply | None, address: str, host: str) -> Reply:
        """At connect a refusal is the greeting, without the filter's text; one for now is told
        later."""
        if given is None:
            given = (Reply(550, "5.7.1", "Command rejected") if kind == "reject"
                     else Reply(451, "4.7.1", _UNAVAILABLE))  # fmt: skip
        if step == "connect" and given.code == 421:
            return Reply(421, None, f"{host} {_UNAVAILABLE}")
        if step == "connect" and given.code >= 500:
            return Reply(554, None, f"{host} ESMTP not accepting connections")
        return given

    def misconfigured(self, action: str) -> Answer:
        """Then a refusal is for now, and has a text of its own."""
        if self.failures[action].refuses:
            text = "Server configuration problem - try again later"
            return Answer("tempfail", Reply(451, "4.3.5", text))
        return self.failures[action]

    def macro_names(
        self, stage: str, lists: Mapping[str, tuple[str, ...]]
    ) -> tuple[str, ...] | None:
        """An empty list stands for the usual macros."""
        return lists.get(stage) or self.macros.get(stage)

    def unknown_command(self, line: str) -> str:
        """The first word."""
        return line.partition(" ")[0]

    def aborts_after(self, step: str, answer: Answer, answered: bool) -> str:
        """Each message, finished or not."""
        return "now"

    def aborts_at_quit(self, said_helo: bool) -> bool:
        """Once more, if the client said HELO."""
        return said_helo


POSTFIX: Final = Postfix(
    name="postfix",
    software="Postfix 3.7.11",
    protocol=MappingProxyType({2: 0x7F, 3: 0x17F, 4: 0x37F, 5: 0x37F, 6: 0x1FFFFF}),
    macros=macros.POSTFIX.sent,
    macro_stage=MappingProxyType({"header": "eoh", "body": "eom"}),
    macros_when_omitted=frozenset({"connect", "helo", "unknown", "mail", "rcpt", "data", "eom"}),
    queue_id_at_mail=False,
    chunk=65535,
    draft=PostfixDraft,
    meanings=MappingProxyType(
        {
            ("connect", "discard"): "continue",
            ("helo", "discard"): "continue",
            **{(step, "shutdown"): "accept" for step in ("header", "eoh", "body", "eom")},
        }
    ),
    skips=MappingProxyType({step: step for step in STEPS}),
    faults=MappingProxyType(
        {
            "action": "ignored",
            "protocol options": "ignored",
            "macro list": "ignored",
            "old version": "ignored",
            "body action": "ignored",
            "skip": "ignored",
            "skip at the end": "ignored",
            "reply": "misconfigured",
            "header name": "ignored",
            "header value": "ignored",
            "split body": "misconfigured",
        }
    ),
    failures=MappingProxyType(
        {
            "tempfail": Answer("tempfail", Reply(451, "4.7.1", _UNAVAILABLE)),
            "reject": Answer("reject", Reply(550, "5.5.0", "Service unavailable")),
            "accept": Answer("accept"),
            "quarantine": Answer("quarantine"),
        }
    ),
    shutdown=Reply(421, "4.7.0", "Server closing connection"),
    progress_anywhere=True,
    most_macros=None,
    content_apart=True,
    quit_when_held=False,
)
