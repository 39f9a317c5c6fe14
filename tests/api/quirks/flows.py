"""Verdicts in all places, chosen by what is in the message."""
import sys
import Milter


class Flows(Milter.Base):
    def connect(self, host, family, addr):
        self.seen = self.n = 0
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        self.seen, self.n = [], self.n + 1
        return Milter.CONTINUE

    def envrcpt(self, to, *params):
        if "hole" in to:
            return Milter.DISCARD
        if "nobody" in to:
            return Milter.REJECT
        return Milter.TEMPFAIL if "later" in to else Milter.CONTINUE

    def data(self):
        self.seen.append("data")
        return Milter.CONTINUE

    def header(self, name, value):
        self.seen.append(name)
        return Milter.ACCEPT if name == "X-Two" else Milter.CONTINUE

    def eoh(self):
        self.seen.append("eoh")
        return Milter.CONTINUE

    def body(self, chunk):
        self.seen.append(len(chunk))
        if b"preamble" in chunk:
            return Milter.SKIP
        return Milter.DISCARD if len(chunk) > 60000 and self.seen.count(len(chunk)) > 1 else Milter.CONTINUE

    def eom(self):
        print("eom", self.n, self.seen)
        self.progress()
        self.addheader("X-N", str(self.n))
        self.progress()
        return [Milter.CONTINUE, Milter.ACCEPT, Milter.DISCARD, Milter.TEMPFAIL][self.n % 4]

    def close(self):
        print("close", self.seen, flush=True)
        return Milter.CONTINUE


Milter.factory = Flows
Milter.runmilter("flows", sys.argv[1], 60)
