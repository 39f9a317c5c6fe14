"""Facts go through a queue to a clerk, who writes them down: a thread, or with the argument
"process" a process of its own. It is there before runmilter and goes home after it."""
import multiprocessing, queue, socket, sys, threading
import Milter
from Milter.utils import parse_addr


class Clerk:
    def __init__(self, process):
        self.facts = multiprocessing.Queue() if process else queue.Queue()
        kind = multiprocessing.Process if process else threading.Thread
        self.worker = kind(target=self.write)

    def write(self):
        count = 0
        while True:
            fact = self.facts.get()
            if not fact:
                break
            count += 1
            number, about, known = fact
            known = ", ".join("%s=%r" % pair for pair in sorted(known.items()))
            print("%d. of %d, %s: %s" % (count, number, about, known), flush=True)
        print("the clerk goes home after", count, flush=True)

    def __enter__(self):
        self.worker.start()
        return self

    def __exit__(self, *reason):
        self.facts.put(None)
        self.worker.join()


class Witness(Milter.Base):
    def __init__(self, clerk):
        self.clerk, self.number = clerk, Milter.uniqueID()

    def tell(self, about, **known):
        self.clerk.facts.put((self.number, about, known))

    @Milter.noreply
    def connect(self, host, family, hostaddr):
        known = {"host": host, "known": family in (socket.AF_INET, socket.AF_INET6)}
        if family == socket.AF_INET6:
            known.update(ip=hostaddr[0], flow=hostaddr[2], scope=hostaddr[3])
        elif hostaddr and family == socket.AF_INET:
            known.update(ip=hostaddr[0], port=hostaddr[1])
        else:
            known.update(path=hostaddr)
        self.tell("client", **known)
        return Milter.CONTINUE

    def envfrom(self, sender, *params):
        local, *domain = parse_addr(sender)
        self.asked = Milter.dictfromlist(params)
        self.refused = []
        self.tell("sender", local=local, domain=domain, size=self.asked.get("SIZE"),
                  asked=sorted(self.asked), user=self.getsymval("{auth_authen}"))
        return Milter.CONTINUE

    def envrcpt(self, rcpt, *params):
        parts = parse_addr(rcpt)
        if parts[0] in ("nobody", "later"):
            soft = parts[0] == "later"
            self.setreply("450" if soft else "550", "4.2.1" if soft else "5.1.1",
                          "%s is not in" % parts[0], "Ask at the desk,", "100%% sure")
            self.refused.append(rcpt)
            return Milter.TEMPFAIL if soft else Milter.REJECT
        self.tell("recipient", parts=list(parts), **Milter.dictfromlist(params))
        return Milter.CONTINUE

    def eom(self):
        self.tell("end", refused=self.refused, queue=self.getsymval("i"))
        return Milter.ACCEPT

    def close(self):
        self.tell("gone")
        return Milter.CONTINUE


if __name__ == "__main__":
    with Clerk("process" in sys.argv[2:]) as clerk:
        Milter.factory = lambda: Witness(clerk)
        Milter.runmilter("journal", sys.argv[1], timeout=300)
    print("locked up")
