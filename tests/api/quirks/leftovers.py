#!/usr/bin/env python3
# -*- coding: utf-8 -*-
# What 2to3 leaves behind: bytes and str that do not fit, addresses that are not there.
import io
import string
import sys
import Milter


class Leftovers(Milter.Milter):

    def log(self, *msg):
        print("leftovers:", " ".join([str(x) for x in msg]))

    def __init__(self):
        self.fp = None
        self.tos = []

    def connect(self, hostname, unused, hostaddr):
        self.ip = hostaddr[0]
        self.flow = len(hostaddr) > 2 and hostaddr[2] or 0
        return Milter.Milter.connect(self, hostname, unused, hostaddr)

    def envfrom(self, f, *str):
        self.log("from", f, list(map(lambda s: s.upper(), str)))
        self.fp = io.BytesIO()
        return Milter.CONTINUE

    def envrcpt(self, to, *str):
        self.tos.append(to)
        return Milter.CONTINUE

    def header(self, name, val):
        if name == "Subject" and "caf" in val:
            self.fp.write("%s: %s\n" % (name, val))  # bytes wanted
        else:
            self.fp.write(("%s: %s\n" % (name, val)).encode())
        return Milter.CONTINUE

    def eoh(self):
        self.fp.write(b"\n")
        return Milter.Milter.eoh(self)

    def body(self, chunk):
        if "script" in chunk:  # str in bytes
            return Milter.REJECT
        return Milter.CONTINUE

    def eom(self):
        self.fp.seek(0)
        self.log("eom", sorted(self.tos)[0], len(self.fp.getvalue()))
        return Milter.Milter.eom(self)


if __name__ == "__main__":
    Milter.factory = Leftovers
    if len(sys.argv) > 2:
        Milter.set_exception_policy(getattr(Milter, sys.argv[2]))
    try:
        Milter.runmilter("leftovers", sys.argv[1], 240)
    except (SystemExit, KeyboardInterrupt):
        pass
    except:
        print(sys.exc_info())
    sys.exit(3)
