"""Objects that are no Milter.Base, coroutines and generators for callbacks, metaclasses, slots."""
import abc, enum, sys
import Milter


class Duck:
    "has what is needed, and no more"
    def _setctx(self, ctx):
        self.ctx = ctx
        if ctx:
            ctx.setpriv(self)

    def negotiate(self, opts):
        opts[1] &= ~0x1FFFFF | Milter.P_NOUNKNOWN | Milter.P_NODATA | Milter.P_NOEOH | Milter.P_NOBODY
        return Milter.CONTINUE

    def connect(self, *args):
        return Milter.CONTINUE

    def hello(self, name):
        return Milter.CONTINUE

    def envfrom_bytes(self, *args):
        print("duck", args)
        return Milter.CONTINUE

    envrcpt_bytes = envfrom_bytes

    def header_bytes(self, name, value):
        print("duck", name, value)
        return Milter.CONTINUE

    def eom(self):
        self.ctx.addheader("X-Duck", "quack")
        return Milter.CONTINUE

    def abort(self):
        return Milter.CONTINUE

    def close(self):
        print("duck", flush=True)
        return Milter.CONTINUE


class Generator(Milter.Base):
    def header(self, name, value):
        yield Milter.CONTINUE


class Verdict(enum.IntEnum):
    GO = Milter.CONTINUE
    STOP = Milter.REJECT


class Enumerated(Milter.Base):
    def envrcpt(self, to, *params):
        return Verdict.STOP if "hole" in to or "nobody" in to else Verdict.GO

    def header(self, name, value):
        return Verdict(0)

    def eom(self):
        return Verdict.GO


class Registered(abc.ABCMeta):
    made = []

    def __new__(mcs, name, bases, names):
        cls = super().__new__(mcs, name, bases, names)
        mcs.made.append(name)
        return cls


class Abstract(Milter.Base, metaclass=Registered):
    @abc.abstractmethod
    def verdict(self):
        "what a subclass says"

    def eom(self):
        self.addheader("X-Made", ",".join(Registered.made))
        return self.verdict()


class Concrete(Abstract):
    __slots__ = ("seen",)

    def verdict(self):
        return Milter.ACCEPT

    def header(self, name, value):
        self.seen = name
        return Milter.CONTINUE


class Descriptor:
    def __init__(self, verdict):
        self.verdict = verdict

    def __get__(self, obj, owner):
        return self

    def __call__(self, *args):
        print("descriptor", len(args), flush=True)
        return self.verdict


class Described(Milter.Base):
    envrcpt = Descriptor(Milter.CONTINUE)
    eoh = Descriptor(Milter.CONTINUE)
    eom = Descriptor(Milter.ACCEPT)


class Singleton(Milter.Base):
    "one object for all connections that come one after the other"
    it = None

    def __new__(cls):
        cls.it = cls.it or super().__new__(cls)
        return cls.it

    def connect(self, *args):
        self.count = getattr(self, "count", 0) + 1
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Count", str(self.count))
        return Milter.CONTINUE


left = [Duck, Enumerated, Singleton, Concrete, Described, Singleton]
if len(sys.argv) > 2:
    left = [Generator, Duck] * 3
Milter.factory = lambda: left.pop(0)()
Milter.runmilter("strangers", sys.argv[1], 60)
