"""Puts itself into the background, writes its number down, changes its umask; ends by itself."""
import os, sys, atexit, signal
import Milter

closed = []


class Daemon(Milter.Base):
    def envfrom(self, f, *params):
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Child", str(os.getpid() != started))
        return Milter.CONTINUE

    def close(self):
        closed.append(1)
        if len(closed) == 6:
            Milter.stop()
        return Milter.CONTINUE


def daemonize():
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir(".")
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)
    with open("pid", "w") as f:
        print(os.getpid(), file=f)
    atexit.register(lambda: os.remove("pid"))


started = os.getpid()
daemonize()
old = os.umask(0o117)
Milter.factory = Daemon
Milter.set_flags(Milter.ADDHDRS)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
Milter.runmilter("daemon", sys.argv[1], 60)
print(oct(old), os.path.exists("pid"), "over")
