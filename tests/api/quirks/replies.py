"""Replies of all sorts; what is wrong with one is an exception at the call."""
import sys
import Milter


class Replies(Milter.Base):
    number = 0

    def attempt(self, *args, **kw):
        try:
            return print("ok", args[0], self.setreply(*args, **kw))
        except Exception as e:
            print(type(e).__name__, args[0])

    def hello(self, name):
        self.attempt("550", "5.7.1", "not used by CONTINUE")
        return Milter.CONTINUE

    def envfrom(self, f, *params):
        self.number += 1
        self.attempt("550", "5.7.1", "single % is refused")
        self.attempt("650", "5.7.1", "no such class")
        self.attempt("250", "2.1.0", "no refusal")
        self.attempt("55", "5.7.1", "short")
        self.attempt(550, "5.7.1", "int")
        self.attempt("550", "x.y.z", "no code")
        self.attempt("550", "5.7.1", "a\nb")
        self.attempt("550", "5.7.1", "x" * 981)
        self.attempt("550", "5.7.1", *["x"] * 33)
        self.attempt("550", "5.7.1", 5)
        return Milter.CONTINUE

    def envrcpt(self, to, *params):
        if "later" in to:
            self.attempt("451", xcode="4.7.1", msg="later")
            return Milter.TEMPFAIL
        if "nobody" in to:
            self.attempt("550", None, "without a second code")
            return Milter.REJECT
        if "hole" in to:
            self.attempt("550", "5.7.1", "5yz and TEMPFAIL do not fit")
            return Milter.TEMPFAIL
        return Milter.CONTINUE

    def eom(self):
        if self.number == 1:
            self.attempt("550", "5.7.1", "Abgelehnt: Gr\u00fc\u00dfe \u2014 \u65e5\u672c\u8a9e", "100%% sicher", "")
            return Milter.REJECT
        if self.number == 2:
            self.attempt("421", "4.7.0", "go away")
            return Milter.TEMPFAIL
        sys.stdout.flush()
        return Milter.CONTINUE


Milter.factory = Replies
Milter.set_flags(0)
Milter.runmilter("replies", sys.argv[1], 10)
