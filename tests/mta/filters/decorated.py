"""A filter with no-reply steps, macro lists and the other decorators, in the way of many programs.

Usage: decorated.py SOCKET FOLDER. Tells in headers that it adds what it saw: which macros, how many
recipients (refused ones too), what was negotiated, a header with its leading space.
"""

import sys

import Milter


@Milter.rejected_recipients
@Milter.header_leading_space
class Decorated(Milter.Base):
    """Counts without replies, tells at the end."""

    def __init__(self) -> None:
        self.told = {}

    @Milter.noreply
    @Milter.symlist("{client_port}", "j", "{daemon_port}")
    def connect(self, hostname, family, hostaddr):  # type: ignore[no-untyped-def]
        self.told["Connect"] = f"{self.getsymval('{client_port}') == str(hostaddr[1])}"
        return Milter.CONTINUE

    @Milter.noreply
    def hello(self, name):  # type: ignore[no-untyped-def]
        self.told["Hello"] = name
        return Milter.CONTINUE

    @Milter.noreply
    def envfrom(self, sender, *params):  # type: ignore[no-untyped-def]
        self.rcpts = []
        self.lines = 0
        return Milter.CONTINUE

    @Milter.symlist("{rcpt_mailer}", "{rcpt_addr}", "{rcpt_host}")
    @Milter.noreply
    def envrcpt(self, rcpt, *params):  # type: ignore[no-untyped-def]
        mailer = "refused" if self.getsymval("{rcpt_mailer}") == "error" else "taken"
        self.rcpts.append(f"{rcpt} {mailer}")
        return Milter.CONTINUE

    @Milter.noreply
    @Milter.decode("bytes")
    def header(self, field, value):  # type: ignore[no-untyped-def]
        if field == "Subject":
            self.told["Subject"] = repr(value)
        return Milter.CONTINUE

    @Milter.noreply
    def body(self, chunk):  # type: ignore[no-untyped-def]
        self.lines += chunk.count(b"\n")
        return Milter.CONTINUE

    @Milter.symlist("{mail_addr}", "i", "{client_addr}")
    def eom(self):  # type: ignore[no-untyped-def]
        told = {
            **self.told,
            "Rcpts": ", ".join(self.rcpts),
            "Lines": str(self.lines),
            "Macros": f"{self.getsymval('{mail_addr}')} {self.getsymval('i')}"
            f" {self.getsymval('{client_addr}')}",
            "Protocol": f"{self._protocol:#x}",
        }
        for name, value in told.items():
            self.addheader(f"X-{name}", f" {value}")
        return Milter.CONTINUE


Milter.factory = Decorated
Milter.runmilter("decorated", sys.argv[1], 60)
