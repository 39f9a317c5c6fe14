"""Socket specifications, the same grammar as filters listen by (protocol sheet 5.2)."""

from __future__ import annotations

import socket

from Milter.testing.errors import ConnectError

__all__ = ["connect"]

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def connect(spec: str, timeout: float | None = None) -> socket.socket:
    """Connects to the filter that listens by `spec`.

    unix:PATH, local:PATH or a bare path; inet:PORT, inet:PORT@HOST, inet6:PORT@HOST, hosts also
    in brackets. Without a host it is the loopback address. timeout: seconds for this and every
    later operation, None for no limit. Raises ConnectError.
    """
    kind, colon, rest = spec.partition(":")
    kind = kind.lower()
    try:
        if not colon or kind in ("", "unix", "local"):
            path = rest if colon else spec
            if not path:
                raise ConnectError(f"{spec!r} is no socket specification: the path is missing")
            return _open(socket.AF_UNIX, path, timeout)
        if kind not in _FAMILIES:
            raise ConnectError(f"{spec!r}: the socket type {kind!r} is not known")
        return _connect_inet(spec, _FAMILIES[kind], rest, timeout)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConnectError(f"cannot connect to {spec}: {reason}") from error


def _connect_inet(
    spec: str, family: socket.AddressFamily, rest: str, timeout: float | None
) -> socket.socket:
    separator = "@" if "@" in rest else ":"
    port, _, host = rest.partition(separator)
    if not port:
        raise ConnectError(f"{spec!r} is no socket specification: the port is missing")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if host[:5].lower() == "ipv6:":
            host = host[5:]
    found = socket.getaddrinfo(host or _LOOPBACK[family], port, family, socket.SOCK_STREAM)
    error: OSError | None = None
    for each_family, _, _, _, address in found:
        try:
            return _open(each_family, address, timeout)
        except OSError as failure:
            error = failure
    raise error or OSError("the host has no address")


def _open(
    family: socket.AddressFamily, address: str | tuple[object, ...], timeout: float | None
) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection
