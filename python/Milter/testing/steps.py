"""The steps of a conversation as data: what is sent at each, what can be answered, what is asked of
whoever moves the bytes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from Milter import _wire
from Milter.testing.client import Macros
from Milter.testing.draft import Envelope
from Milter.testing.reply import Reply
from Milter.testing.text import bare

__all__ = [
    "ANSWERS",
    "BEFORE",
    "BITS",
    "CONTENT",
    "GO_ON",
    "STAGES",
    "STEPS",
    "Answer",
    "Message",
    "Need",
    "Offer",
    "Step",
    "Steps",
]

T = TypeVar("T")


class Need(Enum):
    """What a step waits for; the output is to be sent first in both cases."""

    INPUT = "bytes from the filter"
    ROOM = "room in the output"


Steps = Generator[Need, None, T]


class Step(NamedTuple):
    """A step: its command, the NO* and NR_* bits that omit it or its answer, and the first version
    of the protocol that has it."""

    command: bytes
    omit: int
    no_reply: int
    version: int = 2


BITS: Final = MappingProxyType(_wire.PROTOCOL)
STEPS: Final = MappingProxyType(
    {
        "connect": Step(b"C", BITS["NOCONNECT"], BITS["NR_CONN"]),
        "helo": Step(b"H", BITS["NOHELO"], BITS["NR_HELO"]),
        "mail": Step(b"M", BITS["NOMAIL"], BITS["NR_MAIL"]),
        "rcpt": Step(b"R", BITS["NORCPT"], BITS["NR_RCPT"]),
        "data": Step(b"T", BITS["NODATA"], BITS["NR_DATA"], 4),
        "header": Step(b"L", BITS["NOHDRS"], BITS["NR_HDR"]),
        "eoh": Step(b"N", BITS["NOEOH"], BITS["NR_EOH"]),
        "body": Step(b"B", BITS["NOBODY"], BITS["NR_BODY"]),
        "eom": Step(b"E", 0, 0),
        "unknown": Step(b"U", BITS["NOUNKNOWN"], BITS["NR_UNKN"], 3),
    }
)
BEFORE: Final = ("connect", "helo")
"""The steps before any message."""
CONTENT: Final = ("header", "eoh", "body", "eom")
"""The steps in which the message itself passes."""
STAGES: Final = ("connect", "helo", "mail", "rcpt", "data", "eom", "eoh")
"""The stages that have macro lists, by their number (protocol sheet 2.6)."""
ANSWERS: Final = MappingProxyType(
    {b"c": "continue", b"a": "accept", b"r": "reject", b"t": "tempfail", b"d": "discard",
     b"s": "skip", b"4": "shutdown"}
)  # fmt: skip
"""The answers that are a packet without data."""


@dataclass(frozen=True)
class Answer:
    """What a filter's final answer at a step means to the MTA.

    kind: "continue", "accept", "reject", "tempfail", "discard", "skip", and "quarantine", which
    only an MTA's default action is. reply: what the SMTP client is told, with reject and tempfail.
    """

    kind: str
    reply: Reply | None = None

    @property
    def final(self) -> bool:
        """Whether it decides more than "go on"."""
        return self.kind not in ("continue", "skip")

    @property
    def refuses(self) -> bool:
        """Whether the client is told no, for now or for good."""
        return self.kind in ("reject", "tempfail")

    @property
    def hangs_up(self) -> bool:
        """Whether the client is disconnected: any reply with code 421."""
        return self.reply is not None and self.reply.code == 421


GO_ON: Final = Answer("continue")


@dataclass(frozen=True)
class Offer:
    """What the MTA offers: protocol version, actions, protocol options. The filter's answer has
    the same shape."""

    version: int
    actions: int
    protocol: int


@dataclass(frozen=True)
class Message:
    """A message to deliver: content; sender and rcpts, each address with its ESMTP arguments behind
    it; macros, values from MAIL on."""

    content: bytes
    sender: Sequence[str]
    rcpts: Sequence[Sequence[str]]
    macros: Macros

    @property
    def envelope(self) -> Envelope:
        """The envelope that the message starts with."""
        return Envelope(
            bare(self.sender[0]),
            tuple(bare(rcpt[0]) for rcpt in self.rcpts),
            " ".join(self.sender[1:]),
            {bare(rcpt[0]): " ".join(rcpt[1:]) for rcpt in self.rcpts if rcpt[1:]},
        )
