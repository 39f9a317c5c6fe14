"""The names in zip archives, and in archives inside of them, within limits."""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO

from mime.parameters import ends_with

__all__ = ["MAX_DEPTH", "MAX_NAMES", "MAX_SIZE", "SuspiciousArchive", "zipnames"]

MAX_DEPTH = 5
"""Levels of archives within archives that are looked into."""
MAX_NAMES = 10_000
"""Names in an archive and all archives inside of it."""
MAX_SIZE = 64 * 1024 * 1024
"""Bytes of inner archives that are unpacked, all together."""

# What stands in front of a member (APPNOTE 4.3.7) and in an archive's directory (4.3.12), as far as
# its name needs it, and the head of an extra field (4.5.1), of which one kind is a name (4.6.9).
_LOCAL_SIGNATURE = b"PK\x03\x04"
_HEADS = {
    _LOCAL_SIGNATURE: struct.Struct("<4s2xH18xH2x"),
    b"PK\x01\x02": struct.Struct("<4s4xH18xH16x"),
}
_HEAD = re.compile(rb"PK(?:\x03\x04|\x01\x02)")
_IS_ENCRYPTED = 0x1
_IS_UTF8 = 0x800
_CHEAP = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_MAX_LENGTH = 1024  # of a name that stands anywhere; no system has longer ones in a folder
_EXTRA = struct.Struct("<HH")
_UNICODE_NAME = 0x7075


class SuspiciousArchive(zipfile.BadZipFile):
    """An archive that cannot be looked into: corrupt, encrypted inside, too deep or too large."""


def zipnames(txt: bytes) -> list[tuple[str, str]]:
    """The names in a zip archive: ("zipname", name) each, those of inner archives too.

    Programs differ on where an archive begins and ends: behind its own names stand those of all
    that looks like a member, wherever it is.

    Raises SuspiciousArchive, a zipfile.BadZipFile, if not all of it can be looked at.
    """
    names: list[tuple[str, str]] = []
    loose: dict[str, None] = {}
    waiting = [(txt, 1)]
    room = MAX_SIZE
    while waiting:
        data, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise SuspiciousArchive(f"archives within archives, more than {MAX_DEPTH} levels")
        if max(map(data.count, _HEADS)) + max(len(names), len(loose)) > MAX_NAMES:
            raise SuspiciousArchive(f"more than {MAX_NAMES} names")
        loose.update(dict.fromkeys(_loose(data)))
        try:
            with zipfile.ZipFile(BytesIO(data)) as archive:
                for member in archive.infolist():
                    found = _names(member, data)
                    names += [("zipname", name) for name in found]
                    if any(ends_with(name, (".zip",)) for name in found) or _begins_as_one(
                        archive, member
                    ):
                        with archive.open(member) as inner:
                            content = inner.read(room + 1)
                        room -= len(content)
                        if room < 0:
                            raise SuspiciousArchive(f"more than {MAX_SIZE} bytes of archives")
                        waiting.append((content, depth + 1))
        except SuspiciousArchive:
            raise
        except Exception as error:  # zipfile raises of many kinds for archives that are no good
            raise SuspiciousArchive(str(error) or type(error).__name__) from error
    listed = {name for _, name in names}
    return names + [("zipname", name) for name in loose if name not in listed]


def _begins_as_one(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a member that has no archive's name is an archive by its first bytes, as far as these
    can be unpacked. Of other methods than deflate a few bytes may become a hundred megabytes."""
    if member.compress_type in _CHEAP and not member.flag_bits & _IS_ENCRYPTED:
        with suppress(Exception), archive.open(member) as inner:
            return inner.read(len(_LOCAL_SIGNATURE)) == _LOCAL_SIGNATURE
    return False


def _names(member: zipfile.ZipInfo, data: bytes) -> dict[str, None]:
    """The names under which some program unpacks a member: that of the archive's directory, the
    one in Unicode beside it, and the one in front of the member itself."""
    names = [member.filename, member.orig_filename]
    at = 0
    while at + _EXTRA.size <= len(member.extra):
        kind, size = _EXTRA.unpack_from(member.extra, at)
        at += _EXTRA.size
        if kind == _UNICODE_NAME:  # behind a version and a checksum of the other name
            names.append(member.extra[at + 5 : at + size].decode("utf-8", "replace"))
        at += size
    signature = data[max(member.header_offset, 0) :][:4]
    if signature != _LOCAL_SIGNATURE:
        raise SuspiciousArchive(f"no member where {member.filename!r} should be")
    return dict.fromkeys([*names, _name_at(data, member.header_offset)])


def _loose(data: bytes) -> Iterator[str]:
    """The names of all that looks like a member: archives may stand behind each other, and within
    a comment, and programs open the first or the last one."""
    for head in _HEAD.finditer(data):
        with suppress(struct.error):  # cut at the end: it is none
            yield _name_at(data, head.start())


def _name_at(data: bytes, at: int) -> str:
    """The name in the head of a member, or in the directory."""
    head = _HEADS[data[at : at + 4]]
    _, flags, length = head.unpack_from(data, at)
    at += head.size
    name = data[at : at + length][-_MAX_LENGTH:]
    return name.decode("utf-8" if flags & _IS_UTF8 else "cp437", "replace")
