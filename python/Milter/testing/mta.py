"""An MTA for filters to talk to, and what it is told: profile, offer, macros, clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any, Generic, TypeVar

from Milter import _wire
from Milter.testing.client import Auth, Client, Macros, Tls
from Milter.testing.content import Address, Content
from Milter.testing.conversation import Conversation
from Milter.testing.postfix import POSTFIX
from Milter.testing.profile import Profile
from Milter.testing.result import Result
from Milter.testing.sendmail import SENDMAIL
from Milter.testing.session import AnySession, Session
from Milter.testing.steps import Offer
from Milter.testing.target import Link, Target, link_to

__all__ = ["MTA", "PROFILES", "AnyMTA", "Introduction"]

PROFILES: Mapping[str, Profile] = MappingProxyType({"postfix": POSTFIX, "sendmail": SENDMAIL})

SessionT = TypeVar("SessionT", bound=AnySession)
_NOTHING: Macros = {}


class Introduction:
    """How a client comes in: who it is, its HELO, its TLS. Two may be equal."""

    def __init__(
        self, client: Client | str | None, helo: str | None, tls: Tls | bool | None
    ) -> None:
        self.client = Client.parse(client) if isinstance(client, str) else client or Client()
        self.helo = self.client.host if helo is None else helo
        self.tls = Tls() if tls is True else tls or None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Introduction) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class AnyMTA(Generic[SessionT]):
    """What an MTA is, whoever moves the bytes of its sessions: see MTA."""

    def __init__(
        self,
        target: Target,
        *,
        profile: str | Profile = "postfix",
        version: int = 6,
        actions: int = _wire.ALL_ACTIONS,
        protocol: int | None = None,
        macros: Macros = _NOTHING,
        hostname: str = "mta.example.org",
        timeout: float = 30.0,
        wait: float = 0.0,
        strict: bool = True,
        default_action: str = "tempfail",
        keep_bytes: bool = False,
        server: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(profile, str):
            if profile not in PROFILES:
                raise ValueError(f"no profile {profile!r}; there are: {', '.join(PROFILES)}")
            profile = PROFILES[profile]
        self.target = target
        self.profile = profile
        if protocol is None:
            protocol = self.profile.protocol.get(version, _wire.ALL_PROTOCOL)
        self.offer = Offer(version, actions, protocol)
        self.macros = macros
        self.hostname = hostname
        self.timeout = timeout
        self.wait = wait
        self.strict = strict
        self.default_action = default_action
        self.keep_bytes = keep_bytes
        self._server_options = dict(server or {})
        self.latest: Result | None = None
        """What the latest `send` returned; None if there was none, or it raised."""
        self.tried: SessionT | None = None
        """The latest session that was begun, also one that failed."""
        self._current: SessionT | None = None
        self._current_for: Introduction | None = None
        self._conversation()  # so that what is wrong with the arguments is told now

    def _link(self) -> Link:
        return link_to(self.target, self.timeout, self._server_options, self.wait)

    def _conversation(self) -> Conversation:
        return Conversation(
            self.profile,
            self.offer,
            hostname=self.hostname,
            macros=self.macros,
            strict=self.strict,
            default_action=self.default_action,
            keep_bytes=self.keep_bytes,
        )

    def _is_stale(self, wanted: Introduction) -> bool:
        """Whether the session that `send` keeps open does not do for this client."""
        return self._current is not None and (
            self._current_for != wanted or self._current.closed or self._current.held is not None
        )

    def __repr__(self) -> str:
        target = getattr(self.target, "__name__", None) or str(self.target)
        return f"<{type(self).__name__} as {self.profile.name} for {target}>"

    @property
    def current(self) -> SessionT | None:
        """The session that `send` keeps open; None if there is none."""
        return self._current

    @property
    def filter(self) -> Any:
        """The filter's object in the session that `send` keeps open: see Session.filter."""
        return self._current.filter if self._current else None


class MTA(AnyMTA[Session]):
    """An MTA that gives messages to a filter, over the real protocol.

    target: where the filter is. A socket specification such as "unix:/run/filter.sock" or
    "inet:8894@127.0.0.1", or a path; a Milter.Server that listens; or a filter's class or
    factory, which is served in this process on a socketpair.
    profile: a Profile or the name of one: "postfix" or "sendmail". version, actions, protocol:
    what is offered; protocol None stands for all that the profile offers with that version
    (0x1fffff with 6). macros: values by name, with or without braces, for every session; None
    for none. hostname: the MTA's own. timeout: seconds for each answer, whatever comes before it.
    wait: seconds for which a socket is tried again that nobody listens on yet.
    strict: errors of the filter are raised, ProtocolError and CallbackError; if False, the MTA
    does what it does about them in life, Result.errors has them, and default_action is what
    happens to mail where the MTA gives up on the filter: "tempfail", "reject", "accept", with
    Postfix also "quarantine", with Sendmail "shutdown". keep_bytes: Result.passed has all bytes.
    server: for a class or factory, keywords of Milter.Server, such as {"actions": Milter.ADDHDRS,
    "exception_policy": Milter.REJECT}.

    As a context manager, or until close(), `send` keeps one session open for its messages; it
    may be used again after that. Sessions of its own are made by session(), as many at once as
    wanted. An MTA is for one thread at a time; its sessions may each have their own.
    """

    def open(self) -> Session:
        """Connects and does nothing else: for tests of single steps. Raises ConnectError."""
        return Session(self._link(), self._conversation(), self.timeout)

    def session(
        self,
        client: Client | str | None = None,
        helo: str | None = None,
        *,
        tls: Tls | bool | None = None,
    ) -> Session:
        """Opens a session: connects, negotiates, tells about the client and its HELO.

        client: a Client or text as "name[address]:port"; localhost if None. helo: the client's
        name if None. tls: a Tls, or True for an ordinary one; the client then says HELO once
        more, as after STARTTLS. What the filter decided at these steps is in `held`.
        Raises ConnectError, ProtocolError, CallbackError.
        """
        return self._introduced(Introduction(client, helo, tls))

    def _introduced(self, wanted: Introduction) -> Session:
        self.tried = session = self.open()
        try:
            session._run(session._conversation.introduce(wanted.client, wanted.helo, wanted.tls))
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
        tls: Tls | bool | None = None,
        auth: Auth | str | None = None,
        macros: Macros = _NOTHING,
        time_out_at: str | None = None,
    ) -> Result:
        """Sends a message through one open session, as Session.send does. A new session is begun,
        as session() does, when client, helo or tls differ from those of the last message, and
        when that one ended."""
        self.latest = None
        wanted = Introduction(client, helo, tls)
        if self._is_stale(wanted):
            self.close()
        if self._current is None:
            self._current = self._introduced(wanted)
            self._current_for = wanted
        self.latest = self._current.send(
            message, sender, rcpts, auth=auth, macros=macros, time_out_at=time_out_at
        )
        return self.latest

    def close(self) -> None:
        """Ends the session that `send` keeps open. Raises as Session.close does."""
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
