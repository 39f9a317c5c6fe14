"""Updates of a file that readers never see half done: lock, write anew, rename."""

from __future__ import annotations

import os
import shutil
import time
from io import TextIOWrapper
from pathlib import Path
from typing import IO

__all__ = ["PLock"]

_PAUSE = 0.05  # seconds between two attempts


class PLock:
    """An update of the file `basename`, under a lock that is a file as well: the new version."""

    def __init__(self, basename: str) -> None:
        self.basename = basename
        self.fp: IO[str] | None = None
        self.lockname = f"{basename}.lock"

    def lock(
        self, lockname: str | None = None, mode: int = 0o660, strict_perms: bool = False
    ) -> IO[str]:
        """Take the lock and return a file for the new version.

        lockname: the lock's path, BASENAME.lock by default. mode: of the new file, together with
        that of the old one. Owner and group become those of the old one; where that is not
        possible, strict_perms decides whether it is an error. Raises FileExistsError if somebody
        else has the lock, OSError.
        """
        if self.fp is not None:
            raise FileExistsError(f"already locked: {self.lockname}")
        name = lockname or f"{self.basename}.lock"
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, mode | self._own(fd, strict_perms))
            self.fp = TextIOWrapper(os.fdopen(fd, "wb"), "utf-8", "surrogateescape")
        except BaseException:
            Path(name).unlink()
            raise
        self.lockname = name
        return self.fp

    def _own(self, fd: int, strict: bool) -> int:
        """Gives the new file the owner of the old one; returns the mode of that."""
        try:
            old = Path(self.basename).stat()
        except FileNotFoundError:
            return 0
        try:
            os.fchown(fd, old.st_uid, old.st_gid)
        except OSError:
            if strict:
                os.close(fd)
                raise
        return old.st_mode & 0o777

    def wlock(self, lockname: str | None = None) -> IO[str]:
        """Wait until the lock is free, then take it; returns a file for the new version."""
        while True:
            try:
                return self.lock(lockname)
            except FileExistsError:
                if self.fp is not None:
                    raise
                time.sleep(_PAUSE)

    def commit(self, backname: str | None = None) -> None:
        """Put the new version in place. backname: where the old one is kept.

        Raises OSError if it is not locked, or if the disk is full: the old version stays then.
        """
        if self.fp is None:
            raise OSError("File not locked")
        self.fp.flush()
        os.fsync(self.fp.fileno())
        self.fp.close()
        self.fp = None
        if backname and Path(self.basename).exists():
            shutil.copy2(self.basename, backname)
        os.replace(self.lockname, self.basename)

    def unlock(self) -> None:
        """Give the update up: the file stays as it was. Without a lock, do nothing."""
        if self.fp is not None:
            self.fp.close()
            self.fp = None
            Path(self.lockname).unlink(missing_ok=True)
