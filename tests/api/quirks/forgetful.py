"""Callbacks that return nothing, or something else than a verdict; one kind for each connection."""
import itertools, sys
import Milter

RETURNS = itertools.cycle(["nothing", "text", "true", "false", "tuple", "float", "big", "negative"])


class Forgetful(Milter.Base):
    def __init__(self):
        self.kind = next(RETURNS)

    def say(self):
        return {"nothing": None, "text": "accept", "true": True, "false": False,
                "tuple": (Milter.REJECT,), "float": 1.0, "big": 1 << 80, "negative": -1}[self.kind]

    def hello(self, name):
        return Milter.CONTINUE

    def header(self, name, value):
        print(self.kind, "header", name)
        return self.say()

    def eom(self):
        print(self.kind, "eom")
        self.addheader("X-Kind", self.kind)
        return self.say()

    def abort(self):
        return 7

    def close(self):
        print(self.kind, "close", flush=True)
        return False


Milter.factory = Forgetful
Milter.runmilter("forgetful", sys.argv[1], 60)
