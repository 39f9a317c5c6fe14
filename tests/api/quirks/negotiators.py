"""Filters that negotiate themselves, each connection another one."""
import sys
import Milter
from Milter import decode_mask


class More(Milter.Base):
    "asks for rejected recipients and leading spaces, sends all headers"
    def negotiate(self, opts):
        rc = super().negotiate(opts)
        print("negotiated", opts, self._actions, self._protocol, rc)
        return rc

    def envrcpt(self, to, *params):
        return Milter.CONTINUE

    def header(self, field, value):
        print(repr(field), repr(value))
        return Milter.CONTINUE


More = Milter.header_leading_space(Milter.rejected_recipients(More))


@Milter.rejected_recipients
class Less(Milter.Base):
    "fewer actions and steps than the class would ask for"
    def negotiate(self, opts):
        Milter.Base.negotiate(self, opts)
        opts[0] &= Milter.ADDHDRS | Milter.QUARANTINE
        opts[1] |= Milter.P_NOHDRS | Milter.P_NOBODY
        opts[1] &= ~Milter.P_SKIP
        self._actions = opts[0]
        self._protocol = opts[1]
        return Milter.CONTINUE

    def header(self, field, value):
        print("not wanted any more")
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Less", "1")
        for action in (lambda: self.addrcpt("<a@b>"), lambda: self.chgheader("Subject", 1, "x")):
            try:
                action()
            except Milter.DisabledAction as e:
                print("disabled", e)
        try:
            self._ctx.addrcpt("<a@b>")
        except Milter.error as e:
            print("refused by the context")
        return Milter.CONTINUE


class All(Milter.Base):
    "takes everything, opts as they came"
    def negotiate(self, opts):
        print("offered", decode_mask(opts[0] & 7, ["ADDHDRS", "CHGBODY", "ADDRCPT"]), hex(opts[1]))
        return Milter.ALL_OPTS

    def header(self, field, value):
        print(repr(field), repr(value))
        return Milter.CONTINUE

    def data(self):
        print("data")
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-All", "%d" % self._protocol)
        return Milter.CONTINUE


class Own(Milter.Base):
    "never calls the base class; numbers of its own"
    def negotiate(self, opts):
        self._actions, self._protocol = opts[0], opts[1]
        opts[1] = Milter.P_NOUNKNOWN | Milter.P_NR_HDR & opts[1]
        opts[2], opts[3] = 1, 2
        return Milter.CONTINUE

    def header(self, field, value):
        print("own", field)
        return Milter.NOREPLY if self._protocol & Milter.P_NR_HDR else Milter.CONTINUE

    def eom(self):
        self.chgheader("Subject", 1, "own")
        return Milter.CONTINUE


class Refuses(Milter.Base):
    "an answer that is none: the connection ends"
    def negotiate(self, opts):
        print("refused", flush=True)
        return Milter.REJECT


class Fails(Milter.Base):
    def negotiate(self, opts):
        print("failed", flush=True)
        raise KeyError("negotiate")


kinds = [Less, All, Own, More, Less, More]
if len(sys.argv) > 2:
    kinds = [Refuses, Fails] * 6
left = [*kinds]
Milter.factory = lambda: left.pop(0)()
Milter.runmilter("negotiators", sys.argv[1], 60)
