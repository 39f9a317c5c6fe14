"""Servers: sockets on which filters are served."""

from __future__ import annotations

import contextlib
import errno
import grp
import logging
import math
import os
import pwd
import re
import socket as sockets
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

import milter

from ._plan import plan
from ._sockets import Socket

#: The largest number that a setting may have.
_MOST = (1 << 31) - 1
#: Seconds that callbacks may take when a stop's timeout is over.
_MOMENT = 0.2


class Stats(NamedTuple):
    """Numbers of a server since it was opened."""

    #: Connections that were accepted.
    accepted: int
    #: Of them, closed at once because of max_connections.
    refused: int
    #: Messages that reached their end and were answered.
    messages: int
    #: Connections that ended by an error of the protocol.
    failures: int
    #: Connections now.
    open: int
    #: Worker threads now.
    threads: int
    #: Threads that were left behind in a callback and have not returned.
    left: int


#: The most that the system has for a user or group; the number after it means "leave it".
_MOST_ID = (1 << 32) - 2


def _id(label: str, given: str | int | None, find: Callable[[str], int]) -> int | None:
    """The number of a user or group, which may be given as text. Raises milter.error."""
    number = given
    if isinstance(given, str):
        try:
            number = find(given)
        except (KeyError, ValueError):
            if not re.fullmatch("[0-9]+", given):
                what = "user" if label == "owner" else "group"
                raise milter.error(f"{label}: there is no {what} {given!r}") from None
            number = int(given)
    if number is not None and not 0 <= int(number) <= _MOST_ID:
        raise milter.error(f"{label}: {given} is not from 0 to {_MOST_ID}")
    return None if number is None else int(number)


def name_of(factory: Callable[[], Any]) -> str:
    """What a filter is called that has no other name: as its class or function, or for what has no
    name as the file that it is in, or the program."""
    name = getattr(factory, "__name__", "<>")
    if name[:1] != "<":  # a lambda
        return str(name)
    code = getattr(factory, "__code__", None)
    return Path(code.co_filename if code else sys.argv[0] or "milter").stem


#: The limits of a connection, for `Server` and `milterkit run --limit`: bytes of one packet, bytes
#: of one packet of macros, recipients of one message, bytes of its headers, and bytes that may wait
#: for an MTA that does not read. docs/limits.md has their defaults.
LIMITS: Final = ("packet", "macros", "recipients", "header_bytes", "output")


def _limits(given: Mapping[str, int]) -> tuple[int, ...]:
    """The limits in the engine's order."""
    for name, value in given.items():
        if name not in LIMITS:
            raise milter.error(f"limits: there is no {name!r}, only {', '.join(LIMITS)}")
        if not 0 <= value <= _MOST:
            raise milter.error(f"limits: {name}: {value} is not from 0 to {_MOST}")
    return tuple(given.get(name, 0) for name in LIMITS)


class Server:
    """Serves a filter on a socket. Several may run at once in one process.

    factory: called without arguments for each connection; returns the object whose methods are
        the callbacks, usually a subclass of `Base` itself.
    socket: unix:PATH, local:PATH, PATH, inet:PORT[@HOST], inet6:PORT[@HOST] or fd:N; port 0 lets
        the system choose (see `address`); None for no socket, only connections given to `adopt`.
    name: for logs and for the reply after an error; None for the name of the class or function, or
        of its file where it has none.
    timeout: seconds that an MTA may be silent (0: 7210).
    backlog: connections that may wait to be accepted (0: the system's most).
    actions: flags asked for by objects without a negotiate method.
    exception_policy: what a step is answered whose callback raised: TEMPFAIL, REJECT, CONTINUE or
        ACCEPT.
    max_connections: past it a new one is closed at once, and the log says so once a second (0: no
        limit).
    max_threads: callbacks past it wait (0: 512). docs/limits.md tells more of both.
    drain: seconds that open messages may take to finish after a stop.
    grace: seconds that callbacks may still take once all connections are ended. One that has not
        returned by then is left behind: its connection is closed, the log says where it stands, and
        the server ends without it.
    deadline: seconds that a callback may take (0: any). Then its step is answered by the exception
        policy and its connection goes on; what it still calls on its context raises, and its result
        is dropped, with a line in the log. Its thread counts until it returns. A callback that
        keeps the interpreter is answered when it releases it. Not for negotiate, abort and close.
    progress: after so many seconds in which an eom callback has sent nothing, progress is sent for
        it, again and again, so that its MTA waits on (0: never).
    mode, owner, group: of a unix socket; else the umask and the process decide.
    remove_stale: remove a socket file that nobody answers on.
    replace: take the path of a unix socket over also from a server that answers there. That one
        keeps its connections until it is stopped or retired; see docs/replacing.md.
    logger: where its lines and the exceptions of its callbacks go; None for the logger "Milter",
        and sys.unraisablehook where the program has set one.
    log_messages: log a line at INFO for each verdict that decides about a message, a recipient or a
        client: "NAME: connection 3 (...), queue id 4ABC: rejected at envrcpt".
    limits: what a peer may send or make the server hold, by the names in LIMITS; what is not named,
        or 0, has its default.

    Raises milter.error when it cannot listen or serve. In the process that runs it only: a fork
    of a running server cannot use it and has no copies of its sockets, and a child that is forked
    in a callback (or a log handler, or a destructor that runs there) ends where it leaves that, so
    that one process answers the MTA.
    """

    def __init__(
        self,
        factory: Callable[[], Any],
        socket: str | None,
        *,
        name: str | None = None,
        timeout: int = 0,
        backlog: int = 0,
        actions: int | None = None,
        exception_policy: int = milter.TEMPFAIL,
        max_connections: int = 0,
        max_threads: int = 0,
        drain: int = 30,
        progress: float = 30,
        grace: int = 5,
        deadline: float = 0,
        mode: int | None = None,
        owner: str | int | None = None,
        group: str | int | None = None,
        remove_stale: bool = True,
        replace: bool = False,
        logger: logging.Logger | None = None,
        log_messages: bool = False,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        if not callable(factory):
            raise TypeError("factory must be callable")
        if exception_policy not in (
            milter.TEMPFAIL,
            milter.REJECT,
            milter.CONTINUE,
            milter.ACCEPT,
        ):
            raise milter.error("exception_policy: it must be TEMPFAIL, REJECT, CONTINUE or ACCEPT")
        for label, value, most in (
            ("timeout", timeout, _MOST),
            ("backlog", backlog, _MOST),
            ("max_connections", max_connections, _MOST),
            ("max_threads", max_threads, _MOST),
            ("drain", drain, _MOST),
            ("progress", progress, _MOST // 1000),
            ("grace", grace, _MOST),
            ("deadline", deadline, _MOST // 1000),
            ("mode", mode or 0, 0o7777),
        ):
            if not 0 <= value <= most:
                raise milter.error(f"{label}: {value} is not from 0 to {most}")
        self._factory = factory
        self._socket = socket
        self._owners = (
            _id("owner", owner, lambda name: pwd.getpwnam(name).pw_uid),
            _id("group", group, lambda name: grp.getgrnam(name).gr_gid),
        )
        self._asked = {"owner": owner, "group": group}
        self._listening = (backlog, remove_stale, replace, mode, *self._owners)
        self._name = name_of(factory) if name is None else name
        self._logger = logger or logging.getLogger("Milter")
        self._server = milter._Server(
            factory=factory,
            planner=plan,
            name=self._name,
            actions=milter.CURR_ACTS if actions is None else actions,
            policy=exception_policy,
            timeout=timeout,
            drain=drain or -1,  # the engine's 0 is its default
            max_connections=max_connections,
            max_threads=max_threads,
            progress=math.ceil(progress * 1000) or -1,  # the same
            grace=grace or -1,
            deadline=math.ceil(deadline * 1000),
            logger=logger,
            log_messages=log_messages,
            limits=_limits(limits or {}),
        )
        self._thread: threading.Thread | None = None
        self._raised: BaseException | None = None

    def open(self) -> None:
        """Bind and listen, if that is not done yet. Connections wait until the server runs.

        Raises milter.error if it cannot, or if the server is ending.
        """
        if self._socket is not None and self.address is None:
            if isinstance(self._socket, str):
                try:
                    Socket.parse(self._socket)
                except ValueError as error:
                    raise milter.error(str(error)) from None
            try:
                self._server.listen(self._socket, *self._listening)
            except milter.error as error:
                raise self._explained(error) from None

    def _explained(self, error: milter.error) -> milter.error:
        """An error of listening, with the names of whom the socket was to belong to."""
        before, mark, why = str(error).partition("cannot set the owner: ")
        if not mark:
            return error
        asked = " and ".join(
            f"{what} {who}" for what, who in self._asked.items() if who is not None
        )
        rule = (
            ": only root may give a socket away, and its owner to a group that he is a member of"
            if why == os.strerror(errno.EPERM)
            else ""
        )
        return milter.error(f"{before}cannot set the {asked}: {why}{rule}")

    @property
    def address(self) -> str | None:
        """The socket as a specification, with the real port; None while it is not open."""
        return self._server.address(0)

    @property
    def stats(self) -> Stats:
        """Numbers of this moment."""
        return Stats(*self._server.stats())

    def adopt(self, connection: sockets.socket | int) -> None:
        """Serve a connection that exists already, one end of a socketpair for example.

        The server owns it from now on. Before or while it runs. Raises milter.error for one that it
        serves already, and while it ends; the connection is then still the caller's.
        """
        if isinstance(connection, sockets.socket):
            self._server.adopt(connection.fileno())
            connection.detach()
        else:
            self._server.adopt(connection)

    def serve_forever(self) -> None:
        """Serve in this thread until `stop` or `abort`, or a signal.

        In the main thread Python's signal handlers run meanwhile; where the program has set none,
        SIGTERM and SIGHUP stop and SIGINT aborts. That holds from the call on, before the socket is
        opened. asyncio.run's handler for SIGINT does not count as the program's: it cancels a task
        in a loop that does not run meanwhile. In other threads signals are left alone. The socket
        is closed at the end; serving again opens another one. A `stop` or `abort` from before ends
        it as soon as it begins. Raises milter.error if it cannot listen, or runs already.
        """
        self._check_not_started()
        self._serve(self._server.run)

    def _check_not_started(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            raise milter.error("the server runs already")

    def _serve(self, run: Callable[[Callable[[], None]], None]) -> None:
        """Serves by what opens the server, by its argument, once signals are taken."""
        with contextlib.ExitStack() as ending:

            def begin() -> None:
                self.open()
                ending.callback(self._tell_end)
                self._tell_start()

            run(begin)

    def _tell_start(self) -> None:
        """Logs where it serves."""
        with contextlib.suppress(Exception):  # a log that cannot be written does not stop mail
            if (address := self.address) is None:
                return
            note = Socket.parse(address).note
            self._logger.info("%s: serving at %s%s", self._name, address, note)

    def _tell_end(self) -> None:
        """Logs what there was to do, for a server that was reached by a socket."""
        with contextlib.suppress(Exception):
            if self._socket is not None:
                now = self.stats
                self._logger.info(
                    "%s: stopped: %d messages, %d connections, %d of them refused, "
                    "%d errors of the protocol",
                    self._name, now.messages, now.accepted, now.refused, now.failures,
                )  # fmt: skip

    def start(self) -> Server:
        """Serve in a thread of its own; returns self once connections are accepted or wait.

        The thread does not keep the program alive: at its exit connections are ended. A `stop`
        from before does not count. Raises milter.error if it cannot listen, or runs already.
        """
        self._check_not_started()
        self._server.renew()
        self.open()
        self._raised = None
        thread = threading.Thread(
            target=self._serve_in_thread, name=f"milter {self._socket or ''}".strip(), daemon=True
        )
        thread.start()
        self._thread = thread
        self._tell_start()
        return self

    def _serve_in_thread(self) -> None:
        try:
            self._server.run(self.open)
        except BaseException as raised:  # it is raised again in join
            self._raised = raised
        finally:
            self._tell_end()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until a started server has ended, at most timeout seconds; returns whether it has.

        Raises what ended it, if that was an error; milter.error in a callback of this server, which
        would wait for itself.
        """
        self._check_not_in_callback("join")
        thread = self._thread  # another thread may join it as well
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                return False
            self._thread = None
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        return True

    def stop(self, timeout: float | None = None) -> None:
        """End gracefully: no new connections, open messages finish, for `drain` seconds at most.

        A message that is not at its end by then is aborted, and a callback that has not returned
        `grace` seconds later is left behind. A second stop changes nothing; `abort` ends a drain.
        Returns at once, unless timeout is given: then a server that `start` has started is aborted
        after so many seconds, what is still in a callback is left behind a moment later, and it has
        ended when this returns. From any thread; with timeout in a callback of this server, which
        would wait for itself, it raises milter.error and stops nothing. One that does not serve yet
        ends as soon as `serve_forever` begins; `start` forgets it.
        """
        if timeout is not None:
            self._check_not_in_callback("stop with a timeout")
        self._server.stop()
        if timeout is not None and not self.join(timeout):
            self._server.abort()
            if not self.join(_MOMENT):
                self._server.abandon()
                self.join()

    def retire(self, timeout: int = 3600) -> None:
        """Make room for another server without a trace: accept no new connections (those that wait
        already are served), and keep each one until its MTA ends it, for timeout seconds at most.

        What is left then is drained as by `stop`. MTAs do not connect again within an SMTP session:
        one whose connection a stop has closed between two messages gets 451 for the next. Sendmail
        keeps an idle session for an hour, Postfix for 300 seconds. Start the other server first,
        with replace=True on the same path, or on the same open socket (fd:N). Returns at once; from
        any thread. Raises milter.error for a timeout that is not from 1 to 2147483647.
        """
        if not 1 <= timeout <= _MOST:
            raise milter.error(f"timeout: {timeout} is not from 1 to {_MOST}")
        self._server.retire(timeout)

    def _check_not_in_callback(self, what: str) -> None:
        if self._server.in_callback():
            raise milter.error(
                f"{what}: this callback would wait for itself: call stop() without a timeout"
            )

    def abort(self) -> None:
        """End all connections at once; each gets its abort and close callbacks.

        What is still in a callback `grace` seconds later is left behind. From any thread.
        """
        self._server.abort()

    def abandon(self) -> None:
        """End all connections at once, and leave behind what is in a callback that does not return.
        From any thread."""
        self._server.abandon()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.stop()
        self.join()
