"""The filter of filters/every_step.py on python-libmilter.

Usage: filter.py PATH every|noreply

Of its three factories this is the one that serves all in a thread: the cheapest. The one with a
thread for each connection does not close the connection that it took last.
"""

import signal
import sys

import libmilter

STEPS = ("connect", "helo", "mailFrom", "rcpt", "data", "header", "eoh", "body", "unknown")


class Filter(libmilter.MilterProtocol):
    """Counts what it sees; answers CONTINUE. Texts are bytes here."""

    all_octets = 0  # of connections that have ended

    def __init__(self, opts=0, protos=0):
        super().__init__(opts, protos)
        self.octets = 0

    def connect(self, hostname, family, ip, port, macros):
        self.client = hostname
        return libmilter.CONTINUE

    def helo(self, name):
        self.helo_name = name
        return libmilter.CONTINUE

    def mailFrom(self, sender, macros):
        self.sender = sender
        self.recipients = 0
        return libmilter.CONTINUE

    def rcpt(self, recipient, macros):
        self.recipients += 1
        return libmilter.CONTINUE

    def data(self, macros):
        return libmilter.CONTINUE

    def header(self, field, value, macros):
        self.octets += len(field) + len(value)
        return libmilter.CONTINUE

    def eoh(self, macros):
        return libmilter.CONTINUE

    def body(self, chunk, macros):
        self.octets += len(chunk)
        return libmilter.CONTINUE

    def unknown(self, command, macros):
        return libmilter.CONTINUE

    def eob(self, macros):
        self.queue_id = macros.get(b"i")
        return libmilter.CONTINUE

    def abort(self):
        return libmilter.CONTINUE

    def close(self):
        Filter.all_octets += self.octets


if sys.argv[2] == "noreply":
    for name in STEPS:
        setattr(Filter, name, libmilter.noReply(getattr(Filter, name)))


def main():
    factory = libmilter.AsyncFactory(sys.argv[1], Filter)

    def stop(signum, frame):
        print(Filter.all_octets, flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    factory.run()


if __name__ == "__main__":
    main()
