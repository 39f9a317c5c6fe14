"""Gives each mail a case number, takes programs and scripts out of it, and says which headers that
touched. What it logs has the number in front."""
import io, sys, tempfile
import Milter, mime

PIECE = 1000
UNWANTED = [b"subject", b"x-two"]


class Case(Milter.Milter):
    client = "?"

    def __init__(self):
        self.id = Milter.uniqueID()
        self.people, self.found, self.touched = [], {}, []
        self.mail = None

    def log(self, *words):
        print("case", self.id, *["%s" % (word,) for word in words], flush=True)

    def connect(self, str, int, tuple):
        self.client = str
        return Milter.Milter.connect(self, str, int, tuple)

    def hello(self, str):
        self.log(self.client, "says", str)
        return Milter.CONTINUE

    def envfrom(self, str, *list):
        self.people[:] = [str]
        self.found = {}
        self.mail = io.BytesIO()
        return super(Case, self).envfrom(str, *list)

    def envrcpt(self, str, *list):
        self.people.append(str)
        return Milter.Milter.envrcpt(self, str, *list)

    @Milter.decode("bytes")
    def header(self, str, bytes):
        name = str if isinstance(str, type(b"")) else str.encode("utf-8", "surrogateescape")
        self.mail.write(name + b": " + bytes + b"\n")
        self.found[name.lower()] = self.found.get(name.lower(), 0) + 1
        return Milter.CONTINUE

    def eoh(self):
        self.mail.write(b"\n")
        return Milter.Milter.eoh(self)

    def body(self, bytes):
        self.mail.write(bytes)
        return Milter.CONTINUE

    def touch(self, msg, name, value):
        self.touched.append((name, value))
        if value is None:
            self.chgheader(name, 1, "")
        else:
            self.chgheader(name, 1, value)

    def clean(self):
        lines = self.mail.getvalue().replace(b"\r\n", b"\n")
        msg = mime.message_from_file(io.BytesIO(lines))
        msg.headerchange = self.touch
        changed = mime.defang(msg)
        for name in UNWANTED:
            if self.found.get(name, 0) > 1 or name == b"subject" and "bad" in self.people[0]:
                self.chgheader(name.decode(), 1, "")
                del msg[name.decode()]
        self.log("defang", changed, "modified", msg.ismodified(), sorted(self.found.items()))
        if changed:
            with tempfile.TemporaryFile() as copy:
                msg.dump(copy)
                copy.seek(0)
                while copy.readline().strip():
                    pass
                for piece in iter(lambda: copy.read(PIECE), b""):
                    self.replacebody(piece)

    def eom(self):
        try:
            self.clean()
            self.addheader("X-Case", "%s of %s" % (len(self.people), self.client))
            verdict = Milter.ACCEPT
        except Milter.error as error:
            verdict = Milter.TEMPFAIL
            self.log("not done", type(error).__name__)
        self.log("touched", self.touched, "->", verdict)
        self.touched = []
        self.mail = None
        return verdict

    def abort(self):
        self.log("given up", self.people, self.mail is None)
        return Milter.CONTINUE


if __name__ == "__main__":
    name, socket, seconds = "casework", sys.argv[1], 600
    Milter.factory = Case
    Milter.set_flags(Milter.ADDHDRS + Milter.CHGHDRS + Milter.CHGBODY)
    Milter.runmilter(name, socket, seconds)
    print("closed", name, flush=True)
