"""An example filter: SPF (RFC 7208). Notes in a header whether a client may send for its domain.

    SPF_REJECT=yes milterkit run examples/spf_check.py --socket unix:/run/spf_check.sock

It needs pyspf and dnspython: pip install "milterkit[spf]"
"""

import os
import re
import socket

import Milter
import spf  # pip install "milterkit[spf]"
from Milter.dns import DNSError, DNSLookup
from Milter.utils import iniplist

REJECT = os.environ.get("SPF_REJECT", "no") == "yes"  # mail that the domain disowns
SECONDS = 20  # for all look-ups of a message; a slow one holds up no other connection
# One's own mail servers: their mail was checked before, and they may have said so.
RELAYS = ("127.0.0.0/8", "::1")


def look_up(name, kind, _strict, seconds):
    """How pyspf asks the DNS. Its own way calls what dnspython is going to remove, and lets out
    exceptions for what clients give as names."""
    try:
        return DNSLookup(name, kind, lifetime=seconds)
    except DNSError as error:
        raise spf.TempError(str(error)) from error


spf.DNSLookup = look_up


class SpfCheck(Milter.Base):
    def connect(self, _hostname, family, hostaddr):
        if family not in (socket.AF_INET, socket.AF_INET6) or iniplist(hostaddr[0], RELAYS):
            return Milter.ACCEPT
        self.ip = hostaddr[0]
        self.helo = ""
        # The name under which results are noted is the MTA's.
        self.authserv_id = (self.getsymval("j") or socket.gethostname()).lower()
        return Milter.CONTINUE

    @Milter.noreply
    def hello(self, name):
        self.helo = name
        return Milter.CONTINUE

    def envfrom(self, sender, *_params):
        self.forged = []  # one object serves all messages of a connection
        self.results = 0
        self.verdict = None
        if self.getsymval("{auth_authen}"):
            return Milter.CONTINUE  # one's own user, from wherever; no SPF, but see eom
        # pyspf takes what follows the first "@" for the domain; it may be quoted before the last.
        user, _, domain = sender.strip("<>").rpartition("@")
        address = f"{user.replace('@', '.')}@{domain}" if domain else ""
        query = spf.query(self.ip, address, self.helo, querytime=SECONDS)
        result = query.check()[0]
        if result == "fail" and REJECT:
            # The words are our own: what the domain says instead could be anything.
            text = f"{self.ip} may not send mail for {word(query.o)}, says its SPF record"
            self.setreply("550", "5.7.23", text.replace("%", "%%"))
            return Milter.REJECT
        identity = "helo" if query.ident == "helo" else "mailfrom"
        self.verdict = f"spf={result} smtp.{identity}={word(query.o)}"
        return Milter.CONTINUE

    @Milter.noreply
    def header(self, name, value):
        if name.lower() == "authentication-results":
            self.results += 1
            # Results in our name that we did not write are forged (RFC 8601, 5). The name may
            # stand behind comments and with backslashes: all that has it anywhere goes.
            if self.authserv_id in value.replace("\\", "").lower():
                self.forged.append(self.results)
        return Milter.CONTINUE

    def eom(self):
        for index in reversed(self.forged):  # from the last one: the others move
            self.chgheader("Authentication-Results", index, None)
        if self.verdict:
            self.addheader("Authentication-Results", f"{self.authserv_id}; {self.verdict}", 0)
        return Milter.CONTINUE


def word(text):
    """What a client said, so that it can stand as one word in a header and in a reply."""
    if re.fullmatch(r"[A-Za-z0-9._-]+", text):
        return text
    return '"' + re.sub(r"[^ !#-\[\]-~]", "?", text) + '"'


if __name__ == "__main__":
    Milter.factory = SpfCheck
    Milter.runmilter("spf_check", "inet:8894@127.0.0.1")
