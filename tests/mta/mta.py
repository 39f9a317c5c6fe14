"""What the tests have in common for every MTA: an SMTP client, delivered messages as data, and the
class that a private MTA on loopback is made of.

postfix.py and sendmail.py say how each is configured, started and read.
"""

import re
import shutil
import smtplib
import socket
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

T = TypeVar("T")

DOMAIN = "local.test"
HOSTNAME = "mx.local.test"
ELSEWHERE = "<one@elsewhere.test>"  # a recipient that every MTA here refuses by itself
MESSAGE = b"Subject: test\r\nX-Two: first\r\nX-Two: second\r\n\r\nThe body.\r\n"
RECEIVED = "Received: the private MTA's own"


def wait_for(what: str, condition: Callable[[], T | None], seconds: float = 30) -> T:
    """Returns the first true value of condition(); AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Numbers of TCP ports on loopback that nobody uses now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


class Reply(NamedTuple):
    """What an SMTP client got: the code and the text, its lines joined by line feeds."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class Message(NamedTuple):
    """A message as an MTA delivers or queues it."""

    sender: str  # of the envelope, with its brackets
    headers: list[str]  # in order, folds joined by |, the MTA's own Received as RECEIVED
    body: bytes  # with LF as line end
    raw: bytes  # all that can differ by what a filter does; ids and dates made alike


def header_lines(head: bytes) -> list[str]:
    """The lines of a header section with LF line ends, folds joined by |."""
    text = head.decode("utf-8", "surrogateescape")
    return text.replace("\n ", "| ").replace("\n\t", "|\t").split("\n")


class Client(smtplib.SMTP):
    """An SMTP client that hands every reply back and raises for none."""

    def __init__(self, port: int) -> None:
        super().__init__(timeout=60, local_hostname="client.test")
        self.greeting = self.reply(self.connect("127.0.0.1", port))

    @staticmethod
    def reply(answer: tuple[int, bytes]) -> Reply:
        """The reply of an smtplib call."""
        code, text = answer
        return Reply(code, text.decode("utf-8", "surrogateescape"))

    def command(self, line: str | bytes) -> Reply:
        """Sends one command line; bytes go out as they are. A closed connection is code 0."""
        try:
            self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
            return self.reply(self.getreply())
        except smtplib.SMTPServerDisconnected:
            return Reply(0, "closed")

    def content(self, message: bytes) -> Reply:
        """Sends a message (CR LF line ends) and its final dot, after DATA got its 354."""
        dots = re.sub(rb"(?m)^\.", b"..", message)
        self.send(dots + (b"" if dots.endswith(b"\r\n") else b"\r\n") + b".\r\n")
        return self.reply(self.getreply())

    def run(
        self,
        message: bytes = MESSAGE,
        sender: str = "<sender@example.test>",
        rcpts: Sequence[str] = ("<one@local.test>",),
    ) -> dict[str, Reply]:
        """One whole message. Goes on after refused recipients, but stops at another refusal.
        Returns the replies in order by the command's name; "." is the end of the message."""
        replies = {"mail": self.command(f"MAIL FROM:{sender}")}
        if replies["mail"].code != 250:
            return replies
        for number, rcpt in enumerate(rcpts):
            replies[f"rcpt{number or ''}"] = self.command(f"RCPT TO:{rcpt}")
        replies["data"] = self.command("DATA")
        if replies["data"].code == 354:
            replies["."] = self.content(message)
        return replies


class Mta(ABC):
    """A running private MTA. Use as a context manager."""

    name: ClassVar[str]
    # The ways to use a filter, each at a port of its own, so that no test has to reload the MTA.
    # Both MTAs have "plain" (no filter), "unix" (filter one on a unix socket; without it mail is
    # refused for a while), "inet" (a filter on TCP), "both" (one, then two), and "accept" and
    # "reject" (filter one; without it mail is accepted or refused). "without" names one more that
    # only this MTA has.
    services: ClassVar[Sequence[str]]
    without: ClassVar[str]
    taken: ClassVar[re.Pattern[str]]  # the reply to a message that was taken; group 1 is its id
    below: ClassVar[str | None] = None  # where its folder must be; None: anywhere

    def __init__(self) -> None:
        # Not below pytest's own folder: that one is closed to other users.
        self.folder = Path(tempfile.mkdtemp(prefix=f"milterkit-{self.name}-", dir=self.below))
        self.folder.chmod(0o755)
        self.one = self.folder / "filters" / "one"
        self.two = self.folder / "filters" / "two"
        self.one.parent.mkdir(mode=0o755)
        self.inet = 0
        self.ports: dict[str, int] = {}

    def __enter__(self) -> "Mta":
        try:
            self.furnish()
            # A port may be taken between its choice and its use: then others are tried.
            for attempt in range(3):
                self.inet, *ports = free_ports(1 + len(self.services))
                self.ports = dict(zip(self.services, ports, strict=True))
                self.start()
                try:
                    wait_for(f"{self.name} to listen", self._listens, 90)
                    return self
                except AssertionError:
                    if attempt == 2 or "already in use" not in self.log():
                        raise RuntimeError(f"{self.name} did not start:\n{self.log()}") from None
                    self.stop()
            raise AssertionError
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _listens(self) -> bool:
        try:
            Client(self.ports["plain"]).close()
        except (OSError, smtplib.SMTPException):
            return False
        return True

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Why it cannot run here, or None if it can."""

    @abstractmethod
    def furnish(self) -> None:
        """Fills its folder, once."""

    @abstractmethod
    def start(self) -> None:
        """Configures it for self.ports and starts it."""

    @abstractmethod
    def stop(self) -> None:
        """Stops it, also if it never started."""

    @abstractmethod
    def log(self) -> str:
        """All that it logged so far."""

    @abstractmethod
    def find(self, queue_id: str, rcpt: str) -> Message | None:
        """A message as delivered to a recipient, or None."""

    @abstractmethod
    def recipients(self, queue_id: str) -> set[str]:
        """Waits until nothing is on its way, and returns who gets a message."""

    @abstractmethod
    def held(self, queue_id: str) -> bool:
        """Whether a message is in quarantine: kept, and not delivered."""

    def queue_id(self, reply: Reply) -> str:
        """The id that was given to a message that was taken; AssertionError if it was not."""
        match = self.taken.fullmatch(reply.text)
        assert reply.code == 250, str(reply)
        assert match, str(reply)
        return match[1]

    def client(self, service: str) -> Client:
        """A new SMTP connection to one of the services; only the greeting was exchanged."""
        return Client(self.ports[service])

    def session(
        self,
        service: str,
        message: bytes = MESSAGE,
        sender: str = "<sender@example.test>",
        rcpts: Sequence[str] = ("<one@local.test>",),
    ) -> dict[str, Reply]:
        """A whole SMTP session with one message, as far as the MTA lets it come; see Client.run.
        Also has the replies "greeting" and "ehlo"."""
        with closing(self.client(service)) as client:
            replies = {"greeting": client.greeting}
            if client.greeting.code == 220:
                replies["ehlo"] = client.command("EHLO client.test")
                replies |= client.run(message, sender, rcpts)
                client.command("QUIT")
            return replies

    def submit(
        self,
        service: str,
        message: bytes = MESSAGE,
        sender: str = "<sender@example.test>",
        rcpts: Sequence[str] = ("<one@local.test>",),
    ) -> str:
        """A session in which the message must be taken; returns its queue id."""
        replies = self.session(service, message, sender, rcpts)
        assert "." in replies, replies
        return self.queue_id(replies["."])

    def delivered(self, queue_id: str, rcpt: str = "one") -> Message:
        """Waits until a message was delivered to rcpt@DOMAIN, and returns it."""
        what = f"message {queue_id} for {rcpt}"
        return wait_for(what, lambda: self.find(queue_id, f"{rcpt}@{DOMAIN}"))
