"""Reads access maps: texts, what makemap and postmap make of them, and the maps of dbm."""

from __future__ import annotations

import dbm
import fcntl
import importlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Entries = dict[bytes, bytes]


class MapError(OSError):
    """An access map has a format that is not known or cannot be read here, or it is broken."""


def _dbm(module: str) -> Callable[[str], Entries]:
    """What reads the maps of a module of the standard library."""

    def read(path: str) -> Entries:
        with importlib.import_module(module).open(path, "r") as opened:
            return {key: opened[key] for key in opened.keys()}  # noqa: SIM118 (not iterable)

    return read


def _berkeley(path: str) -> Entries:
    """Those that makemap and postmap call hash: some systems' dbm.ndbm is of Berkeley DB."""
    ndbm: Any = importlib.import_module("dbm.ndbm")
    if ndbm.library != "Berkeley DB" or not path.endswith(".db"):
        raise ImportError("no Berkeley DB")
    return _dbm("dbm.ndbm")(path.removesuffix(".db"))


def _btree(_path: str) -> Entries:
    raise ImportError("no Berkeley DB")


def _lmdb(path: str) -> Entries:
    """Those of Postfix: one file, without LMDB's own locks."""
    lmdb: Any = importlib.import_module("lmdb")
    with (
        lmdb.open(path, subdir=False, readonly=True, lock=False) as opened,
        opened.begin() as transaction,
    ):
        return dict(transaction.cursor())


def _text(path: str) -> Entries:
    """What makemap and postmap are given: `key value`, comments, lines that go on in the next."""
    data = Path(path).read_bytes()
    if b"\0" in data:
        raise ValueError("it has NULs: name the text that it was made from")
    lines: list[list[bytes]] = []
    for line in data.splitlines():
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        if line[:1].isspace() and lines:
            lines[-1].append(line)
        else:
            lines.append([line])
    entries: Entries = {}
    for pieces in lines:
        words = b"".join(pieces).split(None, 1)
        if len(words) == 2:  # they leave a key without a value out, too
            entries.setdefault(*words)
    return entries


class _Format(NamedTuple):
    """marks: how a file of this format begins, from the offset `at` on. instead: what to do where
    the module that reads it is missing."""

    name: str
    read: Callable[[str], Entries]
    at: int
    marks: tuple[bytes, ...]
    instead: str = ""


def _either(*numbers: int) -> tuple[bytes, ...]:
    """Numbers of 32 bits in both orders of bytes."""
    return tuple(struct.pack(order + "I", number) for order in "<>" for number in numbers)


_BERKELEY = "name the text that it was made from, or make an LMDB map of that"
_FORMATS = (
    _Format("a Berkeley DB hash map", _berkeley, 12, _either(0x061561), _BERKELEY),
    _Format("a Berkeley DB btree map", _btree, 12, _either(0x053162), _BERKELEY),
    _Format("an LMDB map", _lmdb, 16, _either(0xBEEFC0DE), "pip install 'milterkit[lmdb]'"),
    _Format(
        "a GNU dbm map",
        _dbm("dbm.gnu"),
        0,
        _either(0x13579ACD, 0x13579ACE, 0x13579ACF, 0x13579AD0, 0x13579AD1),
        "install Python's module dbm.gnu (Debian: python3-gdbm)",
    ),
    _Format("an SQLite map", _dbm("dbm.sqlite3"), 0, (b"SQLite format 3\0",), "use Python 3.13"),
    _Format("a text map", _text, 0, (b"",)),
)


def read(path: str) -> Entries:
    """Return the entries of a map, the keys in lower case, without NULs and blanks at the ends.

    path: a file, whose format is found out, or what dbm.open was given for maps of several files.
    Of keys that are equal the first counts. Waits for makemap and postmap while they write it.
    Raises MapError, and OSError for a file that cannot be opened.
    """
    module = None if Path(path).exists() else dbm.whichdb(path)
    if module:
        entries = _tried(_Format(f"a map of {module}", _dbm(module), 0, ()), path)
    else:
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)  # theirs for Berkeley DB and texts
            fcntl.lockf(file, fcntl.LOCK_SH)  # Postfix's for LMDB
            head = file.read(32)
            known = (each for each in _FORMATS if head[each.at :].startswith(each.marks))
            entries = _tried(next(known), path)
    folded: Entries = {}
    for key, value in entries.items():
        folded.setdefault(key.rstrip(b"\0").lower(), value.rstrip(b"\0").strip())
    return folded


def _tried(kind: _Format, path: str) -> Entries:
    try:
        return kind.read(path)
    except ImportError as error:
        text = f"{path} is {kind.name}, which this Python cannot read: {kind.instead}"
        raise MapError(text) from error
    except Exception as error:  # each format has its own
        raise MapError(f"{path} cannot be read as {kind.name}: {error}") from error
