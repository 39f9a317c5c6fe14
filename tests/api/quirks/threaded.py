"""Served in a thread, stopped from another; the main thread waits, its handlers are its own."""
import os, signal, stat, sys, threading
import logging
import Milter

logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, format="%(levelname)s %(threadName)s %(message)s")
done = threading.Event()
got = []


class Threaded(Milter.Base):
    open = 0
    lock = threading.Lock()

    def __init__(self):
        with self.lock:
            Threaded.open += 1
            self.last = Threaded.open == 6

    def connect(self, IPname, family, hostaddr):
        self.thread = threading.current_thread()
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        self.results = []
        self.workers = [threading.Thread(target=self.work, args=(n, f)) for n in range(3)]
        for w in self.workers:
            w.start()
        return Milter.CONTINUE

    def work(self, n, f):
        self.results.append("%d:%s" % (n, len(f)))

    def header(self, name, value):
        return Milter.CONTINUE

    def eom(self):
        for w in self.workers:
            w.join()
        self.addheader("X-Workers", " ".join(sorted(self.results)))
        return Milter.CONTINUE

    def close(self):
        if self.last:
            done.set()
        return Milter.CONTINUE


def handler(number, frame):
    got.append(number)


def serve():
    Milter.factory = Threaded
    try:
        Milter.runmilter("threaded", sys.argv[1], 60, True)
    finally:
        logging.info("served")


signal.signal(signal.SIGUSR1, handler)
thread = threading.Thread(target=serve, name="server")
thread.start()
while not os.path.exists(sys.argv[1].split(":")[1]):
    done.wait(0.01)
os.chmod(sys.argv[1].split(":")[1], stat.S_IRWXU | stat.S_IRWXG)
os.kill(os.getpid(), signal.SIGUSR1)
done.wait()
Milter.stop()
thread.join()
print(got == [signal.SIGUSR1])
