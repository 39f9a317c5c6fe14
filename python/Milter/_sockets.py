"""Socket specifications: what `unix:PATH` and `inet:PORT@HOST` stand for, to those who listen, who
connect, and who write an MTA's configuration. The grammar is the engine's (src/server/spec.c)."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Socket", "address_of", "unlisten"]

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
_LOOPBACK = {"inet": "127.0.0.1", "inet6": "::1"}
_PATH_BYTES = 106
_INT_MAX = (1 << 31) - 1
#: What separates sockets, or settings, in the MTAs' files.
_SEPARATORS = re.compile(r"[\s,;{}$`']")

_Address = Any  # as socket.bind takes it


@dataclass(frozen=True)
class Socket:
    """A specification that was understood.

    kind: "unix", "inet", "inet6" or "fd". path: of a unix socket. number: the port, or the
    descriptor. host: "" where none was given, which is all addresses to who listens, and the
    loopback address to who connects; an address without brackets.
    """

    kind: str
    path: str = ""
    number: int = 0
    host: str = ""

    @classmethod
    def parse(cls, text: str) -> Socket:
        """Reads unix:PATH, local:PATH, PATH, inet:PORT[@HOST], inet6:PORT[@HOST] or fd:N. A
        service's name may stand for a port; hosts are looked up only when they are used. Raises
        ValueError that says what is wrong and what to write."""
        try:
            return _parse(text)
        except ValueError as error:
            raise ValueError(f'socket specification "{text}": {error}') from None

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"{self.kind}:{self.number}" + (f"@[{self.host}]" if self.host else "")

    @property
    def everywhere(self) -> bool:
        """Whether who listens here takes connections from all networks of the machine."""
        return self.kind in _FAMILIES and (not self.host or _is_any(self.host))

    @property
    def note(self) -> str:
        """What to say behind the address of a socket that listens: "" if it says it itself."""
        if not self.everywhere:
            return ""
        return (f", on all addresses of this machine ({self.kind}:{self.number}@{self.peer} is "
                "for itself alone)")  # fmt: skip

    # --------------------------------------------------------------------------- for the MTAs

    def postfix(self) -> str:
        """What Postfix calls it, from the same machine. Raises ValueError if it cannot."""
        if self.kind == "unix":
            return f"unix:{self._path_for('Postfix')}"
        host = self._host_for("Postfix")
        return f"inet:{f'[{host}]' if ':' in host else host}:{self.number}"

    def sendmail(self) -> str:
        """What Sendmail calls it, from the same machine. Raises ValueError if it cannot."""
        if self.kind == "unix":
            return f"unix:{self._path_for('Sendmail')}"
        return f"{self.kind}:{self.number}@{self._host_for('Sendmail')}"

    def _path_for(self, mta: str) -> str:
        if _SEPARATORS.search(self.path):
            raise ValueError(f"{self}: {mta} cannot be given a path with such a character: use "
                             "letters, digits, and -_./")  # fmt: skip
        return self.path

    def _host_for(self, mta: str) -> str:
        if self.kind == "fd":
            raise ValueError(f"{self} names no socket that {mta} could connect to: say by "
                             "--socket where it listens")  # fmt: skip
        if self.number == 0:
            raise ValueError(f"{self}: the system chooses the port: choose one that {mta} can be "
                             "told")  # fmt: skip
        return self.peer

    @property
    def peer(self) -> str:
        """The host by which it is reached from the same machine."""
        return _LOOPBACK[self.kind] if self.everywhere else self.host

    # ---------------------------------------------------------------------------------- use

    def connect(self, timeout: float | None = None) -> socket.socket:
        """Connects. timeout: seconds for this and every later operation, None for no limit. Raises
        OSError, ValueError for a descriptor."""
        error: OSError | None = None
        for family, address in self._addresses(self.peer if self.kind in _FAMILIES else ""):
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.settimeout(timeout)
                connection.connect(address)
                return connection
            except OSError as failure:
                connection.close()
                error = failure
            except BaseException:
                connection.close()
                raise
        raise error or OSError("the host has no address")

    def listen(self, mode: int | None = None) -> socket.socket:
        """Listens, without blocking; port 0 lets the system choose one. A socket file that nobody
        answers on is removed first. mode: of the file of a unix socket; else the umask decides.
        Raises OSError, ValueError for a descriptor."""
        any_address = {"inet": "0.0.0.0", "inet6": "::"}.get(self.kind, "")
        [(family, address), *_] = self._addresses(self.host or any_address)
        if family == socket.AF_UNIX:
            _remove_stale(self.path)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family != socket.AF_UNIX:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            if family == socket.AF_UNIX and mode is not None:
                os.chmod(self.path, mode)
            listener.listen(1024)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        return listener

    def _addresses(self, host: str) -> Iterator[tuple[socket.AddressFamily, _Address]]:
        """What the system calls it; at least one."""
        if self.kind == "fd":
            raise ValueError(f"{self} is a descriptor that another program opened: write where the "
                             "socket is, as unix:PATH or inet:PORT@HOST")  # fmt: skip
        if self.kind == "unix":
            yield socket.AF_UNIX, self.path
            return
        family = _FAMILIES[self.kind]
        for each in socket.getaddrinfo(host, self.number, family, socket.SOCK_STREAM):
            yield family, each[4]


def address_of(listener: socket.socket) -> str:
    """The specification of a socket that listens, with its real port."""
    address: Any = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(Socket("unix", path=address))
    kind = next(name for name, family in _FAMILIES.items() if family == listener.family)
    return str(Socket(kind, number=address[1], host=address[0]))


def unlisten(listener: socket.socket) -> None:
    """Closes a socket that listens, and removes its file."""
    with contextlib.suppress(OSError):
        if listener.family == socket.AF_UNIX:
            os.unlink(listener.getsockname())
    listener.close()


def _remove_stale(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)


# ------------------------------------------------------------------------------------------ parsing


def _parse(text: str) -> Socket:
    if "\0" in text:
        raise ValueError("there is a NUL in it")
    if not text:
        raise ValueError("it is empty: write unix:PATH, inet:PORT@HOST, inet6:PORT@HOST or fd:N")
    kind, colon, rest = text.partition(":")
    kind = kind.lower() if kind.isascii() else kind
    if _is_number(text.removeprefix(":")):
        port = text.removeprefix(":")
        raise ValueError(f"a port needs its type: write inet:{port}@127.0.0.1 (or unix:{port}, a "
                         "file)")  # fmt: skip
    if not colon or kind in ("", "unix", "local"):
        return Socket("unix", path=_path(rest if colon else text))
    if kind == "fd":
        if not _is_number(rest) or int(rest) > _INT_MAX:
            raise ValueError("the descriptor is not a number")
        return Socket("fd", number=int(rest))
    if kind not in _FAMILIES:
        raise ValueError("the socket type is unknown: write unix:, inet:, inet6: or fd:")
    return _parse_inet(kind, rest)


def _path(path: str) -> str:
    if not path:
        raise ValueError("the path is missing")
    if len(path.encode("utf-8", "surrogateescape")) > _PATH_BYTES:
        raise ValueError(f"the path is longer than {_PATH_BYTES} bytes")
    return path


def _parse_inet(kind: str, rest: str) -> Socket:
    if re.search(r"[\x00-\x20\x7f]", rest):
        raise ValueError("there are blanks in it")
    port, separator, host = re.fullmatch(r"([^@:]*)([@:]?)(.*)", rest).groups()  # type: ignore[union-attr]
    try:
        number = _port(port)
    except ValueError:
        before, colon, behind = rest.rpartition(":")
        if colon and before and _is_number(behind):
            raise ValueError(
                f"the port comes before the host: write {kind}:{behind}@{before}"
            ) from None
        raise
    return Socket(kind, number=number, host=_host(kind, host) if separator else "")


def _port(text: str) -> int:
    if not text:
        raise ValueError("the port is missing")
    if _is_number(text) and int(text) <= 0xFFFF:
        return int(text)
    if not re.match(r"[A-Za-z]", text):
        raise ValueError("the port is not a number from 0 to 65535")
    try:
        return socket.getservbyname(text, "tcp")
    except (OSError, ValueError):
        raise ValueError("no service of that name is known: give the port as a number") from None


def _host(kind: str, text: str) -> str:
    brackets = text.startswith("[") and text.endswith("]")
    host = text[1:-1] if brackets else text
    if brackets and kind == "inet6" and host[:5].lower() == "ipv6:":
        host = host[5:]
    if not host:
        raise ValueError("the host is missing")
    if brackets or ":" in host or re.fullmatch("[0-9.]+", host):  # no name looks like that
        try:
            socket.getaddrinfo(host, None, _FAMILIES[kind], 0, 0, socket.AI_NUMERICHOST)
        except (OSError, ValueError):
            what = "the address in brackets" if brackets else host
            raise ValueError(f"{what} is not one of this family") from None
    elif not re.fullmatch(r"[A-Za-z0-9._%-]+", host):
        raise ValueError(f"{host!r} is not a host's name or address")
    return host


def _is_number(text: str) -> bool:
    return re.fullmatch("[0-9]+", text) is not None


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
