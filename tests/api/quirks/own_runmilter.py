"""Brings a runmilter of its own, so that the socket's mode is set between opensocket and main, and
counts by what the package counts with."""
import os, sys
import Milter
from Milter import milter


class Numbered(Milter.Base):
    def __init__(self):
        self.id = Milter.uniqueID()

    def connect(self, hostname, family, hostaddr):
        with Milter._seq_lock:
            Milter._seq += 10
        print("connect", self.id > 0, Milter._seq >= self.id, Milter.uniqueID() > self.id, flush=True)
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Mode", oct(os.stat(path).st_mode & 0o777))
        return Milter.ACCEPT


def serve(name, socketname):
    milter.set_flags(Milter.CURR_ACTS)
    milter.set_connect_callback(Milter.connect_callback)
    milter.set_envfrom_callback(lambda ctx, *args: ctx.getpriv().envfrom_bytes(*args))
    milter.set_envrcpt_callback(lambda ctx, *args: ctx.getpriv().envrcpt_bytes(*args))
    milter.set_eom_callback(lambda ctx: ctx.getpriv().eom())
    milter.set_close_callback(Milter.close_callback)
    milter.setconn(socketname)
    milter.register(name, negotiate=Milter.negotiate_callback)
    milter.opensocket(True)
    os.chmod(path, 0o660)
    before = Milter._seq
    try:
        milter.main()
    except milter.error:
        if before == Milter._seq:
            raise
        print("main ended", flush=True)


Milter.factory = Numbered
path = sys.argv[1].partition(":")[2]
serve("own", sys.argv[1])
print("served", flush=True)
