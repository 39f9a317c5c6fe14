"""Each way to get text, decorators in either order."""
import sys
import Milter
from Milter import noreply, decode, nocallback, CONTINUE, Base, uniqueID


class Decoders(Base):
    def __init__(self):
        self.id = uniqueID()

    @noreply
    @decode("replace")
    def envfrom(self, f, *params):
        print(self.id, "from", ascii(f), ascii(params))
        return CONTINUE

    @decode("ignore")
    @noreply
    def envrcpt(self, to, *params):
        print(self.id, "to", ascii(to), ascii(params))
        return CONTINUE

    @Milter.decode("strict")
    def header(self, name, value):
        print(self.id, name, ascii(value), type(value).__name__)
        return CONTINUE

    @nocallback
    def body(self, chunk):
        raise RuntimeError("never")

    def eom(self):
        sys.stdout.flush()
        return Milter.ACCEPT


class Bytes(Base):
    @decode("bytes")
    def envfrom(self, f, *params):
        print(f, params)
        self.sender = f
        return CONTINUE

    @decode("bytes")
    @noreply
    def envrcpt(self, *args):
        print(args)
        return CONTINUE

    @noreply
    @decode("bytes")
    def header(self, name, value):
        print(name, value)
        return CONTINUE

    def eom(self):
        self.addheader("X-Sender", self.sender.decode("latin-1").encode("ascii", "replace").decode())
        sys.stdout.flush()
        return CONTINUE


class Low(Base):
    def envfrom_bytes(self, *b):
        print("low", b)
        return CONTINUE

    def header_bytes(self, fld, val):
        print("low", fld, val)
        return CONTINUE

    def envfrom(self, f, *params):
        raise RuntimeError("never")

    def header(self, name, value):
        raise RuntimeError("never")

    def eom(self):
        sys.stdout.flush()
        return CONTINUE


kinds = [Decoders, Bytes, Low] * 10
Milter.factory = lambda: kinds.pop(0)()
Milter.runmilter("decoders", sys.argv[1], 60)
