"""The same MTA in an event loop of asyncio: only how bytes are moved and waited for differs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Sequence
from types import TracebackType
from typing import TypeVar

from Milter import _wire
from Milter.testing.client import Auth, Client, Macros, Tls
from Milter.testing.content import Address, Content
from Milter.testing.delivery import deliver
from Milter.testing.errors import FilterClosed, FilterTimeout, ProtocolError
from Milter.testing.mta import AnyMTA, Introduction
from Milter.testing.result import Result
from Milter.testing.session import READ, AnySession
from Milter.testing.steps import Answer, Need, Offer, Steps
from Milter.testing.trace import Packet

__all__ = ["AsyncMTA", "AsyncSession"]

T = TypeVar("T")
_NOTHING: Macros = {}


class AsyncSession(AnySession):
    """A Session whose steps are awaited. Made by AsyncMTA.session."""

    # ------------------------------------------------------------------------------------ I/O

    async def _run(self, steps: Steps[T]) -> T:
        """Drives steps of the conversation to their end."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        try:
            while True:
                need = next(steps)
                if await self._flush():
                    end = loop.time() + self._timeout
                if need is Need.INPUT:
                    await self._receive(end - loop.time())
        except StopIteration as stop:
            value: T = stop.value
        except ProtocolError as error:
            if isinstance(error, FilterTimeout):
                self._patience = 0.0  # it has been waited for
            self._link.drop()
            self._settle()
            raise
        await self._flush()
        self._settle()
        return value

    async def _flush(self) -> bool:
        """Sends the output. Returns whether there was some."""
        data = self._conversation.take_output()
        if not data:
            return False
        self._take_in()
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.sock_sendall(self._socket, data), self._timeout)
        except asyncio.TimeoutError:
            self._conversation.time_out("the filter does not read")
        except OSError:
            self._conversation.feed(b"")
        return True

    async def _receive(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            data = await asyncio.wait_for(loop.sock_recv(self._socket, READ), max(seconds, 0))
        except asyncio.TimeoutError:
            self._conversation.time_out(self._late())
        except OSError:
            self._conversation.feed(b"")
        else:
            self._conversation.feed(data)

    # -------------------------------------------------------------------------------- messages

    async def send(
        self,
        message: Content,
        sender: Address = "sender@example.org",
        rcpts: str | Sequence[Address] = "rcpt@example.org",
        *,
        auth: Auth | str | None = None,
        macros: Macros = _NOTHING,
        time_out_at: str | None = None,
    ) -> Result:
        """See Session.send."""
        job = self._job(message, sender, rcpts, macros)
        auth = Auth(auth) if isinstance(auth, str) else auth
        steps = deliver(self._conversation, job, auth=auth, time_out_at=time_out_at)
        return self._complete(await self._run(steps))

    # ----------------------------------------------------------------- steps: as those of Session

    def negotiate(self) -> Awaitable[Offer | None]:
        """See Session.negotiate."""
        return self._run(self._conversation.negotiate())

    def connect(self, client: Client | str = Client(), tls: Tls | None = None) -> Awaitable[Answer]:  # noqa: B008
        """See Session.connect."""
        client = Client.parse(client) if isinstance(client, str) else client
        return self._run(self._conversation.connect(client, tls))

    def helo(self, name: str) -> Awaitable[Answer]:
        """See Session.helo."""
        return self._run(self._conversation.helo(name))

    def mail(self, sender: str, *args: str, auth: Auth | None = None) -> Awaitable[Answer]:
        """See Session.mail."""
        return self._run(self._conversation.mail(sender, *args, auth=auth))

    def rcpt(self, rcpt: str, *args: str) -> Awaitable[Answer]:
        """See Session.rcpt."""
        return self._run(self._conversation.rcpt(rcpt, *args))

    def data(self) -> Awaitable[Answer]:
        """See Session.data."""
        return self._run(self._conversation.data())

    def header(self, name: bytes, value: bytes) -> Awaitable[Answer]:
        """See Session.header."""
        return self._run(self._conversation.header(name, value))

    def eoh(self) -> Awaitable[Answer]:
        """See Session.eoh."""
        return self._run(self._conversation.eoh())

    def body(self, chunk: bytes) -> Awaitable[Answer]:
        """See Session.body."""
        return self._run(self._conversation.body(chunk))

    def eom(self) -> Awaitable[Answer]:
        """See Session.eom."""
        return self._run(self._conversation.eom())

    def unknown(self, line: str) -> Awaitable[Answer]:
        """See Session.unknown."""
        return self._run(self._conversation.unknown(line))

    async def abort(self) -> None:
        """See Session.abort."""
        self._conversation.abort()
        await self._flush()

    # ------------------------------------------------------------------------------- raw level

    async def send_packet(self, command: bytes, *fields: int | bytes | Sequence[bytes]) -> None:
        """See Session.send_packet."""
        await self.send_raw(_wire.encode(_wire.TO_FILTER, command, *fields))

    async def send_raw(self, data: bytes) -> None:
        """See Session.send_raw."""
        self._conversation.check_open()
        self._conversation.output += data
        await self._flush()

    def read_packet(self) -> Awaitable[Packet]:
        """See Session.read_packet."""
        return self._run(self._conversation.read())

    # ------------------------------------------------------------------------------------- end

    async def close(self) -> None:
        """See Session.close."""
        try:
            if not self.closed:
                self._conversation.quit()
                await self._flush()
                self._socket.shutdown(socket.SHUT_WR)
                await self._run(self._until_closed())
        except (FilterClosed, OSError):
            pass  # it was faster
        finally:
            ended = await asyncio.to_thread(self._link.end, self._patience)
        self._end(ended)

    async def vanish(self) -> None:
        """See Session.vanish."""
        self._conversation.over = True
        await asyncio.to_thread(self._link.end, self._patience)

    async def __aenter__(self) -> AsyncSession:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await (self.close() if kind is None else self.vanish())


class AsyncMTA(AnyMTA[AsyncSession]):
    """An MTA whose methods are awaited; for the rest see MTA. Messages of one AsyncMTA.send go one
    after the other; several at once have a session each."""

    async def open(self) -> AsyncSession:
        """See MTA.open."""
        link = await asyncio.to_thread(self._link)
        return AsyncSession(link, self._conversation(), self.timeout)

    async def session(
        self,
        client: Client | str | None = None,
        helo: str | None = None,
        *,
        tls: Tls | bool | None = None,
    ) -> AsyncSession:
        """See MTA.session."""
        return await self._introduced(Introduction(client, helo, tls))

    async def _introduced(self, wanted: Introduction) -> AsyncSession:
        self.tried = session = await self.open()
        try:
            await session._run(
                session._conversation.introduce(wanted.client, wanted.helo, wanted.tls)
            )
        except BaseException:
            await session.vanish()
            raise
        return session

    async def send(
        self,
        message: Content,
        sender: Address = "sender@example.org",
        rcpts: str | Sequence[Address] = "rcpt@example.org",
        *,
        client: Client | str | None = None,
        helo: str | None = None,
        tls: Tls | bool | None = None,
        auth: Auth | str | None = None,
        macros: Macros = _NOTHING,
        time_out_at: str | None = None,
    ) -> Result:
        """See MTA.send."""
        self.latest = None
        wanted = Introduction(client, helo, tls)
        if self._is_stale(wanted):
            await self.close()
        if self._current is None:
            self._current = await self._introduced(wanted)
            self._current_for = wanted
        self.latest = await self._current.send(
            message, sender, rcpts, auth=auth, macros=macros, time_out_at=time_out_at
        )
        return self.latest

    async def close(self) -> None:
        """See MTA.close."""
        session, self._current = self._current, None
        if session:
            await session.close()

    async def vanish(self) -> None:
        """See MTA.vanish."""
        session, self._current = self._current, None
        if session:
            await session.vanish()

    async def __aenter__(self) -> AsyncMTA:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await (self.close() if kind is None else self.vanish())
