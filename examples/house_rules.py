"""An example filter: rules that a small company could have for the mail it receives.

Run it with `milterkit run examples/house_rules.py --socket unix:/run/house_rules.sock`.
"""

import Milter


class HouseRules(Milter.Base):
    def envfrom(self, _sender, *_params):
        self.subject = ""  # one object serves all messages of a connection
        self.text = []
        return Milter.CONTINUE

    def envrcpt(self, rcpt, *_params):
        if rcpt.lower() == "<intern@example.org>":
            self.setreply("550", "5.1.1", "The intern has left; write to jobs@example.org")
            return Milter.REJECT
        return Milter.CONTINUE

    @Milter.noreply
    def header(self, name, value):
        if name.lower() == "subject":
            self.subject = value
        return Milter.CONTINUE

    @Milter.noreply
    def body(self, chunk):
        self.text.append(chunk)
        return Milter.CONTINUE

    def eom(self):
        if "lottery" in self.subject.lower():
            return Milter.DISCARD
        text = b"".join(self.text)
        if b"your password" in text:
            self.quarantine("asks for a password")
        if b"http://intranet" in text:
            self.replacebody(text.replace(b"http://intranet", b"https://intranet"))
        if self.getsymval("{auth_authen}") is None:
            self.chgheader("Subject", 1, f"[external] {self.subject}")
        self.addheader("X-House-Rules", "checked")
        return Milter.CONTINUE


if __name__ == "__main__":
    Milter.factory = HouseRules
    Milter.runmilter("house_rules", "inet:8894@127.0.0.1")
