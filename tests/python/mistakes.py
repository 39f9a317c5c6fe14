"""Mistakes that `milterkit check` finds, each beside what looks like it and is none."""

# Check -> methods of a filter, and where the finding is with a piece of its text. The same methods
# also show what is no finding: everything that is not listed.
MISTAKES = {
    "signature": (
        """
        def connect(self, name, family): return Milter.CONTINUE
        def hello(self, name, more=None): return Milter.CONTINUE
        def envfrom(self, sender): return Milter.CONTINUE
        def envrcpt(self, *args): return Milter.CONTINUE
        @Milter.noreply
        def header(self, name, value, index): return Milter.CONTINUE
        @staticmethod
        def eoh(): return Milter.CONTINUE
        def eom(): return Milter.CONTINUE
        """,
        [(1, "connect is called with 3 arguments"), (3, "add *params"), (6, "2 arguments"),
         (9, "no argument")],
    ),
    "name": (
        """
        def helo(self, name): return Milter.CONTINUE
        def envform(self, sender, *params): return Milter.CONTINUE
        def end_of_message(self): return Milter.CONTINUE
        def headers(self): return []
        def body(self, chunk): return len(self.headers()) and Milter.CONTINUE
        def _hello(self): pass
        def report(self): pass
        """,
        [(1, "meant to be hello?"), (2, "meant to be envfrom?"), (3, "meant to be eom?")],
    ),
    "verdict": (
        """
        def connect(self, *args):
            if args[1]:
                return Milter.REJECT
        def hello(self, name): return False
        def envfrom(self, *args): return 5
        def envrcpt(self, *args):
            while True:
                if args: return
        def data(self):
            try:
                return self.other()
            except OSError:
                self.log("no")
        async def header(self, name, value): return Milter.CONTINUE
        def eoh(self): yield Milter.CONTINUE
        def body(self, chunk):
            with open("x") as file:
                if file:
                    raise ValueError
                else:
                    return 0
        def eom(self):
            def helper(): return None
            match self.log:
                case 1: return Milter.ACCEPT
                case _: return helper() or Milter.CONTINUE
        def abort(self): self.log("gone")
        def close(self): pass
        def other(self): pass
        def unknown(self, command):
            if "x" in command: return "x" in command
            if command: return not command or command.startswith("y")
            return command and Milter.REJECT
        """,
        [(1, "connect can end without a return"), (4, "returns False, which counts as CONTINUE"),
         (5, "returns 5"), (8, "returns None"), (9, "data can end without"),
         (14, "header is async"), (15, "eoh is a generator"),
         (31, "unknown returns True or False"), (32, "True counts as REJECT")],
    ),
    "noreply": (
        """
        @Milter.noreply
        def header(self, name, value): return Milter.REJECT
        @Milter.noreply
        def body(self, chunk): return Milter.CONTINUE
        def eoh(self): return Milter.REJECT
        """,
        [(2, "header is @noreply and returns REJECT")],
    ),
    "eom-only": (
        """
        def header(self, name, value):
            self.addheader("X", "y")
            self.mark()
            mark = [].append
            return Milter.CONTINUE
        def body(self, chunk):
            self.mark()
            return Milter.CONTINUE
        def eom(self):
            self.mark()
            self.chgfrom("<a@b>")
            return Milter.CONTINUE
        def mark(self):
            self._ctx.quarantine("because")
            self.delrcpt("a")
        def delrcpt(self, rcpt):
            super().delrcpt(rcpt)
        """,
        [(2, "addheader in header"), (14, "quarantine in mark(), called from header"),
         (17, "delrcpt in delrcpt(), called from header")],
    ),
    "percent": (
        """
        def envfrom(self, *args):
            self.setreply("550", "5.7.1", "100% no", f"50% of {args}")
            self.setreply("550", "5.7.1", "100%% no", "%s" % 1, f"50%% of {args}")
            return Milter.REJECT
        """,
        [(2, "write %%")],
    ),
    "sleep": (
        """
        def eom(self):
            time.sleep(1)
            self.sleep(2)
            self.__wait()
            return Milter.CONTINUE
        def __wait(self): time.sleep(1)
        def sleep(self, seconds): pass
        def close(self): time.sleep(1)
        """,
        [(2, "time.sleep in eom"), (6, "time.sleep in __wait(), called from eom")],
    ),
    "macro": (
        """
        def connect(self, *args):
            for each in (self.getsymval("j"), self.getsymval("{client_port}"), self.getsymval(x)):
                self.getsymval("client_addr")
                self.getsymval("i")
                self.getsymval("{if_name}")
            return Milter.CONTINUE
        @Milter.symlist("{client_ptr}")
        def hello(self, name):
            self.getsymval("{client_ptr}")
            self.getsymval("{auth_authen}")
            return Milter.CONTINUE
        def close(self): self.getsymval("i")
        """,
        [(2, '{client_port} in connect: Postfix and Sendmail send it only if told to: let the '
             'filter ask, by @Milter.symlist("{client_port}") on connect'),
         (3, "needs its braces, {client_addr}"), (4, "Postfix has it from data on"),
         (4, "Sendmail has it from envfrom on"), (5, "Postfix has no such macro"),
         (10, "Postfix and Sendmail have it from envfrom on")],
    ),
    "init": (
        "def __init__(self, limit): self.limit = limit",
        [(1, "an object is made for each connection without arguments")],
    ),
    "hidden": (
        """
        data = ""
        def __init__(self, words=()):
            self.body = b""
            self.eoh = self.quarantine = None
            self.header, self.unknown = [], io.BytesIO()
            self.eom = self.eom_of_friends
            self.envfrom = lambda *args: Milter.CONTINUE
            self.close = functools.partial(print)
            self.envrcpt = words
            self.bodies = self.headers = []
        def hello(self, name):
            self.abort = name
            self.addheader += ", ".join(())
            return Milter.CONTINUE
        def body(self, chunk): return Milter.CONTINUE
        def eom_of_friends(self): return Milter.ACCEPT
        addrcpt = None
        @property
        def connect(self): return lambda *args: Milter.CONTINUE
        """,
        [(1, "data takes the place of the callback data"), (3, "self.body takes the place of the "
         "callback body, and calling it fails"), (4, "self.eoh has the name of the callback eoh"),
         (4, "self.quarantine takes the place of the method quarantine"), (5, "self.header"),
         (5, "self.unknown"), (12, "self.abort")],
    ),
    "unknown": (
        """
        def connect(self, *args): return Milter.ACEPT
        def hello(self, name): return milter.TEMP_FAIL if name else Milter.milter.REJCT
        def envfrom(self, *args):
            self.recipients = []
            self.set_reply("550", "5.7.1", "no")
            self.recipient.append(1)
            self.quarrantine("x")
            if hasattr(self, "add_rcpt"): self.add_rcpt("x")
            return Milter.CONTINUE
        def envrcpt(self, *args):
            try:
                self.del_rcpt("x")
                Milter.NOSUCH
            except AttributeError:
                pass
            self.nothing_like_it()
            Milter.utils.parse_addr("x")
            Milter.greylist
            self.change_from()
            self.__headers()
            return Milter.CONTINUE
        def change_from(self): pass
        def __headers(self): pass
        """,
        [(1, "Milter.ACEPT does not exist: is Milter.ACCEPT meant?"),
         (2, "milter.TEMP_FAIL does not exist: is milter.TEMPFAIL meant?"),
         (2, "Milter.milter.REJCT does not exist: is Milter.milter.REJECT meant?"),
         (5, "self.set_reply does not exist: is self.setreply meant?"),
         (6, "self.recipient does not exist: is self.recipients meant?"),
         (7, "is self.quarantine meant?")],
    ),
    "step": (
        """
        def connect(self, *args): return Milter.DISCARD
        def hello(self, name): return Milter.SKIP if name else Milter.CONTINUE
        def envfrom(self, *args): return self.verdict()
        def verdict(self): return self.setreply("550") or Milter.SKIP
        def envrcpt(self, *args): return Milter.DISCARD
        def header(self, *args): return Milter.SKIP
        def body(self, chunk): return Milter.SKIP
        def eom(self): return Milter.SKIP
        """,
        [(1, "Postfix ignores it"), (2, "Sendmail takes the filter out of the whole connection"),
         (4, "envfrom returns SKIP"), (8, "nothing left to skip")],
    ),
    "raises": (
        """
        @Milter.noreply
        def connect(self, name, family, hostaddr):
            self.ip = hostaddr[0]
            return Milter.CONTINUE
        @Milter.noreply
        @Milter.decode("bytes")
        def header(self, name, value):
            value.decode()
            value.decode("utf-8", "replace")
            value.decode("latin-1")
            value.decode(errors="replace"); name.encode("utf-8", "replace").decode()
            try: value.decode()
            except UnicodeDecodeError: pass
            self.headers["Subject"]
            self.headers["To"] = 1
            self.headers["To"]
            if "Cc" in self.headers: self.headers["Cc"]
            self.settings["limit"]
            return Milter.CONTINUE
        @Milter.decode("bytes")
        def envfrom(self, f, *params):
            f.decode()
            return Milter.CONTINUE
        """,
        [(3, "hostaddr may be None"), (8, "decode() raises for bytes of another encoding"),
         (14, "a message may lack 'Subject' in self.headers")],
    ),
    "header": (
        r"""
        def eom(self):
            self.addheader("X Y", "v")
            self.addheader("X:", "v")
            self.addheader("", "v")
            self.addheader("Sübject", "v")
            self.addheader("X", "a\nb")
            self.addheader("X", 5)
            self.addheader("X", None)
            self.chgheader("X", 1, "a\rb")
            self.addheader("X", "a\n b\r\n\tc\n")
            self.addheader("X", "Grüße", 0)
            self.addheader("X", str(5))
            self.chgheader("X", 1, None)
            self.addheader(self.name, b"v")
            return Milter.CONTINUE
        """,
        [(2, "'X Y': it is refused"), (3, "'X:'"), (4, "''"), (5, "'Sübject'"),
         (6, "does not start with white space"), (7, "5: it must be a str"), (8, "None"),
         (9, "a NUL or a CR")],
    ),
    "index": (
        """
        def eom(self):
            self.chgheader("Subject", 0, "x")
            self.chgheader("Subject", -1, "x")
            self.chgheader("Subject", 1, "x")
            self.addheader("X", "y", 0)
            return Milter.CONTINUE
        """,
        [(2, "counted from 1"), (3, "it is refused")],
    ),
    "ascending": (
        """
        def eom(self):
            for n in range(1, self.count + 1): self.chgheader("X", n, "")
            for n, value in enumerate(self.values, 1):
                if value: self.chgheader("X", n, None)
            for _ in range(3): self.chgheader("X", 1, "")
            self.chgheader("Y", 1, "")
            self.chgheader("Y", 2, "")
            for n in range(self.count, 0, -1): self.chgheader("X", n, "")
            for n in reversed(range(1, 3)): self.chgheader("X", n, "")
            for n in range(1, 3): self.chgheader("X", n, "other")
            for name in self.names: self.chgheader(name, 1, "")
            for n, name in enumerate(self.names): self.chgheader(name, n, "")
            for n in range(1, 3):
                self.chgheader("X", n, "")
                break
            self.chgheader("Z", 2, "")
            self.chgheader("Z", 1, "")
            return Milter.CONTINUE
        """,
        [(2, "delete from the last to the first"), (4, ""), (5, ""), (7, "")],
    ),
    "reply": (
        r"""
        def eom(self):
            self.setreply("550", "4.7.1", "no")
            self.setreply("250", "2.0.0", "yes")
            self.setreply(550, "5.7.1", "no")
            self.setreply("550", "5.7", "no")
            self.setreply("550", "5.7.1", "two\nlines")
            self.setreply("550", "5.7.1", "x" * 981)
            self.setreply("550", xcode="4.0.0", msg="no")
            self.setreply("450" if self.soft else "550", "4.2.1" if self.soft else "5.1.1", "no")
            self.setreply("550", None, "no")
            self.setreply("421", "4.7.0", "tab\tand \u20ac")
            self.setreply("550")
            return Milter.REJECT
        """,
        [(2, "550 and 4.7.1: they are of different classes and are refused; write 5.7.1"),
         (3, "'250': the code must be 4yz or 5yz"), (4, 'write "550"'), (5, "must be like 5.7.1"),
         (6, "a line end"), (8, "write 5.0.0")],
    ),
    "reply-class": (
        """
        def envfrom(self, *args):
            if args:
                self.setreply("550", "5.7.1", "no")
                self.log("no")
                return Milter.TEMPFAIL
            self.setreply("451", "4.7.1", "later")
            return Milter.REJECT
        def envrcpt(self, *args):
            self.setreply("451", "4.7.1", "later")
            if args: self.setreply("550", "5.7.1", "no")
            return Milter.REJECT
        def eom(self):
            if self.soft: return self.setreply("550") or Milter.TEMPFAIL
            self.setreply(self.code)
            return Milter.TEMPFAIL
        """,
        [(5, "TEMPFAIL after setreply with 550: the text is not used; return REJECT"),
         (7, "REJECT after setreply with 451: the text is not used; return TEMPFAIL"), (13, "")],
    ),
    "reply-unused": (
        """
        def hello(self, name):
            self.setreply("550", "5.7.1", "for envfrom")
            return Milter.CONTINUE
        def envfrom(self, *args):
            self.setreply("550", "5.7.1", "no")
            return Milter.ACCEPT if args else Milter.REJECT
        def envrcpt(self, *args): return Milter.REJECT
        def eom(self):
            self.setreply("451", "4.7.1", "no")
            return Milter.CONTINUE
        """,
        [(6, "ACCEPT after setreply: the reply is not used; return REJECT"),
         (10, "CONTINUE after setreply: the reply is not used; return TEMPFAIL")],
    ),
    "reply-unseen": (
        """
        def connect(self, *args):
            self.setreply("550", "5.7.1", "no")
            self.setreply("421")
            return Milter.REJECT
        def hello(self, name):
            self.setreply("550", "5.7.1", "no")
            return Milter.REJECT
        """,
        [(2, "no client sees the text")],
    ),
    "braces": (
        """
        @Milter.symlist("auth_authen", "i", "_", "{auth_type}")
        def envfrom(self, *args): return Milter.CONTINUE
        @Milter.noreply
        @Milter.symlist("i {x} client_port")
        def connect(self, *args): return Milter.CONTINUE
        def negotiate(self, opts):
            self.setsymlist(Milter.M_EOM, "{mail_addr}", "mail_host")
            return Milter.CONTINUE
        """,
        [(1, "{auth_authen}"), (4, "{client_port}"), (7, "{mail_host}")],
    ),
    "thread": (
        """
        here = threading.local()
        def again(self):
            self.reopened = sqlite3.connect("x")
            self.reopened.execute("")
        def __init__(self):
            self.db = sqlite3.connect("x")
            self.shared = sqlite3.connect("x", check_same_thread=False)
            self.mine = threading.local()
        def envfrom(self, *args):
            self.here.sender = self.here.hops = args
            self.mine.x = 1
            return Milter.CONTINUE
        def eom(self):
            self.db.execute("")
            self.shared.execute("")
            own = sqlite3.connect("x")
            own.execute("")
            self.again()
            self.here.hops = 1
            return Milter.CONTINUE if self.here.sender or self.here.hops else self.mine.x
        """,
        [(6, "self.db is a connection of sqlite3"), (20, "self.here.sender is of a thread, and "
         "eom may run in another one than envfrom"), (20, "self.mine.x")],
    ),
    "state": (
        """
        def __init__(self):
            self.rcpts = []
            self.headers, self.seen = {}, {}
            self.count = self.size = self.messages = 0
            self.user = self.buffer = None
            self.last = self.first = self.note = self.db = None
            self.never = []
        def connect(self, name, family, address):
            self.spam = self.ham = self.friend = self.foe = False
            self.parts = []
            self.client = name
            self.shared = SHARED
            return Milter.CONTINUE
        def envfrom(self, *args):
            self.headers = {}
            self.seen["sender"] = args
            self.messages += 1
            if self.user is None: self.user = self.getsymval("i")
            self.ham = False
            if self.client in SHARED: self.friend = True
            if args[0] in SHARED: self.foe = True
            self.buffer = io.BytesIO()
            return Milter.CONTINUE
        def envrcpt(self, to, *args):
            self.rcpts.append(to)
            return Milter.CONTINUE
        def header(self, name, value):
            self.headers[name] = value
            if value == "x":
                self.spam = True
                self.ham = True
            self.parts.append(value)
            self.shared.add(name)
            self.last = value
            self.never.append(value)
            if self.first is None:
                self.first = value
            if value == "x":
                self.note = True
            return Milter.CONTINUE
        def body(self, chunk):
            self.size += len(chunk)
            self.buffer.write(chunk)
            return Milter.CONTINUE
        def eom(self):
            if self.spam or self.ham or self.size or self.rcpts or self.parts or self.seen:
                self.log(self.client, self.messages, self.user, self.buffer, self.friend, self.foe)
            if self.note:
                self.note = None
            if self.db is None:
                self.db = open("x")
            self.log(self.last, self.first, self.db)
            return self.finish()
        def abort(self):
            return self.finish()
        def finish(self):
            self.parts.clear()
            return Milter.CONTINUE
        """,
        [(21, "self.foe"), (25, "self.rcpts is set for the connection only"), (30, "self.spam"),
         (37, "self.first"), (42, "self.size")],
    ),
}  # fmt: skip
