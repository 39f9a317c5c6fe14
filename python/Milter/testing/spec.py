"""Socket specifications, the same grammar as filters listen by (protocol sheet 5.2)."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from Milter.testing.errors import ConnectError

__all__ = ["address_of", "connect", "listen", "unlisten"]

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def connect(spec: str, timeout: float | None = None) -> socket.socket:
    """Connects to the filter that listens by `spec`.

    unix:PATH, local:PATH or a bare path; inet:PORT, inet:PORT@HOST, inet6:PORT@HOST, hosts also
    in brackets. Without a host it is the loopback address. timeout: seconds for this and every
    later operation, None for no limit. Raises ConnectError.
    """
    return _resolved(
        spec, f"cannot connect to {spec}", lambda family, at: _open(family, at, timeout)
    )


def listen(spec: str, mode: int | None = None) -> socket.socket:
    """Listens by `spec`, without blocking; port 0 lets the system choose one.

    A socket file that nobody answers on is removed first. mode: of the file of a unix socket; else
    the umask decides. Raises ConnectError.
    """
    return _resolved(spec, f"cannot listen at {spec}", lambda family, at: _listen(family, at, mode))


def address_of(listener: socket.socket) -> str:
    """The specification of a socket that listens."""
    address: Any = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{address}"
    kind = next(name for name, family in _FAMILIES.items() if family == listener.family)
    return f"{kind}:{address[1]}@{address[0]}"


def unlisten(listener: socket.socket) -> None:
    """Closes a socket that listens, and removes its file."""
    with contextlib.suppress(OSError):
        if listener.family == socket.AF_UNIX:
            os.unlink(listener.getsockname())
    listener.close()


_Address = str | tuple[object, ...]
_Use = Callable[[socket.AddressFamily, _Address], socket.socket]


def _resolved(spec: str, failure: str, use: _Use) -> socket.socket:
    """What `use` makes of the first address of a specification with which it can."""
    kind, colon, rest = spec.partition(":")
    kind = kind.lower()
    try:
        if not colon or kind in ("", "unix", "local"):
            path = rest if colon else spec
            if not path:
                raise ConnectError(f"{spec!r} is no socket specification: the path is missing")
            return use(socket.AF_UNIX, path)
        if kind not in _FAMILIES:
            raise ConnectError(f"{spec!r}: the socket type {kind!r} is not known")
        return _use_inet(spec, _FAMILIES[kind], rest, use)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConnectError(f"{failure}: {reason}") from error


def _use_inet(spec: str, family: socket.AddressFamily, rest: str, use: _Use) -> socket.socket:
    separator = "@" if "@" in rest else ":"
    port, _, host = rest.partition(separator)
    if not port:
        raise ConnectError(f"{spec!r} is no socket specification: the port is missing")
    if port.isdigit() and int(port) > 0xFFFF:  # libc would take it for another one
        raise ConnectError(f"{spec!r} is no socket specification: the port is no number to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if host[:5].lower() == "ipv6:":
            host = host[5:]
    found = socket.getaddrinfo(host or _LOOPBACK[family], port, family, socket.SOCK_STREAM)
    error: OSError | None = None
    for each_family, _, _, _, address in found:
        try:
            return use(each_family, address)
        except OSError as failure:
            error = failure
    raise error or OSError("the host has no address")


def _open(family: socket.AddressFamily, address: _Address, timeout: float | None) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _listen(family: socket.AddressFamily, address: _Address, mode: int | None) -> socket.socket:
    if family == socket.AF_UNIX:
        _remove_stale(str(address))
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        if family == socket.AF_UNIX and mode is not None:
            os.chmod(str(address), mode)
        listener.listen(1024)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
