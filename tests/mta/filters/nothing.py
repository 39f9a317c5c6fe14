"""A filter that has every callback and changes nothing.

Usage: nothing.py SOCKET FOLDER [noreply], with which it sends no reply before the end of a message.
"""

import sys

import Milter


class Nothing(Milter.Base):
    """Answers CONTINUE throughout."""

    def connect(self, hostname, family, hostaddr):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def hello(self, name):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def envfrom(self, sender, *params):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def envrcpt(self, rcpt, *params):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def data(self):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def header(self, field, value):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def eoh(self):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def body(self, chunk):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def unknown(self, cmd):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def eom(self):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def abort(self):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE

    def close(self):  # type: ignore[no-untyped-def]
        return Milter.CONTINUE


if "noreply" in sys.argv:
    for name in Milter.OPTIONAL_CALLBACKS:
        setattr(Nothing, name, Milter.noreply(getattr(Nothing, name)))
Milter.factory = Nothing
Milter.runmilter("nothing", sys.argv[1], 60)
