"""The names in zip archives, and in archives inside of them, within limits."""

from __future__ import annotations

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
                    names.append(("zipname", member.filename))
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
