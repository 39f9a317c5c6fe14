"""Changes the envelope; keeps what it wants to change until eom; names of its own for actions."""
import sys
import Milter as M
from milter import ADDRCPT, DELRCPT, CHGFROM, QUARANTINE, ADDHDRS
from Milter.utils import parseaddr


class Envelope(M.Milter):
    seen = {}

    def log(self, *msg):
        pass

    def connect(self, hostname, unused, hostaddr):
        self.peer = hostaddr and hostaddr[0]
        return M.Milter.connect(self, hostname, unused, hostaddr)

    def envfrom(self, f, *str):
        self.sender, self.rcpts, self.new_headers = f, [], []
        if f == "<>":
            self.setreply("554", "5.7.1", "no bounces", "at all")
            return M.CONTINUE
        return super().envfrom(f, *str)

    def envrcpt(self, to, *str):
        local = to.strip("<>").split("@")[0]
        if local == "nobody":
            self.setreply('550', '5.1.1', '<nobody>: User unknown in 100%% of the cases')
            return M.REJECT
        if local == "later":
            self.setreply("451", "4.7.1", "Come back", "later")
            return M.TEMPFAIL
        if local == "hole":
            return M.DISCARD
        self.rcpts.append(to)
        return M.CONTINUE

    def delrcpt(self, *rcpts):
        for rcpt in rcpts:
            M.Milter.delrcpt(self, rcpt)

    def addrcpt(self, to, **kw):
        M.Milter.addrcpt(self, to, kw.get("params"))

    def add_header(self, name, val, idx=-1):
        self.new_headers.append((name, val, idx))

    def eom(self):
        self.add_header("X-Peer", str(self.peer))
        self.add_header("X-Sender", parseaddr(self.sender)[1] or "none", 0)
        self.delrcpt(*self.rcpts)
        self.addrcpt("<all@example.org>")
        self.addrcpt("archive@example.org", params="NOTIFY=NEVER")
        for name, val, idx in self.new_headers:
            self.addheader(name, val, idx)
        self.chgfrom("<bounces@example.org>", "SIZE=10 BODY=8BITMIME")
        self.chgfrom("<>")
        if len(self.rcpts) > 1:
            self.quarantine("too many: %d" % len(self.rcpts))
        try:
            self.chgheader("Subject", 1, "not negotiated")
        except M.DisabledAction as e:
            self.addheader("X-Disabled", str(e))
        try:
            self.replacebody(b"not negotiated")
        except (RuntimeError, M.error) as e:
            self.addheader("X-Disabled-Too", type(e).__name__)
        return M.ACCEPT


M.factory = Envelope
M.set_flags(ADDRCPT | DELRCPT | CHGFROM | QUARANTINE | ADDHDRS | M.ADDRCPT_PAR)
M.runmilter("envelope", sys.argv[1], rmsock=False)
print("end")
