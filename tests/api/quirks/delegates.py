"""Objects that are put together in other ways than one class with methods."""
import functools, sys, threading
import Milter


class Plugin:
    "a mixin that knows nothing of Milter"
    def header(self, field, value):
        self.note("header", field)
        return Milter.CONTINUE

    def note(self, *what):
        print(type(self).__name__, *what, flush=True)


class Mixed(Plugin, Milter.Base):
    def eom(self):
        self.note("eom")
        return Milter.ACCEPT


class Delegator(Milter.Base):
    def __init__(self, name, delegate):
        self.name, self.delegate = name, delegate
        delegate.delegator = self

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.delegate, name)

    def envfrom(self, f, *params):
        self.delegate.seen = []
        return self.verdict()

    def header(self, field, value):
        self.delegate.seen.append(field)
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Seen", ",".join(self.seen))
        return Milter.CONTINUE


class Delegate:
    def verdict(self):
        print("delegate of", self.delegator.name, flush=True)
        return Milter.CONTINUE


class Kinds(Milter.Base):
    "callbacks that are no plain functions"
    @staticmethod
    def hello(name):
        print("static", name)
        return Milter.CONTINUE

    @classmethod
    def envfrom(cls, f, *params):
        print("class", cls.__name__, f, params)
        return Milter.CONTINUE

    envrcpt = functools.partialmethod(lambda self, word, to, *params: print(word, to) or Milter.CONTINUE, "partial")

    header = lambda self, *args: print("lambda", args[0]) or Milter.CONTINUE

    @property
    def eoh(self):
        return lambda: print("property") or Milter.CONTINUE

    @functools.wraps(print)
    def body(self, *args, **kw):
        print("wrapped", len(args[0]))
        return Milter.CONTINUE

    eom = functools.partialmethod(lambda self, verdict: verdict, Milter.ACCEPT)


def timed(func):
    @functools.wraps(func)
    def wrapper(self, *args, **kw):
        self.calls = getattr(self, "calls", 0) + 1
        return func(self, *args, **kw)
    return wrapper


class Decorated(Milter.Base):
    @timed
    def envfrom(self, f, *params):
        return Milter.CONTINUE

    @Milter.noreply
    @timed
    def header(self, field, value):
        return Milter.CONTINUE

    @timed
    @Milter.noreply
    def body(self, chunk):
        return Milter.CONTINUE

    @timed
    def eom(self):
        self.addheader("X-Calls", str(self.calls))
        return Milter.CONTINUE


class Arity(Milter.Base):
    "fewer or more arguments than there are"
    def hello(self, *args, **kw):
        return Milter.CONTINUE

    def envfrom(self, f):
        return Milter.CONTINUE

    def envrcpt(self, to, notify="none", *rest):
        print("notify", notify)
        return Milter.CONTINUE

    def header(self, field, value, extra=None):
        return Milter.CONTINUE

    def eom(self, message=None):
        self.addheader("X-Arity", str(message))
        return Milter.CONTINUE


class Both(threading.Thread, Milter.Base):
    def __init__(self):
        threading.Thread.__init__(self)
        self.daemon = True

    def eom(self):
        self.start()
        self.join()
        self.addheader("X-Run", self.ran)
        return Milter.ACCEPT

    def run(self):
        self.ran = "yes"


makers = [Kinds, Mixed, lambda: Delegator("one", Delegate()), Decorated, Arity, Both]
left = [*makers]


class Maker:
    def __call__(self):
        return left.pop(0)()


Milter.factory = Maker()
Milter.runmilter("delegates", sys.argv[1], 60)
