"""A filter that implements every step and answers none but the last.

Runs on ours and on the older package. Usage: noreply.py SOCKET
"""

import sys

import Milter
import milter


class NoReply(Milter.Base):
    """Counts what it sees; the MTA waits for no reply before the end of the message."""

    all_octets = 0  # of connections that have ended

    def __init__(self):
        self.octets = 0

    @Milter.noreply
    def connect(self, hostname, family, hostaddr):
        self.client = hostname
        return Milter.CONTINUE

    @Milter.noreply
    def hello(self, name):
        self.helo = name
        return Milter.CONTINUE

    @Milter.noreply
    def envfrom(self, f, *params):
        self.sender = f
        self.params = params
        self.recipients = 0
        return Milter.CONTINUE

    @Milter.noreply
    def envrcpt(self, to, *params):
        self.recipients += 1
        return Milter.CONTINUE

    @Milter.noreply
    def data(self):
        return Milter.CONTINUE

    @Milter.noreply
    def header(self, field, value):
        self.octets += len(field) + len(value)
        return Milter.CONTINUE

    @Milter.noreply
    def eoh(self):
        return Milter.CONTINUE

    @Milter.noreply
    def body(self, chunk):
        self.octets += len(chunk)
        return Milter.CONTINUE

    @Milter.noreply
    def unknown(self, cmd):
        return Milter.CONTINUE

    def eom(self):
        self.queue_id = self.getsymval("i")
        return Milter.CONTINUE

    def abort(self):
        return Milter.CONTINUE

    def close(self):
        NoReply.all_octets += self.octets
        return Milter.CONTINUE


if __name__ == "__main__":
    print(Milter.__file__, milter.__file__, sep="\n", flush=True)
    Milter.factory = NoReply
    Milter.runmilter("noreply", sys.argv[1], 600)
    print(NoReply.all_octets)
