"""A filter that implements every step, looks at what it gets, and lets everything pass.

Runs on ours and on the older package. Usage: every_step.py SOCKET
"""

import sys

import Milter
import milter


class EveryStep(Milter.Base):
    """Counts what it sees; answers CONTINUE."""

    all_octets = 0  # of connections that have ended

    def __init__(self):
        self.octets = 0

    def connect(self, hostname, family, hostaddr):
        self.client = hostname
        return Milter.CONTINUE

    def hello(self, name):
        self.helo = name
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        self.sender = f
        self.params = params
        self.recipients = 0
        return Milter.CONTINUE

    def envrcpt(self, to, *params):
        self.recipients += 1
        return Milter.CONTINUE

    def data(self):
        return Milter.CONTINUE

    def header(self, field, value):
        self.octets += len(field) + len(value)
        return Milter.CONTINUE

    def eoh(self):
        return Milter.CONTINUE

    def body(self, chunk):
        self.octets += len(chunk)
        return Milter.CONTINUE

    def unknown(self, cmd):
        return Milter.CONTINUE

    def eom(self):
        self.queue_id = self.getsymval("i")
        return Milter.CONTINUE

    def abort(self):
        return Milter.CONTINUE

    def close(self):
        EveryStep.all_octets += self.octets
        return Milter.CONTINUE


if __name__ == "__main__":
    print(Milter.__file__, milter.__file__, sep="\n", flush=True)
    Milter.factory = EveryStep
    Milter.runmilter("every_step", sys.argv[1], 600)
    print(EveryStep.all_octets)
