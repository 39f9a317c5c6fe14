"""Callbacks that raise all sorts of things, in any place; a policy from a setting."""
import sys
import Milter


class Strange(Exception):
    def __init__(self, code, *, text):
        self.code, self.text = code, text

    def __str__(self):
        return "strange %d %s" % (self.code, self.text)


class NotCaught(BaseException):
    pass


class Broken(Milter.Base):
    place = None

    def __init__(self):
        self.raises = iter([Strange(5, text="\u00e9"), KeyError("key"), OSError(28, "No space left"),
                            NotCaught("base"), StopIteration(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x")])

    def fall(self, place):
        if self.place == place:
            raise next(self.raises)
        return Milter.CONTINUE

    def connect(self, *args):
        return self.fall("connect")

    def hello(self, name):
        return self.fall("hello")

    def envfrom(self, *args):
        return self.fall("envfrom")

    def envrcpt(self, *args):
        return self.fall("envrcpt")

    def data(self):
        return self.fall("data")

    def header(self, name, value):
        return self.fall("header")

    def eoh(self):
        return self.fall("eoh")

    def body(self, chunk):
        return self.fall("body")

    def eom(self):
        self.addheader("X-Before", "1")
        return self.fall("eom")

    def abort(self):
        return self.fall("abort")

    def close(self):
        print("close", self.place, flush=True)
        return self.fall("close")


def recurse(self):
    return recurse(self)


class Deep(Broken):
    def fall(self, place):
        return recurse(self) if place == "eoh" else Milter.CONTINUE


def kind(where):
    return type("Broken_" + where, (Broken,), {"place": where})


left = [kind(sys.argv[2]) for _ in range(6)] if len(sys.argv) > 2 else [
    kind("envfrom"), kind("header"), kind("eom"), kind("close"), Deep, kind("connect")]
Milter.factory = lambda: left.pop(0)()
Milter.set_exception_policy(Milter.CONTINUE if len(sys.argv) > 2 else Milter.REJECT)
Milter.runmilter("broken filter", sys.argv[1], 60)
print("end")
