"""Where the filter is: at a socket, or a class or factory that is served in this process."""

from __future__ import annotations

import logging
import os
import socket
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from Milter._server import Server, name_of
from Milter.testing import spec as specs
from Milter.testing.errors import ConnectError

__all__ = ["Link", "Target", "link_to"]

Target = str | os.PathLike[str] | Server | Callable[[], Any]
"""A socket specification, the path of a unix socket, a server that listens, or what makes the
object of a connection: a filter's class or a factory."""


class Link:
    """A connection to a filter: its socket, which does not block, and nothing more."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.socket = connection
        weakref.finalize(self, connection.close)  # for tests that forget it
        self.raised: list[tuple[str, BaseException]] = []
        """What callbacks of a filter in this process raised, with the step's name."""

    @property
    def filter(self) -> Any:
        """The filter's object, if it is in this process and the connection has one by now."""
        return None

    def drop(self) -> None:
        """Closes it, and waits for nothing."""
        self.socket.close()

    def end(self, timeout: float) -> bool:
        """Closes it, and waits until the filter has finished with it, if it is in this process.
        False if it has not after so many seconds."""
        self.drop()
        return True


class _Factory:
    """Makes the object of the one connection, and keeps it."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory
        self.made: Any = None

    def __call__(self) -> Any:
        self.made = self._factory()
        return self.made


class _Served(Link):
    """A filter's factory with a server of its own, at the other end of a socketpair: what is
    raised there belongs to this connection, whatever other connections do meanwhile."""

    def __init__(self, factory: Callable[[], Any], options: Mapping[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(ours)
        self._factory = _Factory(factory)
        # It passes on to the usual one, so that the lines still reach the log.
        logger = logging.Logger("Milter")
        logger.parent = logging.getLogger("Milter")
        logger.addHandler(_Catching(self.raised))
        self._logger = logger
        settings = {"name": name_of(factory), "logger": logger, **options}
        try:
            self._server = Server(self._factory, None, **settings)
            self._server.adopt(theirs)
            self._server.start()
        except BaseException:
            ours.close()
            theirs.close()
            raise
        weakref.finalize(self, self._server.abandon).atexit = False

    @property
    def filter(self) -> Any:
        return self._factory.made

    def _abandon(self) -> None:
        self._logger.disabled = True  # the session has its own word for what is left behind
        self._server.abandon()

    def drop(self) -> None:
        super().drop()
        self._abandon()

    def end(self, timeout: float) -> bool:
        super().drop()
        self._server.stop()
        if not self._server.join(timeout):
            self._abandon()  # its thread is in a callback, and ends with that
            return False
        return not self._server.stats.left


class _Catching(logging.Handler):
    """Keeps the exceptions of callbacks that are logged."""

    def __init__(self, raised: list[tuple[str, BaseException]]) -> None:
        super().__init__()
        self._raised = raised

    def emit(self, record: logging.LogRecord) -> None:
        """See report.c: the last argument is the step."""
        if record.exc_info and record.exc_info[1] and isinstance(record.args, tuple):
            self._raised.append((str(record.args[-1]), record.exc_info[1]))


def link_to(
    target: Target, timeout: float | None, options: Mapping[str, Any], wait: float = 0.0
) -> Link:
    """Connects to a filter. timeout: seconds for connecting. options: keywords of Milter.Server
    for a class or factory. wait: seconds for which a socket that nobody listens on is tried again.
    Raises ConnectError."""
    if isinstance(target, Server):
        if target.address is None:
            raise ConnectError("the server does not listen: open or start it first")
        target = target.address
    if isinstance(target, os.PathLike):
        target = f"unix:{os.fspath(target)}"
    if isinstance(target, str):
        return Link(specs.connect(target, timeout, wait))
    if not callable(target):
        raise TypeError(f"{target!r} is neither a socket specification nor a filter's class")
    return _Served(target, options)
