"""Connecting and listening by socket specifications, with this package's errors: what these mean
is in Milter._sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from Milter._sockets import Socket, address_of, unlisten
from Milter.testing.errors import ConnectError

__all__ = ["address_of", "connect", "listen", "unlisten"]

_PAUSE = 0.02  # seconds between two tries


def connect(spec: str, timeout: float | None = None, wait: float = 0.0) -> socket.socket:
    """Connects to the filter that listens by `spec`.

    unix:PATH, local:PATH or a bare path; inet:PORT, inet:PORT@HOST, inet6:PORT@HOST, hosts also
    in brackets. Without a host it is the loopback address. timeout: seconds for this and every
    later operation, None for no limit. wait: seconds for which it tries again while nobody listens
    there. Raises ConnectError.
    """
    end = time.monotonic() + wait
    while True:
        try:
            return _told(spec, "connect to", lambda where: where.connect(timeout))
        except ConnectError as error:
            nobody = isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError)
            if not nobody or time.monotonic() >= end:
                raise
        time.sleep(_PAUSE)


def listen(spec: str, mode: int | None = None) -> socket.socket:
    """Listens by `spec`, without blocking; port 0 lets the system choose one, without a host it is
    on all addresses.

    A socket file that nobody answers on is removed first. mode: of the file of a unix socket; else
    the umask decides. Raises ConnectError.
    """
    return _told(spec, "listen at", lambda where: where.listen(mode))


def _told(spec: str, what: str, use: Callable[[Socket], socket.socket]) -> socket.socket:
    try:
        where = Socket.parse(spec)
    except ValueError as error:
        raise ConnectError(str(error)) from error
    try:
        return use(where)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConnectError(f"cannot {what} {spec}: {reason}") from error
