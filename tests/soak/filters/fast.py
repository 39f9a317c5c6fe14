"""A filter of the soak test: methods that Milter.runmilter lets the engine call directly.

Usage: fast.py SOCKET
"""

import sys

import Milter
from plan import Kept, act, options, see_header


class Fast(Milter.Base):
    """Does what is planned."""

    def __init__(self):
        self.kept = Kept()

    def negotiate(self, opts):
        opts[:2] = options(opts)
        return Milter.CONTINUE

    def connect(self, hostname, family, hostaddr):
        self.kept.read(hostname)
        return act(self.kept, "connect", self)

    def hello(self, name):
        self.kept.read(name)
        return act(self.kept, "helo", self)

    def envfrom(self, f, *params):
        self.kept.begin()
        self.kept.read(f)
        return act(self.kept, "mail", self)

    def envrcpt(self, to, *params):
        return act(self.kept, "rcpt", self)

    def data(self):
        return act(self.kept, "data", self)

    def header(self, field, value):
        see_header(self.kept, field, value)
        return act(self.kept, "header", self)

    def eoh(self):
        return act(self.kept, "eoh", self)

    def body(self, chunk):
        self.kept.see(chunk)
        return act(self.kept, "body", self)

    def unknown(self, cmd):
        return Milter.CONTINUE

    def eom(self):
        return act(self.kept, "eom", self)

    def abort(self):
        self.kept.begin()
        return Milter.CONTINUE

    def close(self):
        return Milter.CONTINUE


Milter.factory = Fast
Milter.runmilter("fast", sys.argv[1])
