#!/usr/bin/env python3
"""Deletes all headers and adds them anew, the body as text; index counted down to 0."""
import sys
from email import message_from_bytes, policy
from email.header import Header
import Milter


class Rewriter(Milter.Base):
    def __init__(self, *args, **kw):
        super(Rewriter, self).__init__(*args, **kw)
        self.headers, self.chunks = [], []

    def envfrom(self, mailfrom, *args):
        self.__init__()
        return Milter.CONTINUE

    @Milter.noreply
    def header(self, name, value):
        self.headers.append((name, value))
        return Milter.CONTINUE

    @Milter.noreply
    def body(self, chunk):
        self.chunks.append(chunk)
        return Milter.CONTINUE

    def eom(self):
        raw = b"".join(("%s: %s\n" % (n, v)).encode("utf-8", "surrogateescape") for n, v in self.headers)
        old = message_from_bytes(raw + b"\n" + b"".join(self.chunks))
        for name in sorted(set(old.keys())):
            for n in range(len(old.get_all(name)), 0, -1):
                self.chgheader(name, n - 1, '')
        for name, val in old.items():
            self.addheader(name, str(val).encode("ascii", "replace").decode())
        self.addheader("X-Long", Header("\u00e9l\u00e8ve " * 20, "utf-8", header_name="X-Long").encode())
        new = message_from_bytes(raw + b"\n", policy=policy.SMTP)
        self.addheader("X-Count", "%d" % len(new.keys()))
        body = b"".join(self.chunks).decode("latin-1")
        self.replacebody(body.upper().encode("latin-1", "replace").decode("latin-1"))
        self.replacebody("\r\n-- \r\nwith \u20ac\r\n")
        return Milter.ACCEPT


if __name__ == '__main__':
    Milter.factory = Rewriter
    Milter.factory.config = object()
    Milter.set_flags(Milter.ADDHDRS + Milter.CHGHDRS + Milter.CHGBODY)
    sys.exit(Milter.runmilter("rewriter", sys.argv[1], timeout=30))
