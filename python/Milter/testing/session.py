"""Sessions: one connection to a filter each. What all have in common, and the blocking one."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, TypeVar

from Milter import _wire
from Milter.testing.changes import Change
from Milter.testing.client import Auth, Client, Macros, Tls
from Milter.testing.content import Address, Content, read_address, read_content
from Milter.testing.conversation import Conversation
from Milter.testing.delivery import deliver
from Milter.testing.errors import (
    CallbackError,
    FilterClosed,
    FilterError,
    FilterTimeout,
    ProtocolError,
)
from Milter.testing.result import Result
from Milter.testing.steps import Answer, Message, Need, Offer, Steps
from Milter.testing.table import Row, rows
from Milter.testing.target import Link
from Milter.testing.trace import Packet

__all__ = ["AnySession", "Session"]

T = TypeVar("T")
READ = 1 << 16
_NOTHING: Macros = {}
_STEP_NAMES = {"envfrom": "mail", "envrcpt": "rcpt"}


class AnySession:
    """What a session is, whoever moves its bytes."""

    def __init__(self, link: Link, conversation: Conversation, timeout: float) -> None:
        self._link = link
        self._socket = link.socket
        self._conversation = conversation
        self._timeout = timeout
        self._patience = timeout  # seconds for a filter in this process to end

    @property
    def filter(self) -> Any:
        """The filter's object for this connection, if the filter is in this process: what the
        factory returned, once there was a negotiation. Else None."""
        return self._link.filter

    @property
    def negotiated(self) -> Offer | None:
        """What the filter asked for; None before negotiation."""
        return self._conversation.negotiated

    @property
    def symlists(self) -> dict[str, tuple[str, ...]]:
        """The macro lists that the filter asked for, by step."""
        return dict(self._conversation.macros.lists)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the filter asked to change in the current message."""
        return tuple(self._conversation.changes)

    @property
    def held(self) -> tuple[str, Answer] | None:
        """Step and answer that decide for the whole connection; None if there are none."""
        return self._conversation.held

    @property
    def errors(self) -> tuple[FilterError, ...]:
        """What the filter did wrong since the last whole message, where that is not raised."""
        return tuple(self._conversation.errors)

    @property
    def trace(self) -> list[str]:
        """The packets since the last whole message, one a line."""
        return self._conversation.trace.lines()

    def steps(self) -> list[Row]:
        """What was sent and answered since the last whole message, step by step, in words."""
        return rows(self._conversation.trace)

    @property
    def bytes(self) -> tuple[tuple[int, bytes], ...]:
        """With `keep_bytes`, what passed since the last whole message: see Result.passed."""
        return tuple(self._conversation.bytes or ())

    @property
    def closed(self) -> bool:
        """Whether the session has ended, for whatever reason."""
        return self._conversation.over or self._socket.fileno() < 0

    # ------------------------------------------------------------------------------ for drivers

    def _job(
        self, message: Content, sender: Address, rcpts: str | Sequence[Address], macros: Macros
    ) -> Message:
        wanted = [rcpts] if isinstance(rcpts, str) else rcpts
        job = Message(
            read_content(message), read_address(sender), [*map(read_address, wanted)], macros
        )
        if not job.rcpts:
            raise ValueError("a message needs a recipient")
        return job

    def _take_in(self) -> None:
        """Takes what has come already, without waiting, so that what came unasked is noticed."""
        try:
            self._conversation.feed(self._socket.recv(READ))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._conversation.feed(b"")
        self._conversation.expect_silence()

    def _settle(self) -> None:
        """After steps: as the MTA, ends the connection if it gave up on the filter; raises or
        keeps what callbacks raised."""
        if self._conversation.given_up:
            self._link.drop()
        raised = self._link.raised
        if not raised:
            return
        errors = [CallbackError(_STEP_NAMES.get(step, step), error) for step, error in raised]
        raised.clear()
        if self._conversation.strict:
            raise errors[0]
        self._conversation.errors += errors

    def _complete(self, result: Result) -> Result:
        """A result with what callbacks raised, where that is kept."""
        errors, self._conversation.errors = self._conversation.errors, []
        return replace(result, errors=(*result.errors, *errors)) if errors else result

    def _late(self) -> str:
        return f"no answer within {self._timeout:g} seconds"

    def _end(self, ended: bool) -> None:
        """After the end of the connection: raises or keeps what was wrong with it."""
        self._settle()
        if not ended:
            what = f"a callback is still busy after {self._timeout:g} seconds"
            error = FilterTimeout("close", what)
            if self._conversation.strict:
                raise error
            self._conversation.errors.append(error)

    def _until_closed(self) -> Steps[None]:
        while not self._conversation.at_end:
            self._conversation.expect_silence()
            yield Need.INPUT
            self._conversation.check_time()
        self._conversation.expect_silence()


class Session(AnySession):
    """One connection to a filter, as for one SMTP client. Made by MTA.session.

    `send` takes a whole message. The steps (`connect` ... `eom`, `abort`, `quit`) can also be
    gone one by one, in any order; each waits for the filter's answer, where one is due, and
    raises ProtocolError (with FilterClosed and FilterTimeout), CallbackError or SessionOver.
    `vanish` breaks off at any of them, and `send_packet`, `send_raw` and `read_packet` do what no
    MTA would.
    """

    def __init__(self, link: Link, conversation: Conversation, timeout: float) -> None:
        super().__init__(link, conversation, timeout)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    # ------------------------------------------------------------------------------------ I/O

    def _run(self, steps: Steps[T]) -> T:
        """Drives steps of the conversation to their end."""
        end = time.monotonic() + self._timeout
        try:
            while True:
                need = next(steps)
                if self._flush():
                    end = time.monotonic() + self._timeout
                if need is Need.INPUT:
                    self._receive(end)
        except StopIteration as stop:
            value: T = stop.value
        except ProtocolError as error:
            if isinstance(error, FilterTimeout):
                self._patience = 0.0  # it has been waited for
            self._link.drop()
            self._settle()
            raise
        self._flush()
        self._settle()
        return value

    def _flush(self) -> bool:
        """Sends the output. Returns whether there was some."""
        data = memoryview(self._conversation.take_output())
        if not data:
            return False
        self._take_in()
        end = time.monotonic() + self._timeout
        try:
            while data:
                try:
                    data = data[self._socket.send(data) :]
                except BlockingIOError:
                    if not self._writable(end):
                        self._conversation.time_out("the filter does not read")
                        return True
        except OSError:
            self._conversation.feed(b"")
        return True

    def _writable(self, end: float) -> bool:
        """Waits until something can be written, or a filter that writes has been heard."""
        self._poll.modify(self._socket, select.POLLIN | select.POLLOUT)
        events = self._poll.poll(max(0.0, end - time.monotonic()) * 1000)
        self._poll.modify(self._socket, select.POLLIN)
        if events and not events[0][1] & select.POLLOUT:
            self._take_in()
        return bool(events)

    def _receive(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            self._conversation.time_out(self._late())
            return
        try:
            self._conversation.feed(self._socket.recv(READ))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._conversation.feed(b"")

    # -------------------------------------------------------------------------------- messages

    def send(
        self,
        message: Content,
        sender: Address = "sender@example.org",
        rcpts: str | Sequence[Address] = "rcpt@example.org",
        *,
        auth: Auth | str | None = None,
        macros: Macros = _NOTHING,
        time_out_at: str | None = None,
    ) -> Result:
        """Sends a whole message and says what became of it.

        message: bytes, a path, or an email.message object. sender and each of rcpts: an address,
        or a list of an address and ESMTP arguments; rcpts may be a single str. auth: how the
        client logged in, an Auth or just the name. macros: values for this message. time_out_at:
        a step at which the MTA does not wait for the filter's answer but does what it does when
        it waited in vain: the default action.
        Once the filter has decided for the whole connection, it is not asked any more.
        Raises ProtocolError (with FilterClosed and FilterTimeout), CallbackError, OSError for a
        file that cannot be read, SessionOver.
        """
        job = self._job(message, sender, rcpts, macros)
        auth = Auth(auth) if isinstance(auth, str) else auth
        return self._complete(
            self._run(deliver(self._conversation, job, auth=auth, time_out_at=time_out_at))
        )

    # ----------------------------------------------------------------------------------- steps

    def negotiate(self) -> Offer | None:
        """Offers, and returns what the filter asked for; None if the MTA gave up on it."""
        return self._run(self._conversation.negotiate())

    def connect(self, client: Client | str = Client(), tls: Tls | None = None) -> Answer:  # noqa: B008
        """Tells about the client: a Client, or text as "name[address]:port" (else ValueError).
        tls: if it is encrypted from the start."""
        client = Client.parse(client) if isinstance(client, str) else client
        return self._run(self._conversation.connect(client, tls))

    def helo(self, name: str) -> Answer:
        """HELO or EHLO with the name that the client gave."""
        return self._run(self._conversation.helo(name))

    def mail(self, sender: str, *args: str, auth: Auth | None = None) -> Answer:
        """MAIL FROM, with ESMTP arguments: begins a message. Angle brackets are added."""
        return self._run(self._conversation.mail(sender, *args, auth=auth))

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

    # ------------------------------------------------------------------------------- raw level

    def send_packet(self, command: bytes, *fields: int | bytes | Sequence[bytes]) -> None:
        """Sends a packet of any kind, at any time. Fields as in Milter._wire.encode."""
        self.send_raw(_wire.encode(_wire.TO_FILTER, command, *fields))

    def send_raw(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._conversation.check_open()
        self._conversation.output += data
        self._flush()

    def read_packet(self) -> Packet:
        """Waits for any packet: (command, field, ...). Raises FilterClosed at the end."""
        return self._run(self._conversation.read())

    # ------------------------------------------------------------------------------------- end

    def close(self) -> None:
        """Ends the session as the MTA does, and waits for the filter to close.

        Raises ProtocolError if the filter still said something, or did not close in time, and
        CallbackError if its last callbacks raised. Closing twice is fine.
        """
        try:
            if not self.closed:
                self._conversation.quit()
                self._flush()
                self._socket.shutdown(socket.SHUT_WR)
                self._run(self._until_closed())
        except (FilterClosed, OSError):
            pass  # it was faster
        finally:
            ended = self._link.end(self._patience)
        self._end(ended)

    def vanish(self) -> None:
        """Breaks off without a word, as a crashed MTA does. What a filter in this process still
        raises is not told."""
        self._conversation.over = True
        self._link.end(self._patience)

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
