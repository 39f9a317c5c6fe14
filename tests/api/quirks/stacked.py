"""Decorators in every order, one pair for each connection; which of them count where none may."""
import itertools, sys
import Milter

MARKS = {"n": Milter.noreply, "b": Milter.decode("bytes"), "s": Milter.decode("strict"),
         "i": Milter.decode("ignore"), "r": Milter.decode("replace")}


def marked(order):
    def header(self, name, value):
        print(order, repr(name), repr(value)[:60], flush=True)
        return Milter.CONTINUE

    def envrcpt(self, to, *params):
        print(order, repr(to), params, flush=True)
        return Milter.CONTINUE

    for letter in order:
        header, envrcpt = MARKS[letter](header), MARKS[letter](envrcpt)
    made = type("Marked" + order, (Milter.Base,), {"header": header, "envrcpt": envrcpt})
    print(order, hex(made.protocol_mask()))
    return made


for name in ("eom", "abort", "close", "negotiate", "anything"):
    for mark in (Milter.noreply, Milter.nocallback):
        def step(self):
            return Milter.CONTINUE
        step.__name__ = name
        try:
            mark(step)
        except ValueError:
            print(name, "cannot be", mark.__name__)

classes = itertools.cycle([marked("".join(pair)) for pair in itertools.permutations(MARKS, 2)])
Milter.factory = lambda: next(classes)()
Milter.runmilter("stacked", sys.argv[1], 60)
