"""A filter that writes down which messages it has seen whole, by their digests.

Usage: digests.py SOCKET FOLDER. FOLDER/seen gets a line for each, before the MTA gets its verdict.
It serves no more than four connections at once.
"""

import hashlib
import os
import sys
from pathlib import Path

import Milter

SOCKET, FOLDER = sys.argv[1], Path(sys.argv[2])


class Digests(Milter.Base):
    """One connection."""

    def envfrom(self, sender: str, *parameters: str) -> int:
        self.digest = hashlib.sha256(sender.encode())
        return Milter.CONTINUE

    def envrcpt(self, rcpt: str, *parameters: str) -> int:
        self.digest.update(rcpt.encode())
        return Milter.CONTINUE

    def header(self, name: str, value: str) -> int:
        if name == "Subject":
            self.digest.update(value.encode())
        return Milter.CONTINUE

    def body(self, chunk: bytes) -> int:
        self.digest.update(chunk)
        return Milter.CONTINUE

    def eom(self) -> int:
        out = os.open(FOLDER / "seen", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(out, self.digest.hexdigest().encode() + b"\n")
        os.close(out)
        return Milter.CONTINUE


Milter.Server(Digests, SOCKET, max_connections=4).serve_forever()
