"""A program's own tests, in the style of the package's: contexts and mixins that stand in."""
import io, os, sys, unittest
import Milter
import mime
from Milter import testctx
from Milter.test import TestBase

os.makedirs("test", exist_ok=True)
MESSAGE = (b"From: a@b\nSubject: test\nContent-Type: multipart/mixed; boundary=x\n\n"
           b"--x\n\ntext\n--x\nContent-Type: application/x; name=\"bad.exe\"\n\nMZ\n--x--\n")
with open("test/virus", "wb") as f:
    f.write(MESSAGE)
with open("test/plain", "wb") as f:
    f.write(b"From: a@b\nSubject: test\n\ntext\n")


class Sample(Milter.Milter):
    def __init__(self):
        self.fp = None
        self.id = Milter.uniqueID()

    def log(self, *msg):
        if not msg[0].startswith("connect"):
            print(*msg)

    def hello(self, name):
        if name == "bad":
            self.setreply("550", "5.7.1", "bad", "name")
            return Milter.REJECT
        return Milter.CONTINUE

    def envfrom(self, f, *str):
        self.fp = io.BytesIO()
        self.sender = f
        return Milter.CONTINUE

    @Milter.decode("bytes")
    def header(self, name, val):
        self.fp.write(b"%s: %s\n" % (name.encode(), val))
        return Milter.CONTINUE

    def eoh(self):
        self.fp.write(b"\n")
        return Milter.CONTINUE

    def body(self, chunk):
        self.fp.write(chunk)
        return Milter.CONTINUE

    def eom(self):
        self.fp.seek(0)
        msg = mime.message_from_file(self.fp)
        msg.headerchange = lambda m, name, value: self.chgheader(name, 1, value or "")
        if mime.defang(msg, "saved"):
            self.replacebody(msg.as_bytes().split(b"\n\n", 1)[1])
            self.addheader("X-Defanged", "yes")
        if self.getsymval("{auth_authen}"):
            self.addrcpt("<all@b>")
            self.delrcpt("<victim@lamb.com>")
            self.chgfrom("<new@b>")
        return Milter.ACCEPT


class TestSample(TestBase, Sample):
    def __init__(self):
        TestBase.__init__(self)
        Sample.__init__(self)


class ContextCase(unittest.TestCase):
    def setUp(self):
        Milter.factory = Sample

    def test_virus(self):
        ctx = testctx.TestCtx()
        self.assertEqual(ctx._connect(), Milter.CONTINUE)
        milter = ctx.getpriv()
        self.assertTrue(isinstance(milter, Sample))
        self.assertTrue(milter._ctx is ctx)
        self.assertEqual(ctx._feedMsg("virus"), Milter.ACCEPT)
        self.assertTrue(ctx._bodyreplaced)
        self.assertTrue(ctx._headerschanged)
        self.assertEqual(ctx._msg["X-Defanged"], "yes")
        ctx._body.seek(0)
        self.assertIn(b"WARNING.TXT", ctx._body.read())
        self.assertTrue(ctx._reply is None)
        ctx._close()

    def test_plain(self):
        ctx = testctx.TestCtx()
        ctx._setsymval("{auth_authen}", "batman")
        self.assertEqual(ctx._connect(helo="good"), Milter.CONTINUE)
        with open("test/plain", "rb") as fp:
            self.assertEqual(ctx._feedFile(fp, "x@y", "z@w", "v@w"), Milter.ACCEPT)
        self.assertFalse(ctx._bodyreplaced)
        self.assertEqual(ctx._sender, "<new@b>")
        print(ctx._addrcpt, ctx._delrcpt, ctx._sender, ctx._envfromchanged, ctx._headerschanged)
        print(ctx._msg["Subject"], ctx._msg.keys())

    def test_steps(self):
        ctx = testctx.TestCtx()
        print(ctx._connect("host", "bad", "1.2.3.4"), ctx._reply)
        ctx = testctx.TestCtx()
        print(ctx._connect("host", "good", "2001:db8::1"), ctx._reply)
        print(ctx._envfrom("<a@b>"), ctx._data(), ctx._header("Subject", "x"))
        print(ctx._eoh(), ctx._feed_body(io.BytesIO(b"text\n")), ctx._abort())
        ctx._close()


class MixinCase(unittest.TestCase):
    def test_mixin(self):
        milter = TestSample()
        self.assertEqual(milter.connect("testMixin"), Milter.CONTINUE)
        milter.setsymval("{auth_authen}", "batman")
        rc = milter.feedMsg("virus", rcpt="victim@lamb.com") if len(sys.argv) > 2 else milter.feedMsg("virus")
        self.assertTrue(rc == Milter.ACCEPT)
        self.assertTrue(milter._bodyreplaced, "message body not replaced")
        fp = milter._body
        fp.seek(0)
        msg = mime.message_from_file(fp)
        self.assertFalse("MZ" in str(msg))
        print(milter._addrcpt, milter._delrcpt, milter._sender, milter._reply)

    def test_refused(self):
        milter = TestSample()
        self.assertEqual(milter.connect(helo="bad"), Milter.REJECT)
        print(milter._reply)

    def test_fakes(self):
        class Fake:
            def getsymval(self, name):
                return "faked " + name
            def addheader(self, *args):
                print("addheader", args)
        m = Sample()
        m._ctx = Fake()
        m._actions = Milter.ADDHDRS
        m._protocol = 0
        print(m.getsymval("i"))
        m.addheader("A", "b")
        m.addheader("A", "b", 3)
        with self.assertRaises(Milter.DisabledAction):
            m.chgheader("A", 1, "b")
        print(m.hello("good"), m.envfrom("<>"), m.envrcpt("<a>"), m.eoh())
        print(Milter.factory is Sample, Sample.protocol_mask(), Milter.Milter.protocol_mask())


class RunCase(unittest.TestCase):
    def test_main(self):
        calls = []
        before = Milter.runmilter
        Milter.runmilter = lambda *args, **kw: calls.append((args, kw))
        try:
            Milter.runmilter("name", "socket", 60, rmsock=False)
        finally:
            Milter.runmilter = before
        print(calls)


suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
report = io.StringIO()
result = unittest.TextTestRunner(report).run(suite)
for test, text in result.errors + result.failures:
    print(test, text)
print(result.testsRun, len(result.errors), len(result.failures))
sys.exit(not result.wasSuccessful())
