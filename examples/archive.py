"""Keeps a copy of every message in a maildir, byte for byte as the mail server got it.

Above the message stand X-Envelope-To for each recipient, then X-Envelope-From: what comes below the
first X-Envelope-From is the message. A message that cannot be kept is refused for now.
"""

import functools
import logging
import mailbox
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path

import Milter

log = logging.getLogger("archive")


def tempfail_on_error(callback):
    """Makes a callback answer TEMPFAIL when the disk fails, whatever the exception policy is."""

    @functools.wraps(callback)
    def guarded(self, *args):
        try:
            return callback(self, *args)
        except OSError as error:
            log.error("%s: not archived: %s", self.getsymval("i"), error)
            self.discard()
            self.setreply("452", "4.3.1", "The message cannot be archived now")
            return Milter.TEMPFAIL

    return guarded


@Milter.header_leading_space  # values come with what stands between the colon and them
class Archive(Milter.Base):
    folder = Path(__file__).with_name("archive")
    file = None  # of the message that is under way

    # The variants for bytes: nothing is decoded that has to be encoded again.

    def envfrom_bytes(self, sender, *params):
        self.discard()
        self.to, self.head = [], [b"X-Envelope-From: " + sender]
        return Milter.CONTINUE

    def envrcpt_bytes(self, rcpt, *params):
        self.to.append(b"X-Envelope-To: " + rcpt)
        return Milter.CONTINUE

    @Milter.noreply
    def header_bytes(self, name, value):
        # Where the MTA cannot say what stood behind the colon, it was a space, as nearly always.
        colon = b":" if self._protocol & Milter.P_HDR_LEADSPC else b": "
        name = name.encode("utf-8", "surrogateescape")
        self.head.append(name + colon + value.replace(b"\n", b"\r\n"))  # folds come as LF
        return Milter.CONTINUE

    @tempfail_on_error
    def eoh(self):
        mailbox.Maildir(self.folder)  # makes the folders that are missing
        # A name that nobody else has: maildirs need no locks.
        self.name = f"{time.time():.6f}.{secrets.token_hex(8)}.{socket.gethostname()}"
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        self.file = os.fdopen(os.open(self.folder / "tmp" / self.name, flags, 0o600), "wb")
        self.file.write(b"\r\n".join([*self.to, *self.head, b"", b""]))
        return Milter.CONTINUE

    @tempfail_on_error
    def body(self, chunk):
        self.file.write(chunk)  # at once: a large message does not wait in memory
        return Milter.CONTINUE

    @tempfail_on_error
    def eom(self):
        # Once we answer, the MTA may say 250, and the client forgets the message: by then it has to
        # be on the disk, with its name.
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.rename(self.folder / "tmp" / self.name, self.folder / "new" / self.name)
        self.file = None
        new = os.open(self.folder / "new", os.O_RDONLY)
        try:
            os.fsync(new)
        finally:
            os.close(new)
        return Milter.CONTINUE

    def abort(self):
        self.discard()
        return Milter.CONTINUE

    def discard(self):
        """Removes the file of a message that did not come to its end."""
        if self.file is None:
            return
        file, self.file = self.file, None
        (self.folder / "tmp" / self.name).unlink(missing_ok=True)
        with suppress(OSError):
            file.close()  # which writes what is left


if __name__ == "__main__":
    Milter.factory = Archive
    Milter.runmilter("archive", "inet:8894@127.0.0.1")
