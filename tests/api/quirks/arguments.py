"""Each action with whatever may come to it: nothing, None, numbers, text of other alphabets."""
import itertools, sys
import Milter

TEXTS = ["", "a", "é", None, 5, ["a"], "a\n b"]
NUMBERS = [0, 1, -1, True, None, "1", 1.5, 2**31]
CALLS = [
    *(("addheader", "X", text) for text in TEXTS),
    *(("addheader", "X", "v", number) for number in NUMBERS),
    *(("chgheader", "X", number, "v") for number in NUMBERS),
    *(("chgheader", "X", 1, text) for text in TEXTS),
    *((name, text) for name in ("addrcpt", "delrcpt", "chgfrom", "quarantine") for text in TEXTS[:-1]),
    *((name, "<a@b>", text) for name in ("addrcpt", "chgfrom") for text in TEXTS[:-1]),
    *(("getsymval", text) for text in [*TEXTS, "i", "{i}", "{", "mail_addr", "{mail_addr}"]),
    *(("replacebody", text) for text in [*TEXTS, b"", b"x" * 70000]),
    *(("setreply", code, "5.7.1", "no") for code in ["550", "55", "5500", "abc", "350", 550, ""]),
    *(("setreply", "550", code, "no") for code in [None, "", "5", "5.7", "5.7.1.1", "5.7.1000", "5.a.1"]),
    *(("setreply", "550", "5.7.1", *["no"] * lines) for lines in (1, 2, 32, 33)),
    *(("setreply", "550", "5.7.1", text) for text in ["x" * 980, "x" * 981, "a\nb", "50%% off", "50%", 5]),
    ("addheader", "X"), ("chgheader", "X", 1), ("progress", 1), ("addrcpt",), ("setsymlist",),
]


class Tried(Milter.Base):
    def connect(self, hostname, family, hostaddr):
        self.tried("setreply", "421", "4.3.0", "later")
        return Milter.CONTINUE

    def envfrom(self, sender, *params):
        self.tried("addheader", "X", "too early")
        return Milter.CONTINUE

    def tried(self, name, *arguments):
        try:
            result = getattr(self, name)(*arguments)
        except Exception as error:
            result = type(error).__name__
        print(name, repr(arguments)[:80], result, flush=True)

    def eom(self):
        for call in CALLS:
            self.tried(*call)
        return Milter.REJECT


Milter.factory = Tried
Milter.runmilter("arguments", sys.argv[1], 60)
