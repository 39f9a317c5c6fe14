"""Greylisting in an SQLite database that many threads and processes may use at once."""

from __future__ import annotations

import csv
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from math import isfinite
from typing import TextIO

__all__ = ["Greylist"]

_WAIT = 30  # seconds for others that write
_MOST = 1 << 62  # messages; SQLite's numbers have 63 bits
_TABLE = """create table if not exists greylist (
    ip text, sender text, recipient text, firstseen real, lastseen real, cnt integer,
    primary key (ip, sender, recipient))"""
_COLUMNS = ("ip", "sender", "recipient", "firstseen", "lastseen", "cnt")


def _opened(dbname: str) -> sqlite3.Connection:
    """A connection to the database, in which the table is made if it is not there."""
    conn = sqlite3.connect(dbname, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    try:
        conn.execute(_TABLE)
    except sqlite3.Error:
        conn.close()
        raise
    return conn


class Greylist:
    """Triples of address, sender and recipient, each new one to be tried again later.

    dbname: the file of the database, made if it is missing; its folder must be there.
    grey_time: minutes after its first attempt until another one is taken.
    grey_expire: hours until a triple that was not tried again counts as new. grey_retain: days
    until one that was taken does, if no message comes. Methods may be called from any thread.
    Raises sqlite3.Error, with the name, for a file that cannot be made, opened or read.
    """

    def __init__(
        self, dbname: str, grey_time: float = 10, grey_expire: float = 4, grey_retain: float = 36
    ) -> None:
        self.greylist_time = grey_time * 60
        self.greylist_expire = grey_expire * 3600
        self.greylist_retain = grey_retain * 86400
        self._lock = threading.Lock()
        try:
            self.conn = _opened(dbname)
        except sqlite3.Error as error:
            raise type(error)(f"{dbname}: {error}") from error

    def check(self, ip: str, sender: str, recipient: str, timeinc: float = 0) -> int:
        """Return how many messages of a triple were taken, this one included; 0: try later.

        timeinc: seconds added to the clock, for tests. Raises sqlite3.Error.
        """
        now = time.time() + timeinc
        key = (_storable(ip), _storable(sender), _storable(recipient))
        with self._alone() as cursor:
            return self._count(cursor, key, now)

    @contextmanager
    def _alone(self) -> Iterator[sqlite3.Cursor]:
        """A transaction; meanwhile no other thread and no other process writes."""
        with self._lock, closing(self.conn.cursor()) as cursor:
            cursor.execute("begin immediate")
            try:
                yield cursor
                cursor.execute("commit")
            except BaseException:
                if self.conn.in_transaction:  # SQLite ends some itself, as when the disk is full
                    cursor.execute("rollback")
                raise

    def _count(self, cursor: sqlite3.Cursor, key: tuple[str, str, str], now: float) -> int:
        where = "where ip = ? and sender = ? and recipient = ?"
        row = cursor.execute(
            f"select firstseen, lastseen, cnt from greylist {where}", key
        ).fetchone()
        first, last, count = row or (now, now, 0)
        age = now - (last if count else first)
        keep = self.greylist_retain if count else self.greylist_expire
        fresh = row is None or age > keep
        count = 0 if fresh else count + 1 if count or age >= self.greylist_time else 0
        if fresh:
            values = (*key, now, now, 0)
            cursor.execute("insert or replace into greylist values (?, ?, ?, ?, ?, ?)", values)
        else:
            change = f"update greylist set lastseen = ?, cnt = ? {where}"
            cursor.execute(change, (now, count, *key))
        return int(count)

    def clean(self, timeinc: float = 0) -> int:
        """Forget triples that were last seen before the retain time; returns how many those were.

        timeinc: as in check. A triple that was never taken stays as long, though check takes it for
        a new one after grey_expire.
        """
        now = time.time() + timeinc
        with self._lock:
            return self.conn.execute(
                "delete from greylist where lastseen < ?", (now - self.greylist_retain,)
            ).rowcount

    def export_csv(self, fp: TextIO) -> None:
        """Write all triples as CSV: address, sender, recipient, first and last seen, count."""
        with self._lock:
            rows = self.conn.execute(f"select {', '.join(_COLUMNS)} from greylist").fetchall()
        csv.writer(fp).writerows(rows)

    def import_csv(self, fp: Iterable[str]) -> None:
        """Take triples as export_csv writes them. Raises ValueError, which names the line, for what
        is none; nothing is taken then."""
        rows = list(_rows(fp))
        with self._alone() as cursor:
            cursor.executemany("insert or replace into greylist values (?, ?, ?, ?, ?, ?)", rows)

    def close(self) -> None:
        """Close the database; the object is not used afterwards."""
        with self._lock:
            self.conn.close()


def _rows(fp: Iterable[str]) -> Iterator[tuple[str | float, ...]]:
    reader = csv.reader(fp)
    try:
        for row in reader:
            if len(row) != len(_COLUMNS):
                raise ValueError(f"not {len(_COLUMNS)} columns: {row!r}")
            first, last, count = float(row[3]), float(row[4]), int(row[5])
            if not (isfinite(first) and isfinite(last) and 0 <= count < _MOST):
                raise ValueError(f"not two times and a count: {row!r}")
            yield (*map(_storable, row[:3]), first, last, count)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _storable(text: str) -> str:
    """Text that SQLite takes: bytes that are no UTF-8 as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
