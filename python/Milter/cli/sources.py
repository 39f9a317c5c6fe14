"""The messages that a command is given: files, standard input, mailboxes of both kinds."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from Milter.cli.exits import CommandError

__all__ = ["Source", "sources_in"]

_SEPARATOR = b"From "


@dataclass(frozen=True)
class Source:
    """A message that can be read.

    name: for people. file_name: for a file that is made from it. read: its bytes as they are;
    raises CommandError.
    """

    name: str
    file_name: str
    read: Callable[[], bytes]


def sources_in(name: str) -> list[Source]:
    """The messages in what an argument names, unread: a file of one message; an mbox, which begins
    with "From "; a maildir, in the order of its files' names; "-", standard input, which may be an
    mbox. Raises CommandError."""
    try:
        if name == "-":
            return _in_stream("-", "stdin", BytesIO(sys.stdin.buffer.read()))
        path = Path(name)
        if path.is_dir():
            return [*_in_maildir(path)]
        file = path.open("rb")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # it can be read only once
            with file:
                return _in_stream(name, path.name, BytesIO(file.read()))
        with file:
            begins = file.read(len(_SEPARATOR))
            if begins == _SEPARATOR:
                return _in_mbox(name, path.name, file, path)
        return [Source(name, path.name, lambda: _read(path))]
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise CommandError(f"{name!r}: {error}") from error


def _read(path: Path, begin: int = 0, end: int | None = None) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(begin)
            return file.read() if end is None else file.read(end - begin)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from error


def _in_maildir(path: Path) -> Iterator[Source]:
    folders = [path / "cur", path / "new"]
    if not any(folder.is_dir() for folder in folders):
        raise CommandError(f"{path}: it is a folder, but no maildir")
    found = [each for folder in folders if folder.is_dir() for each in folder.iterdir()]
    for each in sorted(found, key=lambda each: each.name):
        if each.is_file() and not each.name.startswith("."):
            yield Source(str(each), each.name, lambda each=each: _read(each))  # type: ignore[misc]


def _in_stream(name: str, file_name: str, stream: BytesIO) -> list[Source]:
    if stream.getbuffer()[: len(_SEPARATOR)] != _SEPARATOR:
        return [Source(name, file_name, stream.getvalue)]
    return _in_mbox(name, file_name, stream, None)


def _in_mbox(name: str, file_name: str, file: BinaryIO, path: Path | None) -> list[Source]:
    """path: where to read the messages later; None if the file stays in memory."""

    def source(number: int, begin: int, end: int) -> Source:
        def read() -> bytes:
            if path:
                return _unquoted(_read(path, begin, end))
            file.seek(begin)
            return _unquoted(file.read(end - begin))

        return Source(f"{name}:{number}", f"{Path(file_name).stem}-{number}.eml", read)

    return [
        source(number, begin, end) for number, (begin, end) in enumerate(_separated(file), start=1)
    ]


def _separated(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where each message of an mbox begins and ends: below its separator, which follows an empty
    line, and above the empty line at its end."""
    file.seek(0)
    at = begin = 0
    empty = 1  # bytes of the last line, if it is an empty one; the first separator needs none
    for line in file:
        if empty and line.startswith(_SEPARATOR):
            if at:
                yield begin, at - empty
            begin = at + len(line)
        at += len(line)
        empty = len(line) if line in (b"\n", b"\r\n") else 0
    yield begin, at - (empty if at > begin else 0)


def _unquoted(message: bytes) -> bytes:
    """A message without the ">" that mailboxes put before lines that look like a separator."""
    if b">From " not in message:
        return message
    lines = message.split(b"\n")
    return b"\n".join(
        line[1:] if line.startswith(b">") and line.lstrip(b">").startswith(_SEPARATOR) else line
        for line in lines
    )
