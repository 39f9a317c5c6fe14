# The classic: parts collected in a file, defanged by mime, put back in pieces.
from __future__ import print_function
import os
import sys
import tempfile
try:
    from io import BytesIO
except ImportError:
    from StringIO import StringIO as BytesIO
import mime
import Milter


class applianceMilter(Milter.Milter):
    "Replaces attachments that are programs by a warning."

    def log(self, *msg):
        print("[%d]" % self.id, end=None)
        for i in msg:
            try:
                print(i, end=None)
            except UnicodeEncodeError:
                print(i.encode("ascii", "replace"), end=None)
        print()

    def __init__(self):
        self.tempname = None
        self.mailfrom = None
        self.fp = None
        self.bodysize = 0
        self.id = Milter.uniqueID()
        self.user = None

    @Milter.noreply
    def envfrom(self, f, *str):
        "start of MAIL transaction"
        self.fp = BytesIO()
        self.tempname = None
        self.mailfrom = f
        self.bodysize = 0
        self.user = self.getsymval("{auth_authen}")
        self.auth_type = self.getsymval("{auth_type}")
        if self.user:
            self.log("user", self.user, "sent mail from", f, str)
        else:
            self.log("mail from", f, str)
        return Milter.CONTINUE

    def envrcpt(self, to, *str):
        # mail that seems to come from its own receiver
        if to == self.mailfrom:
            return Milter.REJECT
        return Milter.Milter.envrcpt(self, to, *str)

    @Milter.decode("bytes")
    def header(self, name, val):
        lname = name.lower()
        if lname in ("subject", "x-mailer"):
            self.log("%s: %r" % (name, val))
        if self.fp:
            self.fp.write(b"%s: %s\n" % (name.encode(), val))
        return Milter.CONTINUE

    def eoh(self):
        if not self.fp:
            return Milter.TEMPFAIL
        self.fp.write(b"\n")
        return Milter.CONTINUE

    def body(self, chunk):
        if self.fp:
            self.fp.write(chunk.replace(b"\r\n", b"\n"))
            self.bodysize += len(chunk)
        return Milter.CONTINUE

    def _headerChange(self, msg, name, value):
        if value:
            self.chgheader(name, 1, value)
        else:
            self.delheader(name)

    def delheader(self, name):
        self.log("without", name)
        self.chgheader(name, 1, "")

    def eom(self):
        if not self.fp:
            return Milter.ACCEPT
        self.fp.seek(0)
        msg = mime.message_from_file(self.fp)
        msg.headerchange = self._headerChange
        if not mime.defang(msg, self.tempname):
            if not msg.ismodified():
                self.log("eom: clean", self.bodysize)
                return Milter.ACCEPT
        self.log("eom: modified", msg.ismodified())
        out = tempfile.TemporaryFile()
        try:
            msg.dump(out)
            out.seek(0)
            while out.readline().strip():
                pass
            while 1:
                buf = out.read(8192)
                if len(buf) == 0:
                    break
                self.replacebody(buf)
        finally:
            out.close()
        return Milter.ACCEPT

    def close(self):
        sys.stdout.flush()
        if self.tempname:
            os.remove(self.tempname)
        if self.fp:
            self.fp.close()
        return Milter.CONTINUE

    def abort(self):
        self.log("abort after %d body chars" % self.bodysize)
        return Milter.CONTINUE


if __name__ == "__main__":
    Milter.factory = applianceMilter
    Milter.set_flags(Milter.CHGBODY + Milter.CHGHDRS + Milter.ADDHDRS)
    print("sample startup")
    sys.stdout.flush()
    Milter.runmilter("appliance", sys.argv[1], 240)
    print("sample shutdown")
