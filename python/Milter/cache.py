"""Lists of addresses that are forgotten after a time, kept in a text file of one line each."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from Milter.plock import PLock

__all__ = ["AddrCache"]

_DAY = 86400
_FEW = 1000  # entries that are not worth looking through


@contextmanager
def _held(path: str, mode: str) -> Iterator[IO[bytes]]:
    """A file that nobody else holds meanwhile, and that is still the one of that name."""
    while True:
        with Path(path).open(mode) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            except FileNotFoundError:
                same = False
            if same:
                yield file
                return


class AddrCache:
    """A map of addresses to results, in any case of letters.

    renew: days until an entry is forgotten. fname: the file in which those with the value None are
    kept; lines appended to it by others count from the next `load` on. An entry that is a domain
    stands for all of its addresses. May be used from several threads, its file by several
    processes.
    """

    #: How times are written in the file, for time.strftime.
    time_format = "%Y%b%d %H:%M:%S %Z"

    def __init__(self, renew: float = 7, fname: str | None = None) -> None:
        self.age = renew
        self.fname = fname
        #: address in lower case -> (time, 0 for ever; result)
        self.cache: dict[str, tuple[float, Any]] = {}
        self._look_at = _FEW

    def load(self, fname: str, age: float = 0) -> None:
        """Read the entries of a file, and take those that are too old or unreadable out of it.

        It becomes the file in which new entries are kept; it need not be there yet. age: days
        until entries are forgotten, 0 for `renew`. Raises OSError, FileExistsError if another
        process is at it.
        """
        self.fname = fname
        self.age = age or self.age
        if not Path(fname).exists():
            return
        with _held(fname, "rb") as old:
            lock = PLock(fname)
            new = lock.lock()
            try:
                for raw in old:
                    line = raw.decode("utf-8", "surrogateescape")
                    if self._read(line):
                        new.write(line)
                lock.commit()
            finally:
                lock.unlock()

    def _read(self, line: str) -> bool:
        """Takes a line; whether it is to stay."""
        address, _, when = line.strip().partition(" ")
        since = 0.0
        if when:
            try:
                since = time.mktime(time.strptime(when, self.time_format))
            except (ValueError, OverflowError):
                return False
            if since < time.time() - self.age * _DAY:
                return False
        if address:
            self.cache[address.lower()] = (since, None)
        return True

    def _old(self, since: float) -> bool:
        return bool(since) and since < time.time() - self.age * _DAY

    def has_precise_key(self, sender: str) -> bool:
        """Return whether the address itself is there, and not too old."""
        key = sender.lower()
        found = self.cache.get(key)
        if found and self._old(found[0]):
            self.cache.pop(key, None)
            return False
        return found is not None

    def has_key(self, sender: str | None) -> bool:
        """Return whether the address, or its domain, is there, and not too old."""
        return self._key(sender) is not None

    __contains__ = has_key

    def _key(self, sender: str | None) -> str | None:
        if sender is None:  # programs ask before there is one
            return None
        domain = sender.rpartition("@")[2]
        return next((key for key in (sender, domain) if self.has_precise_key(key)), None)

    def __getitem__(self, sender: str) -> Any:
        key = self._key(sender)
        if key is None:
            raise KeyError(sender)
        return self.cache[key.lower()][1]

    def _forget_old(self) -> None:
        """Keeps what nobody asks for any more from growing."""
        if len(self.cache) > self._look_at:
            for key, (since, _) in list(self.cache.items()):
                if self._old(since):
                    self.cache.pop(key, None)
            self._look_at = 2 * len(self.cache) + _FEW

    def __setitem__(self, sender: str, res: Any) -> None:
        now = time.time()
        self._forget_old()
        known = self.has_precise_key(sender) and self[sender] is None
        self.cache[sender.lower()] = (now, res)
        if res is None and not known:
            self._append(f"{sender} {time.strftime(self.time_format, time.localtime(now))}")

    def addperm(self, sender: str, res: Any = None) -> None:
        """Add an entry that is never forgotten."""
        self.cache[sender.lower()] = (0, res)
        if res is None:
            self._append(sender)

    def _append(self, line: str) -> None:
        """Adds a line to the file, if it can be read again: an address without white space."""
        if self.fname and line.strip() and not any(c in line for c in "\r\n\0"):
            with _held(self.fname, "ab") as file:
                file.write(f"{line}\n".encode("utf-8", "surrogateescape"))

    def __len__(self) -> int:
        return len(self.cache)
