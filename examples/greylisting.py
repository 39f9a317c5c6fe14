"""An example filter: greylisting (RFC 6647). Who is new is told to come again; spam rarely does.

    GREYLIST_DATABASE=/var/lib/greylist/greylist.db \\
        milterkit run examples/greylisting.py --socket unix:/run/greylisting.sock
"""

import logging
import os
import socket
import sqlite3
import time
from ipaddress import ip_interface

import Milter
from Milter.greysql import Greylist
from Milter.utils import iniplist

DATABASE = os.environ.get("GREYLIST_DATABASE", "/var/lib/greylist/greylist.db")
MINUTES = float(os.environ.get("GREYLIST_MINUTES", "10"))
# Addresses, networks, patterns and names of hosts that never wait.
WELCOME = ("127.0.0.0/8", "::1", "10.0.0.0/8", "192.168.0.0/16")
CLEANING = 3600  # seconds between two

GREYLIST = Greylist(DATABASE, grey_time=MINUTES, grey_expire=6, grey_retain=36)

log = logging.getLogger("greylisting")


class Greylisting(Milter.Base):
    cleaned = time.monotonic()  # of the class: one for all connections

    def connect(self, _hostname, family, hostaddr):
        if family not in (socket.AF_INET, socket.AF_INET6) or iniplist(hostaddr[0], WELCOME):
            return Milter.ACCEPT  # all of this connection; nothing more is sent to us
        # Large senders come again from another machine of theirs: the network counts.
        bits = 24 if family == socket.AF_INET else 64
        self.network = str(ip_interface(f"{hostaddr[0]}/{bits}").network)
        return Milter.CONTINUE

    def envfrom(self, sender, *_params):
        if self.getsymval("{auth_authen}"):
            return Milter.ACCEPT  # this message; the next one may come after a logout
        self.sender = sender.lower()
        return Milter.CONTINUE

    def envrcpt(self, recipient, *_params):
        try:
            self.clean_now_and_then()
            count = GREYLIST.check(self.network, self.sender, recipient.lower())
        except sqlite3.Error as error:
            # Without the list, mail comes in as if there were none: that is better than no mail.
            log.error("%s: %s", DATABASE, error)
            return Milter.CONTINUE
        if count == 0:
            self.setreply("451", "4.7.1", f"New here: please come again in {MINUTES:g} minutes")
            return Milter.TEMPFAIL
        return Milter.CONTINUE

    @classmethod
    def clean_now_and_then(cls):
        # Two threads may both find that it is time; then it is done twice, which does no harm.
        if time.monotonic() - cls.cleaned > CLEANING:
            cls.cleaned = time.monotonic()
            log.info("forgot %d old entries", GREYLIST.clean())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Milter.factory = Greylisting
    Milter.runmilter("greylisting", "inet:8894@127.0.0.1")
