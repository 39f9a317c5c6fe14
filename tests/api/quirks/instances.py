"""Callbacks that an object gets while it lives, by assignment to it or to its class."""
import sys
import Milter


class Chooser(Milter.Base):
    "chooses at connect what its eom is"
    def connect(self, name, family, addr):
        self.eom = self.eom_tagged
        self.header = self.header_noted
        self.noted = []
        return Milter.CONTINUE

    def header(self, name, value):
        return Milter.CONTINUE

    def header_noted(self, name, value):
        self.noted.append(name)
        return Milter.CONTINUE

    def eom(self):
        return Milter.CONTINUE

    def eom_tagged(self):
        self.addheader("X-Noted", ",".join(self.noted))
        return Milter.CONTINUE


class Lambdas(Milter.Base):
    def connect(self, name, family, addr):
        self.envfrom = lambda *args: print("own", args) or Milter.CONTINUE
        self.envrcpt = lambda *args: print("own", args, flush=True) or Milter.CONTINUE
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        return Milter.CONTINUE

    def envrcpt(self, f, *params):
        return Milter.CONTINUE


class Short(Milter.Base):
    "a shortcut in mid-message"
    def envfrom(self, f, *params):
        self.__dict__.pop("eom", None)
        self.__dict__.pop("body", None)
        return Milter.CONTINUE

    def header(self, name, value):
        if name == "MIME-Version":
            self.body = lambda chunk: Milter.ACCEPT
        elif name == "Subject":
            self.eom = lambda: Milter.ACCEPT
        return Milter.CONTINUE

    def body(self, chunk):
        return Milter.CONTINUE

    def eom(self):
        return Milter.CONTINUE


class Replaced(Milter.Base):
    "becomes another class"
    def header(self, name, value):
        print("before", name, flush=True)
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        if type(self) is Replaced:
            self.__class__ = After
        return Milter.CONTINUE

    def eom(self):
        return Milter.CONTINUE


class After(Replaced):
    def header(self, name, value):
        print("after", name, flush=True)
        return Milter.CONTINUE


class Patched(Milter.Base):
    "a class that is changed while it serves"
    def header(self, name, value):
        Patched.eom = lambda self: self.addheader("X-Patched", "1") or Milter.CONTINUE
        return Milter.CONTINUE

    def eom(self):
        return Milter.CONTINUE


left = [Chooser, Lambdas, Short, Replaced, Patched, Chooser]
Milter.factory = lambda: left.pop(0)()
Milter.runmilter("instances", sys.argv[1], 60)
