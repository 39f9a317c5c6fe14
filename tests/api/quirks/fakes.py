"""The stand-ins for tests, step by step: what they call, and what they return."""
import io, os
import Milter
from Milter import testctx

MESSAGE = b"A: b\n\nx\n"


class Steps(Milter.Base):
    def _setctx(self, c):
        print("setctx", c is not None)
        super()._setctx(c)

    def negotiate(self, opts):
        print("negotiate")
        return super().negotiate(opts)

    def connect(self, *a):
        print("connect")
        return Milter.CONTINUE

    def hello(self, n):
        print("hello", n)
        return Milter.REJECT if n == "bad" else Milter.CONTINUE

    def envfrom(self, f, *a):
        print("from", f, a)
        return Milter.CONTINUE

    @Milter.noreply
    def envrcpt(self, f, *a):
        print("rcpt", f, a)
        return Milter.CONTINUE

    @Milter.noreply
    def header(self, n, v):
        return Milter.CONTINUE

    def eom(self):
        self.setreply("550", "5.7.1", "x")
        return Milter.CONTINUE

    def close(self):
        print("close")
        return Milter.CONTINUE

    def abort(self):
        print("abort")
        return Milter.CONTINUE


def call(f, *a, **k):
    try:
        print(f.__name__, f(*a, **k))
    except Exception as e:
        print(f.__name__, type(e).__name__)


Milter.factory = Steps
ctx = testctx.TestCtx()
call(ctx._connect)
first = ctx.getpriv()
call(ctx._envfrom, "<a@b>")
call(ctx._envrcpt, "<a@b>")
call(ctx._header, "a", "b")
call(ctx._eoh)
call(ctx._eom)
print(ctx._reply)
call(ctx._connect)
print(ctx.getpriv() is first)
second = ctx.getpriv()
call(ctx._close)
print(second._ctx, ctx.getpriv() is second)
call(ctx._connect)
call(ctx._abort)
call(ctx._connect, helo="bad")
call(ctx._feedFile, io.BytesIO(MESSAGE))
ctx = testctx.TestCtx()
call(ctx._envfrom, "<a>")
call(ctx._negotiate)
call(ctx._helo, "x")
call(ctx._data)

os.mkdir("test")
from Milter.test import TestBase


class Quiet(Steps):
    def _setctx(self, c):
        Milter.Base._setctx(self, c)


class Mixed(TestBase, Quiet):
    def __init__(self):
        TestBase.__init__(self)
        Quiet.__init__(self)


m = Mixed()
call(m.connect)
call(m.envrcpt, "<x>")
call(m.hello, "x")
call(m.feedFile, io.BytesIO(MESSAGE))
print(m._reply, m._msg.items())
call(m.abort)
call(m.close)
call(m.connect, "host", "bad")
call(m.envrcpt, "<x>")
call(m.connect)
call(m.feedFile, io.BytesIO(MESSAGE), "s@t", "r@t")
