"""The names in zip archives, and in archives inside of them, within limits."""

from __future__ import annotations

import struct
import zipfile
from io import BytesIO

__all__ = ["MAX_DEPTH", "MAX_NAMES", "MAX_SIZE", "SuspiciousArchive", "zipnames"]

MAX_DEPTH = 5
"""Levels of archives within archives that are looked into."""
MAX_NAMES = 10_000
"""Names in an archive and all archives inside of it."""
MAX_SIZE = 64 * 1024 * 1024
"""Bytes of inner archives that are unpacked, all together."""

_MEMBER = b"PK\x01\x02"  # begins an entry of an archive's directory
# What stands in front of a member (APPNOTE 4.3.7), as far as its name needs it, and the head of an
# extra field (4.5.1), of which one kind is a name (4.6.9).
_LOCAL = struct.Struct("<4s2xH18xH")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_LOCAL_SIZE = 30
_IS_UTF8 = 0x800
_EXTRA = struct.Struct("<HH")
_UNICODE_NAME = 0x7075


class SuspiciousArchive(zipfile.BadZipFile):
    """An archive that cannot be looked into: corrupt, encrypted inside, too deep or too large."""


def zipnames(txt: bytes) -> list[tuple[str, str]]:
    """The names in a zip archive: ("zipname", name) each, those of inner archives too.

    Raises SuspiciousArchive, a zipfile.BadZipFile, if not all of it can be looked at.
    """
    names: list[tuple[str, str]] = []
    waiting = [(txt, 1)]
    room = MAX_SIZE
    while waiting:
        data, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise SuspiciousArchive(f"archives within archives, more than {MAX_DEPTH} levels")
        if data.count(_MEMBER) + len(names) > MAX_NAMES:
            raise SuspiciousArchive(f"more than {MAX_NAMES} names")
        try:
            with zipfile.ZipFile(BytesIO(data)) as archive:
                for member in archive.infolist():
                    names += [("zipname", name) for name in _names(member, data)]
                    if member.filename.lower().rstrip(". ").endswith(".zip"):
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
    return names


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
    signature, flags, length = _LOCAL.unpack_from(data, member.header_offset)
    if signature != _LOCAL_SIGNATURE:
        raise SuspiciousArchive(f"no member where {member.filename!r} should be")
    at = member.header_offset + _LOCAL_SIZE
    name = data[at : at + length]
    names.append(name.decode("utf-8" if flags & _IS_UTF8 else "cp437", "replace"))
    return dict.fromkeys(names)
