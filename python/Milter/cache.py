"""Lists of addresses that are forgotten after a time, kept in a text file of one line each."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from Milter.plock import PLock

__all__ = ["AddrCache"]

_DAY = 86400


class AddrCache:
    """A map of addresses to results, in any case of letters.

    renew: days until an entry is forgotten. fname: the file in which those with the value None are
    kept; lines appended to it by others count from the next `load` on. An entry that is a domain
    stands for all of its addresses.
    """

    #: How times are written in the file, for time.strftime.
    time_format = "%Y%b%d %H:%M:%S %Z"

    def __init__(self, renew: float = 7, fname: str | None = None) -> None:
        self.age = renew
        self.fname = fname
        #: address in lower case -> (time, 0 for ever; result)
        self.cache: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()

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
        lock = PLock(fname)
        new = lock.lock()
        try:
            with Path(fname).open(encoding="utf-8", errors="replace") as old:
                for line in old:
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

    def has_precise_key(self, sender: str) -> bool:
        """Return whether the address itself is there, and not too old."""
        found = self.cache.get(sender.lower())
        return found is not None and (not found[0] or found[0] >= time.time() - self.age * _DAY)

    def has_key(self, sender: str) -> bool:
        """Return whether the address, or its domain, is there, and not too old."""
        return self._key(sender) is not None

    __contains__ = has_key

    def _key(self, sender: str) -> str | None:
        domain = sender.rpartition("@")[2]
        return next((key for key in (sender, domain) if self.has_precise_key(key)), None)

    def __getitem__(self, sender: str) -> Any:
        key = self._key(sender)
        if key is None:
            raise KeyError(sender)
        return self.cache[key.lower()][1]

    def __setitem__(self, sender: str, res: Any) -> None:
        now = time.time()
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
            with self._lock, Path(self.fname).open("ab") as file:
                file.write(f"{line}\n".encode("utf-8", "surrogateescape"))

    def __len__(self) -> int:
        return len(self.cache)
