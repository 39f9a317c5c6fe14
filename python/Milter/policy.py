"""What an access map, as Sendmail and Postfix have them, says of a sender under a tag."""

from __future__ import annotations

import logging
import os
import threading
from types import TracebackType
from typing import Any

from Milter._accessmap import Entries, MapError, read

__all__ = ["MTAPolicy", "MapError"]

_log = logging.getLogger("Milter")

_MAX_DOMAIN = 255
#: What the files of one map may end with.
_ENDINGS = ("", ".db", ".dat", ".dir", ".pag")
_Stamp = tuple[tuple[int, int, int], ...]

#: path -> the state of its files, and what they say
_maps: dict[str, tuple[_Stamp, Entries]] = {}
_reading = threading.Lock()


def _stamp(path: str) -> _Stamp:
    """The state of a map's files, which is another one when they were written."""
    states = []
    for ending in _ENDINGS:
        try:
            state = os.stat(path + ending)
        except OSError:
            continue
        states.append((state.st_ino, state.st_ctime_ns, state.st_size))
    return tuple(states)


def _entries(path: str) -> Entries:
    """What a map says, read anew if its files have changed."""
    stamp = _stamp(path)
    kept = _maps.get(path)
    if kept and kept[0] == stamp:
        return kept[1]
    with _reading:
        stamp = _stamp(path)  # before it is read: what is written meanwhile counts the next time
        kept = _maps.get(path)
        if kept and kept[0] == stamp:
            return kept[1]
        try:
            entries = read(path)
        except OSError as error:
            if not kept:
                raise
            _log.error("access map: %s; going on with what it said before", error)
            return kept[1]
        _maps[path] = (stamp, entries)
        return entries


class MTAPolicy:
    """Policies for a sender, from an access map with tags such as `SPF-Fail:`.

    sender: the address of the envelope. access_file: the map, or conf.access_file; without one
    there are no policies. It may be the text that makemap and postmap are given, an LMDB map (the
    extra milterkit[lmdb]), what the standard library's dbm reads here, and, where dbm.ndbm is made
    of it, a hash map of Berkeley DB. Case does not count.

    Maps are kept in memory for all objects, and read again when they have changed; if that fails
    it is logged, and what they said before stays. Making an object reads the map, so that a filter
    can find out early whether it can. Raises MapError and other OSErrors.

    ::

        with MTAPolicy(sender, conf) as policies:
            if policies.getPolicy("SPF-Fail") == "REJECT": ...
    """

    def __init__(self, sender: str | bytes, conf: Any = None, access_file: str | None = None):
        text = sender.decode("utf-8", "surrogateescape") if isinstance(sender, bytes) else sender
        if text.startswith("<") and text.endswith(">"):
            text = text[1:-1]
        self.sender = text
        self.domain = text.rpartition("@")[2].rstrip(".").lower()
        self.access_file = access_file or getattr(conf, "access_file", None)
        if self.access_file:
            _entries(self.access_file)

    def getPolicy(self, pfx: str) -> str | None:
        """Return what the map has for the sender under a tag, such as "REJECT"; None for nothing.

        Looked up are, until one is found: `pfx:user@domain`, `pfx:domain`, `pfx:.parent` for each
        domain around that one, `pfx:`, and `pfx` itself; with `!` in place of `:`, as older maps
        have it, too. The text is not interpreted. Bytes that are no UTF-8 are surrogate escapes.
        """
        if not self.access_file:
            return None
        entries = _entries(self.access_file)
        tag = _folded(pfx).rstrip(b":!")
        domain = _folded(self.domain)
        end = domain[-_MAX_DOMAIN:]
        parents = (end[at:] for at, byte in enumerate(end) if byte == ord("."))
        names = (_folded(self.sender), domain, *parents, b"")
        for key in (*(tag + mark + name for name in names for mark in (b":", b"!")), tag):
            if key in entries:
                return entries[key].decode("utf-8", "surrogateescape")
        return None

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def __enter__(self) -> MTAPolicy:
        return self

    def __exit__(
        self,
        t: type[BaseException] | None,
        v: BaseException | None,
        b: TracebackType | None,
    ) -> None:
        self.close()


def _folded(text: str) -> bytes:
    """Text as keys have it."""
    try:
        return text.encode("utf-8", "surrogateescape").lower()
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return text.encode("utf-8", "surrogatepass").lower()
