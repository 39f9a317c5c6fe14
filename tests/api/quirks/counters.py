"""State in odd places: class counters, attributes named as callbacks, a constructor called again."""
import sys
import Milter


class Counter(Milter.Base):
    id = 0
    ids = {}
    messages = 0

    def __init__(self):
        Counter.id += 1
        self.id = Counter.id
        self.data = {}
        self.unknown = self.connect_time = None
        self.helo = self.mailfrom = None
        self.rcpt = []
        self.abort_reason = ""

    def hello(self, hostname):
        self.helo = hostname
        Counter.ids[self.id] = hostname
        return Milter.CONTINUE

    def envfrom(self, mailfrom, *rest):
        helo = self.helo
        self.__init__()
        self.helo = helo
        self.mailfrom = mailfrom
        self.__class__.messages += 1
        return Milter.CONTINUE

    def envrcpt(self, recipient, *rest):
        self.rcpt.append(recipient)
        return Milter.CONTINUE

    def header(self, field, value):
        self.data.setdefault(field.lower(), []).append(value)
        return Milter.CONTINUE

    def eom(self):
        sym = self.getsymval(sym="{mail_addr}")
        print(self.id, self.helo, self.mailfrom, self.rcpt, sorted(self.data), sym,
              self.getsymval("i"), self.getsymval("{i}"), self.getsymval("{client_addr}"),
              self.getsymval("_"), self.getsymval("j"), self.getsymval("{daemon_name}"), flush=True)
        self.addheader("X-Counter", "%d of %d" % (self.id, Counter.messages))
        for n in range(len(self.data.get("x-two", [])), 0, -1):
            self.chgheader("X-Two", n, None)
        return Milter.CONTINUE


Milter.factory = Counter
Milter.factory.attribute = 1
print(Milter.factory is Counter, Milter.factory.attribute)
Milter.runmilter("counters", sys.argv[1])
print(len(Counter.ids))
