"""An example filter: signs the mail of one's own users by DKIM (RFC 6376).

    DKIM_DOMAIN=example.org DKIM_SELECTOR=mail DKIM_KEY=/etc/dkim/mail.pem \\
        milterkit run examples/dkim_sign.py --socket unix:/run/dkim_sign.sock

It needs dkimpy: pip install "milterkit[dkim]"
"""

import logging
import os
import socket
from pathlib import Path

import dkim  # pip install "milterkit[dkim]"
import Milter
from Milter.utils import iniplist, parseaddr

DOMAIN = os.environ.get("DKIM_DOMAIN", "example.org")
SELECTOR = os.environ.get("DKIM_SELECTOR", "mail")
# Read once: a file that is missing shows when the filter starts, not at the first message.
KEY = Path(os.environ.get("DKIM_KEY", "/etc/dkim/mail.pem")).read_bytes()
# Clients whose mail is signed without a login.
LOCAL = ("127.0.0.0/8", "::1", "10.0.0.0/8", "192.168.0.0/16")
# Of headers and body: mail servers on the way may fold headers otherwise, but keep the body.
CANONICALIZE = (dkim.Relaxed, dkim.Simple)

log = logging.getLogger("dkim_sign")


@Milter.header_leading_space  # values come as they stand in the message, and go so
class DkimSign(Milter.Base):
    @Milter.noreply
    def connect(self, _hostname, family, hostaddr):
        is_ip = family in (socket.AF_INET, socket.AF_INET6)
        self.is_local = is_ip and iniplist(hostaddr[0], LOCAL)
        # An old MTA knows no other form than with one space, which it takes off and puts on.
        self.space = b"" if self._protocol & Milter.P_HDR_LEADSPC else b" "
        return Milter.CONTINUE

    def envfrom(self, _sender, *_params):
        if not (self.is_local or self.getsymval("{auth_authen}")):
            return Milter.ACCEPT  # the rest of this message is not even sent to us
        self.message = []  # one object serves all messages of a connection
        self.authors = []
        return Milter.CONTINUE

    @Milter.noreply
    @Milter.decode("bytes")  # what is signed are bytes, UTF-8 or not
    def header(self, name, value):
        if name.lower() == "from":
            self.authors.append(value.decode("utf-8", "replace"))
        # Folds are LF here, and CRLF in the message as it is sent.
        value = self.space + value.replace(b"\n", b"\r\n")
        self.message.append(b"%s:%s\r\n" % (name.encode("utf-8", "surrogateescape"), value))
        return Milter.CONTINUE

    @Milter.noreply
    def eoh(self):
        self.message.append(b"\r\n")
        return Milter.CONTINUE

    @Milter.noreply
    def body(self, chunk):
        self.message.append(chunk)
        return Milter.CONTINUE

    def eom(self):
        # A signature says that the author's domain vouches for the message. Several authors are
        # no honest mail: programs differ on which one they show.
        domains = [parseaddr(author)[1].rpartition("@")[2].lower() for author in self.authors]
        if domains != [DOMAIN.lower()]:
            return Milter.CONTINUE
        try:
            field = dkim.DKIM(b"".join(self.message)).sign(
                SELECTOR.encode(), DOMAIN.encode(), KEY, canonicalize=CANONICALIZE
            )
        except dkim.MessageFormatError as error:  # it goes its way, without a signature
            log.warning("%s: not signed: %s", self.getsymval("i"), error)
            return Milter.CONTINUE
        name, _, value = field.decode("ascii").partition(":")
        # On top of all headers, so that it stands above the ones it covers.
        self.addheader(name, value.removeprefix(self.space.decode()), 0)
        return Milter.CONTINUE


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Milter.factory = DkimSign
    Milter.runmilter("dkim_sign", "inet:8894@127.0.0.1")
