"""The context itself, kept and used; the object that it keeps."""
import sys
import Milter

kept = []


class Contexts(Milter.Base):
    def connect(self, *args):
        kept.append(self._ctx)
        print(self._ctx.getpriv() is self, type(self._ctx).__name__, type(self._ctx).__module__)
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        for ctx in kept:
            try:
                print("j", ctx.getsymval("j"))
            except Milter.error as e:
                print("error", e)
        return Milter.CONTINUE

    def envrcpt(self, to, *params):
        try:
            self._ctx.addheader("X", "too early")
        except Milter.error:
            print("too early")
        return Milter.CONTINUE

    def eom(self):
        c = self._ctx
        print(c.addheader("X-Raw", "v"), c.chgheader("X-Raw", 1, "w"), c.setreply("450", "4.0.0", "x"))
        for bad in (lambda: c.addheader("X"), lambda: c.addheader("X", None), lambda: c.chgheader("X", "1", "v"),
                    lambda: c.replacebody(5), lambda: c.replacebody(None), lambda: c.addrcpt(None),
                    lambda: c.quarantine(), lambda: c.getsymval(None), lambda: c.setreply("550", "5.7.1", "x", None),
                    lambda: c.chgfrom(), lambda: c.delrcpt(5)):
            try:
                print("?", bad())
            except (TypeError, Milter.error) as e:
                print(type(e).__name__)
        sys.stdout.flush()
        return Milter.CONTINUE

    def close(self):
        print("close", self._ctx is not None)
        return Milter.CONTINUE

    def _setctx(self, ctx):
        print("setctx", ctx is not None, flush=True)
        super()._setctx(ctx)


Milter.factory = Contexts
Milter.runmilter("contexts", sys.argv[1], 60)
print(len(kept), sys.getrefcount(kept[0]) > 1)
