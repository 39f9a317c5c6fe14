"""What became of a message that went through a filter."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import IO

from Milter import _wire
from Milter.testing.changes import Change
from Milter.testing.draft import Draft, Envelope
from Milter.testing.errors import FilterError
from Milter.testing.reply import Reply
from Milter.testing.table import Row, rows, table
from Milter.testing.text import printable
from Milter.testing.trace import Trace

__all__ = ["RecipientResult", "Result", "Verdict"]


class Verdict(str, Enum):
    """What the MTA does with a message, or a recipient. Equal to its name in lower case."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    DISCARDED = "discarded"
    TEMPFAILED = "tempfailed"
    REJECTED = "rejected"

    __str__ = str.__str__

    @property
    def queued(self) -> bool:
        """Whether the MTA keeps the message: to deliver it, or in quarantine."""
        return self in (Verdict.ACCEPTED, Verdict.QUARANTINED)


@dataclass(frozen=True)
class RecipientResult:
    """One recipient, its address and verdict: accepted, or refused with a reply of its own."""

    address: str
    verdict: Verdict
    reply: Reply | None = None


@dataclass(frozen=True)
class Result:
    """The outcome of one message.

    verdict; step: where it fell ("connect", "helo", "mail", "rcpt", "data", "header", "eoh",
    "body", "eom", or "mta": the MTA itself refused it by a rule of its own); reply: what the client
    was told, None if the message was taken; recipients: in the order given; changes: what the
    filter asked for, in order, whatever the verdict; errors: what the filter did wrong, where that
    is not raised (MTA's `strict`).
    """

    verdict: Verdict
    step: str
    reply: Reply | None
    recipients: tuple[RecipientResult, ...]
    changes: tuple[Change, ...]
    errors: tuple[FilterError, ...]
    original: Draft = field(repr=False)
    """The message and envelope as they came in; not to be changed."""
    packets: Trace = field(repr=False, compare=False)
    """What passed, packet by packet; `trace` is its text."""
    passed: tuple[tuple[int, bytes], ...] | None = field(repr=False, compare=False, default=None)
    """With MTA's `keep_bytes`, what passed in order: TO_FILTER or TO_MTA of Milter._wire, and
    bytes. The first message of a session has those of negotiation, connect and HELO too."""

    @property
    def code(self) -> int | None:
        """The SMTP reply code, such as 550; None if the message was taken."""
        return self.reply.code if self.reply else None

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code, such as "5.7.1"."""
        return self.reply.enhanced if self.reply else None

    @property
    def text(self) -> str | None:
        """The reply's text without codes, lines joined by LF."""
        return self.reply.text if self.reply else None

    @cached_property
    def _draft(self) -> Draft:
        """The message with the filter's changes."""
        refused = {each.address for each in self.recipients if not each.verdict.queued}
        draft = self.original.copy()
        draft.rcpts = [rcpt for rcpt in draft.rcpts if rcpt not in refused]
        for change in self.changes:
            change.apply(draft)
        return draft

    @property
    def message(self) -> bytes:
        """The message as the MTA would queue it, without what the MTA adds itself; line ends as
        in the message that was sent. For one that was not taken, what it would have been."""
        return self._draft.message

    @property
    def envelope(self) -> Envelope:
        """Sender and recipients after refusals and changes."""
        return self._draft.envelope

    @property
    def quarantine(self) -> str | None:
        """The reason given for the quarantine; None if there is none."""
        return self._draft.quarantined

    @property
    def sent(self) -> bytes:
        """The bytes that the filter got. Only with MTA's `keep_bytes`, else ValueError."""
        return self._bytes(_wire.TO_FILTER)

    @property
    def received(self) -> bytes:
        """The bytes that the filter sent. Only with MTA's `keep_bytes`, else ValueError."""
        return self._bytes(_wire.TO_MTA)

    def _bytes(self, direction: int) -> bytes:
        if self.passed is None:
            raise ValueError("the bytes were not kept: MTA(..., keep_bytes=True)")
        return b"".join(data for way, data in self.passed if way == direction)

    @property
    def trace(self) -> list[str]:
        """What was sent (">") and answered ("<"), one packet a line."""
        return self.packets.lines()

    def steps(self) -> list[Row]:
        """What was sent and what was answered, step by step, in words; the first message of a
        session has those of negotiation, connect and HELO too."""
        return rows(self.packets)

    def summary(self) -> str:
        """The outcome in a line: verdict, step if it is not the end, reply or reason."""
        at = "" if self.step == "eom" else f" at {self.step}"
        held = self.verdict is Verdict.QUARANTINED and self.quarantine
        reason = held or (str(self.reply) if self.reply else "")
        lines = [printable(line) for line in reason.split("\n")]
        return f"{self.verdict}{at}" + (f": {' / '.join(lines)}" if reason else "")

    def __repr__(self) -> str:
        return f"<Result: {self.summary()}>"

    def __str__(self) -> str:
        """The session as people read it: the outcome, each step and its answer, what changed."""
        lines = [self.summary(), *table(self.steps())]
        lines += [f"error {error}" for error in self.errors]
        if self.verdict.queued and (diff := self.diff()):
            lines += diff.split("\n")
        return "\n  ".join(lines)

    def write(self, file: IO[bytes]) -> None:
        """Writes `message` to a binary file, without a second copy of it in memory."""
        self._draft.write(file)

    def _texts(self, context: int) -> tuple[list[str], list[str]]:
        """Lines of the message before and after; of a body that stayed only the first ones."""
        before, after = self.original, self._draft
        if after.body_replaced:
            return _lines(before.head + before.body), _lines(after.head + after.body)
        start = before.body_start(context)
        return _lines(before.head + start), _lines(after.head + start)

    def diff(self, context: int = 3) -> str:
        """What changed in envelope and message, as unified text without a line end at the end;
        "" if nothing did. Control characters are escaped."""
        parts = (
            ("envelope", self.original.envelope.lines(), self.envelope.lines()),
            ("message", *self._texts(context)),
        )
        return "\n".join(
            printable(line)
            for name, before, after in parts
            if before != after
            for line in difflib.unified_diff(
                before, after, name, f"{name} (filtered)", n=context, lineterm=""
            )
        )


def _lines(message: bytes) -> list[str]:
    return [line.decode("utf-8", "surrogateescape") for line in message.split(b"\n")][:-1]
