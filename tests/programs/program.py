"""What a program of others is, in C or in Python alike, and how messages get to it.

in_c.py and in_python.py hold a table each. A program runs unchanged on Debian's library and on
ours; what became of each message must be equal but for what its entry calls varying.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGHUP, SIGTERM, Signals
from typing import NamedTuple, Protocol

from Milter.testing import MTA, Result
from mta import HOSTNAME, Mta, header_lines

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"

SENDER, RCPTS = "<sender@example.test>", ("<one@local.test>",)


class Outcome(NamedTuple):
    """What became of a message."""

    text: str  # sender, recipients, header and body of what was taken; or why it was not
    sender: str = ""  # of the envelope, with its brackets
    headers: Sequence[str] = ()  # in order, folds joined by |
    trace: str = ""  # what passed between MTA and program, where that is known

    def header(self, name: str) -> bytes:
        """The lines of the headers of a name, to be sent again."""
        lines = [line for line in self.headers if line.startswith(f"{name}:")]
        text = "".join(f"{line}\r\n" for line in lines).replace("|", "\r\n")
        return text.encode("utf-8", "surrogateescape")

    @classmethod
    def taken(
        cls, sender: str, rcpts: Sequence[str], headers: Sequence[str], body: bytes, trace: str = ""
    ) -> "Outcome":
        """Of a message that gets somewhere."""
        envelope = f"from {sender} to {' '.join(sorted(rcpts))}"
        content = body.decode("utf-8", "surrogateescape")
        return cls("\n".join([envelope, *headers, "", content]), sender, headers, trace)


class Send(Protocol):
    """Sends a message with CR LF line ends through a program."""

    def __call__(
        self,
        message: bytes,
        address: str = "127.0.0.1",
        sender: str = SENDER,
        rcpts: Sequence[str] = RCPTS,
    ) -> Outcome:
        """From a client of an IPv4 address; sender and recipients have their brackets."""


# Sends all messages of a program. Returns by a name what became of each.
Messages = Callable[[Send], dict[str, Outcome]]


class Start(NamedTuple):
    """How a program is started."""

    arguments: Sequence[str | Path]
    environment: dict[str, str]


# An exit code; None: it goes on. Which code a program ends with that goes into the background is
# not known: then it is ENDED.
ENDED = -1000


@dataclass(frozen=True, kw_only=True)
class Program(ABC):
    """One program, by a name of its own."""

    name: str
    # Writes into a folder, which is also the working directory, what the program needs to listen
    # on a unix socket; returns its arguments.
    configure: Callable[[Path, Path], list[str]]
    messages: Messages
    varying: re.Pattern[str]  # what differs from run to run on one and the same library
    became: dict[str, str]  # a regular expression for what became of each message, by its name
    # What a signal does on Debian's library and on ours.
    signals: dict[Signals, tuple[int | None, int | None]] = field(
        default_factory=lambda: {SIGTERM: (0, 0), SIGHUP: (0, 0)}
    )
    says: str | None = None  # the same for what it writes on ours, if that differs from Debian's
    package: str = ""  # the folder below build/ that it is in; its name, if not given
    library: re.Pattern[str]  # of the files that its process has mapped, those it is run on

    @property
    def home(self) -> Path:
        """The folder with its files."""
        return BUILD / (self.package or self.name)

    @abstractmethod
    def missing(self) -> str | None:
        """Why it cannot be run here, or None if it can."""

    @abstractmethod
    def start(self, ours: bool, folder: Path, socket: Path) -> AbstractContextManager[Start]:
        """Configures it for a library, ours or Debian's. What else it needs is there as long as
        the context lasts."""

    @abstractmethod
    def own(self, library: str) -> bool:
        """Whether a file is that of our library."""


# ------------------------------------------------------------------------------------- the ways


def _outcome(result: Result) -> Outcome:
    trace = "\n".join(result.trace).replace("\\x0a", "|")
    if not result.verdict.queued:
        return Outcome(str(result.reply or result.verdict), trace=trace)
    if result.quarantine:
        return Outcome(f"quarantined: {result.quarantine}", trace=trace)
    head, _, body = result.message.replace(b"\r\n", b"\n").partition(b"\n\n")
    sender, rcpts = f"<{result.envelope.sender}>", result.envelope.rcpts
    return Outcome.taken(sender, rcpts, header_lines(head), body, trace)


def through_testing(mta: MTA) -> Send:
    """By Milter.testing, clients of one address in one connection."""

    def send(
        message: bytes,
        address: str = "127.0.0.1",
        sender: str = SENDER,
        rcpts: Sequence[str] = RCPTS,
    ) -> Outcome:
        return _outcome(mta.send(message, sender, rcpts, client=f"client.test[{address}]"))

    return send


def through_postfix(mta: Mta, service: str) -> Send:
    """By a service of a real MTA, a connection each."""

    def send(
        message: bytes,
        address: str = "127.0.0.1",
        sender: str = SENDER,
        rcpts: Sequence[str] = RCPTS,
    ) -> Outcome:
        with closing(mta.client(service)) as client:
            client.command("EHLO client.test")
            client.command(f"XCLIENT NAME=client.test ADDR={address}")
            client.command("EHLO client.test")
            replies = list(client.run(message, sender, rcpts).values())
        if replies[-1].code != 250:
            return Outcome(next(str(each) for each in replies if each.code not in (250, 354)))
        id_ = mta.queue_id(replies[-1])
        got = mta.recipients(id_)
        if not got:
            return Outcome("quarantined" if mta.held(id_) else "discarded")
        found = mta.delivered(id_, min(got).partition("@")[0])
        return Outcome.taken(found.sender, list(got), found.headers, found.body)

    return send


def mta_for(socket: Path) -> MTA:
    """The MTA of Milter.testing, called as the private Postfix is."""
    return MTA(f"unix:{socket}", hostname=HOSTNAME)
