"""An MTA for filters to talk to: sessions over blocking sockets, messages through them."""

from __future__ import annotations

import email.message
import os
import select
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from Milter import _wire
from Milter.testing import spec as specs
from Milter.testing.changes import Change
from Milter.testing.client import Client, Macros
from Milter.testing.conversation import Answer, Conversation, Message, Need, Offer, Steps
from Milter.testing.errors import FilterClosed, FilterTimeout, ProtocolError
from Milter.testing.profile import PROFILES, Profile
from Milter.testing.result import Result
from Milter.testing.trace import Packet

__all__ = ["MTA", "Address", "Content", "Session"]

T = TypeVar("T")
Content = bytes | str | os.PathLike[str] | email.message.Message
"""A message: its bytes, the path of its file, or an email object."""
Address = str | Sequence[str]
"""An address, or an address and ESMTP arguments: "a@example.org", ("a@example.org", "SIZE=9")."""

_READ = 1 << 16
_NOTHING: Macros = {}


class Session:
    """One connection to a filter, as for one SMTP client. Made by MTA.session.

    `send` takes a whole message. The steps (`connect` ... `eom`, `abort`, `quit`) can also be
    gone one by one, in any order; each waits for the filter's answer, where one is due, and
    raises ProtocolError (with FilterClosed and FilterTimeout) or SessionOver. `vanish` breaks off
    at any of them, and `send_packet`, `send_raw` and `read_packet` do what no MTA would.
    """

    def __init__(self, connection: socket.socket, conversation: Conversation) -> None:
        self._socket = connection
        self._conversation = conversation
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)

    # ------------------------------------------------------------------------------------ I/O

    def _run(self, steps: Steps[T]) -> T:
        """Drives steps of the conversation to their end."""
        try:
            while True:
                need = next(steps)
                self._flush()
                if need is Need.INPUT:
                    self._receive()
        except StopIteration as end:
            value: T = end.value
        except ProtocolError:
            self._socket.close()
            raise
        self._flush()
        return value

    def _flush(self) -> None:
        """Sends the output; first takes in what came unasked, so that it is noticed."""
        conversation = self._conversation
        data = conversation.take_output()
        if not data:
            return
        try:
            if self._readable.poll(0):
                self._receive()
                conversation.expect_silence()
            self._socket.sendall(data)
        except TimeoutError:
            conversation.fail("the filter does not read", FilterTimeout)
        except OSError as error:
            conversation.fail(f"the filter closed the connection ({error.strerror})", FilterClosed)

    def _receive(self) -> None:
        try:
            self._conversation.feed(self._socket.recv(_READ))
        except TimeoutError:
            seconds = self._socket.gettimeout()
            self._conversation.fail(f"no answer within {seconds:g} seconds", FilterTimeout)
        except ConnectionError:
            self._conversation.feed(b"")

    # -------------------------------------------------------------------------------- messages

    def send(
        self,
        message: Content,
        sender: Address = "sender@example.org",
        rcpts: str | Sequence[Address] = "rcpt@example.org",
        *,
        macros: Macros = _NOTHING,
    ) -> Result:
        """Sends a whole message and says what became of it.

        message: bytes, a path, or an email.message object. sender and each of rcpts: an address,
        or a list of an address and ESMTP arguments; rcpts may be a single str. macros: values
        for this message.
        Once the filter has decided for the whole connection, it is not asked any more.
        Raises ProtocolError (with FilterClosed and FilterTimeout), OSError for a file that
        cannot be read, SessionOver.
        """
        job = Message(
            read_content(message),
            _address(sender),
            [_address(rcpt) for rcpt in ([rcpts] if isinstance(rcpts, str) else rcpts)],
            macros,
        )
        if not job.rcpts:
            raise ValueError("a message needs a recipient")
        return self._run(self._conversation.deliver(job))

    # ----------------------------------------------------------------------------------- steps

    def negotiate(self) -> Offer:
        """Offers, and returns what the filter asked for."""
        return self._run(self._conversation.negotiate())

    def connect(self, client: Client | str = Client()) -> Answer:  # noqa: B008  # it is frozen
        """Tells about the client: a Client, or text as "name[address]:port" (else ValueError)."""
        client = Client.parse(client) if isinstance(client, str) else client
        return self._run(self._conversation.connect(client))

    def helo(self, name: str) -> Answer:
        """HELO or EHLO with the name that the client gave."""
        return self._run(self._conversation.helo(name))

    def mail(self, sender: str, *args: str) -> Answer:
        """MAIL FROM, with ESMTP arguments: begins a message. Angle brackets are added."""
        return self._run(self._conversation.mail(sender, *args))

    def rcpt(self, rcpt: str, *args: str) -> Answer:
        """RCPT TO, with ESMTP arguments. Angle brackets are added."""
        return self._run(self._conversation.rcpt(rcpt, *args))

    def data(self) -> Answer:
        """DATA. With a version below 4 it is not sent, and the answer is "continue"."""
        return self._run(self._conversation.data())

    def header(self, name: bytes, value: bytes) -> Answer:
        """One header; folds in the value are LF and white space."""
        return self._run(self._conversation.header(name, value))

    def eoh(self) -> Answer:
        """The end of the headers."""
        return self._run(self._conversation.eoh())

    def body(self, chunk: bytes) -> Answer:
        """One chunk of the body, 1 to 65535 bytes, line ends CRLF."""
        return self._run(self._conversation.body(chunk))

    def eom(self) -> Answer:
        """The end of the message; what the filter changed is then in `changes`."""
        return self._run(self._conversation.eom())

    def unknown(self, line: str) -> Answer:
        """An SMTP command that the MTA does not know."""
        return self._run(self._conversation.unknown(line))

    def abort(self) -> None:
        """Takes the current message back."""
        self._conversation.abort()
        self._flush()

    @property
    def negotiated(self) -> Offer | None:
        """What the filter asked for; None before negotiation."""
        return self._conversation.negotiated

    @property
    def symlists(self) -> dict[str, tuple[str, ...]]:
        """The macro lists that the filter asked for, by step."""
        return dict(self._conversation.symlists)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the filter asked to change in the current message."""
        return tuple(self._conversation.changes)

    @property
    def held(self) -> tuple[str, Answer] | None:
        """Step and answer that decide for the whole connection; None if there are none."""
        return self._conversation.held

    @property
    def trace(self) -> list[str]:
        """The packets since the last whole message, one a line."""
        return self._conversation.trace.lines()

    # ------------------------------------------------------------------------------- raw level

    def send_packet(self, command: bytes, *fields: int | bytes | Sequence[bytes]) -> None:
        """Sends a packet of any kind, at any time. Fields as in Milter._wire.encode."""
        self.send_raw(_wire.encode(_wire.TO_FILTER, command, *fields))

    def send_raw(self, data: bytes) -> None:
        """Sends bytes as they are."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            self._conversation.fail(f"the filter closed the connection ({error})", FilterClosed)

    def read_packet(self) -> Packet:
        """Waits for any packet: (command, field, ...). Raises FilterClosed at the end."""
        return self._run(self._conversation.read())

    # ------------------------------------------------------------------------------------- end

    @property
    def closed(self) -> bool:
        """Whether the session has ended, for whatever reason."""
        return self._conversation.over or self._socket.fileno() < 0

    def close(self) -> None:
        """Ends the session as the MTA does, and waits for the filter to close.

        Raises ProtocolError if the filter still said something, or did not close in time.
        Closing twice is fine.
        """
        if self.closed:
            self._socket.close()
            return
        try:
            self._conversation.quit()
            self._flush()
            self._socket.shutdown(socket.SHUT_WR)
            self._run(self._until_closed())
        except (FilterClosed, OSError):
            pass  # it was faster
        finally:
            self._socket.close()

    def _until_closed(self) -> Steps[None]:
        while not self._conversation.at_end:
            self._conversation.expect_silence()
            yield Need.INPUT
        self._conversation.expect_silence()

    def vanish(self) -> None:
        """Breaks off without a word, as a crashed MTA does."""
        self._conversation.over = True
        self._socket.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.vanish()


class MTA:
    """An MTA that talks to the filter at a socket, over the real protocol.

    spec: where the filter listens, such as "unix:/run/filter.sock" or "inet:8894@127.0.0.1".
    profile: a Profile or the name of one ("postfix"). version, actions, protocol: what is
    offered; protocol None stands for all that the profile offers with that version (0x1fffff
    with 6). macros: values by name, with or without braces, for every session. timeout: seconds
    for each wait on the filter.

    As a context manager, or until close(), `send` keeps one session open for its messages.
    """

    def __init__(
        self,
        spec: str,
        *,
        profile: str | Profile = "postfix",
        version: int = 6,
        actions: int = _wire.ALL_ACTIONS,
        protocol: int | None = None,
        macros: Macros = _NOTHING,
        hostname: str = "mta.example.org",
        timeout: float = 30.0,
    ) -> None:
        self.spec = spec
        if isinstance(profile, str):
            if profile not in PROFILES:
                raise ValueError(f"no profile {profile!r}; there are: {', '.join(PROFILES)}")
            profile = PROFILES[profile]
        self.profile = profile
        if protocol is None:
            protocol = self.profile.protocol.get(version, _wire.ALL_PROTOCOL)
        self.offer = Offer(version, actions, protocol)
        self.macros = macros
        self.hostname = hostname
        self.timeout = timeout
        self._current: Session | None = None
        self._current_for: tuple[Client, str] | None = None

    def open(self) -> Session:
        """Connects and does nothing else: for tests of single steps. Raises ConnectError."""
        connection = specs.connect(self.spec, self.timeout)
        conversation = Conversation(
            self.profile, self.offer, hostname=self.hostname, macros=self.macros
        )
        return Session(connection, conversation)

    def session(self, client: Client | str | None = None, helo: str | None = None) -> Session:
        """Opens a session: connects, negotiates, tells about the client and its HELO.

        client: a Client or text as "name[address]:port"; localhost if None. helo: the client's
        name if None. What the filter decided at these steps is in `held`.
        Raises ConnectError, ProtocolError.
        """
        client, helo = _introduce(client, helo)
        session = self.open()
        try:
            session.negotiate()
            session.connect(client)
            if session.held is None:
                session.helo(helo)
        except BaseException:
            session.vanish()
            raise
        return session

    def send(
        self,
        message: Content,
        sender: Address = "sender@example.org",
        rcpts: str | Sequence[Address] = "rcpt@example.org",
        *,
        client: Client | str | None = None,
        helo: str | None = None,
        macros: Macros = _NOTHING,
    ) -> Result:
        """Sends a message through one open session, as Session.send does. A new session is begun
        when client or helo differ from those of the last message, and when that one ended."""
        wanted = _introduce(client, helo)
        if self._current and (
            self._current_for != wanted or self._current.closed or self._current.held
        ):
            self.close()
        if self._current is None:
            self._current = self.session(*wanted)
            self._current_for = wanted
        return self._current.send(message, sender, rcpts, macros=macros)

    def close(self) -> None:
        """Ends the session that `send` keeps open. Raises ProtocolError as Session.close does."""
        session, self._current = self._current, None
        if session:
            session.close()

    def vanish(self) -> None:
        """Breaks off the session that `send` keeps open, without a word."""
        session, self._current = self._current, None
        if session:
            session.vanish()

    def __enter__(self) -> MTA:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.vanish()


def read_content(message: Content) -> bytes:
    """The bytes of a message, which may be given as a path or an email object."""
    if isinstance(message, bytes):
        return message
    if isinstance(message, email.message.Message):
        return message.as_bytes()
    return Path(message).read_bytes()


def _address(address: Address) -> list[str]:
    return [address] if isinstance(address, str) else list(address)


def _introduce(client: Client | str | None, helo: str | None) -> tuple[Client, str]:
    if client is None:
        client = Client()
    elif isinstance(client, str):
        client = Client.parse(client)
    return client, client.host if helo is None else helo
