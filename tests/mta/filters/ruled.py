"""A filter that does with each message what its header X-Rule says, and writes that down.

Usage: ruled.py SOCKET FOLDER. At the end of a message it changes a header, adds one with a digest
of the body that it saw and replaces the body; then it appends "NUMBER RULE" to FOLDER/decided.
NUMBER is the message's header X-Number.
"""

import hashlib
import os
import sys
import time
from pathlib import Path

import Milter

DECIDED = os.open(Path(sys.argv[2]) / "decided", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
RULES = {
    "accept": Milter.ACCEPT,
    "continue": Milter.CONTINUE,
    "reject": Milter.REJECT,
    "tempfail": Milter.TEMPFAIL,
    "discard": Milter.DISCARD,
}


class Ruled(Milter.Base):
    """One connection."""

    def envfrom(self, sender, *params):  # type: ignore[no-untyped-def]
        self.headers = {}
        self.content = hashlib.sha256()
        self.octets = 0
        return Milter.CONTINUE

    def envrcpt(self, rcpt, *params):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def header(self, name, value):  # type: ignore[no-untyped-def]
        self.headers[name] = value
        return Milter.CONTINUE

    def body(self, chunk):  # type: ignore[no-untyped-def]
        self.content.update(chunk)
        self.octets += len(chunk)
        time.sleep(0.002)  # so that there is always something in progress
        return Milter.CONTINUE

    def eom(self):  # type: ignore[no-untyped-def]
        digest = self.content.hexdigest()
        rule = self.headers["X-Rule"]
        if rule == "reject":
            self.setreply("554", "5.7.1", f"refused {digest}")
        if rule == "tempfail":
            self.setreply("452", "4.7.9", f"not now {digest}")
        self.chgheader("Subject", 1, "filtered")
        self.addheader("X-Digest", digest)
        self.replacebody(f"{digest}\r\n" * (self.octets // 50))
        os.write(DECIDED, f"{self.headers['X-Number']} {rule}\n".encode())
        return RULES[rule]


Milter.factory = Ruled
Milter.set_flags(Milter.ADDHDRS | Milter.CHGHDRS | Milter.CHGBODY)
Milter.runmilter("ruled", sys.argv[1])
