"""Filters that others wrote in Python: one entry of PROGRAMS for each, one for each way to use it.

Each runs on the older package under Debian's interpreter, and on ours: nothing but milter, Milter
and mime differs. Their own dependencies are Debian's packages, unpacked, or the newest on PyPI.
"""

import base64
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from signal import SIGHUP, SIGTERM

import Milter
import milter
from mta import ELSEWHERE
from program import ENDED, HERE, Outcome, Program, Send, Start
from shared.dns_server import DnsServer
from shared.keys import ed25519_key, rsa_key, txt

DEBIAN = "/usr/bin/python3"
OURS = Path(Milter.__file__).parents[1]  # the folder with our modules
PYPI = Path(sys.prefix) / "programs"
RECORDS = "records"  # the file with what the DNS server of a test knows, if a program asks any


@cache
def interpreter(ours: bool) -> str:
    """Debian's, also for ours if it is built for the same ABI: then all else is the same."""
    ask = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
    suffix = subprocess.run([DEBIAN, "-c", ask], capture_output=True, text=True, check=False).stdout
    same = str(milter.__file__).endswith(suffix.strip() or "/")
    return sys.executable if ours and not same else DEBIAN


@dataclass(frozen=True, kw_only=True)
class ProgramInPython(Program):
    """One program. packaging/needs.py unpacks Debian's packages; those from PyPI are `programs`
    among the dependency groups in pyproject.toml."""

    script: str  # below its home
    pypi: bool = False  # where it is from
    library: re.Pattern[str] = re.compile(r"/milter[^/]*\.so")

    @property
    def home(self) -> Path:
        """The folder with its files; one for all from PyPI."""
        return PYPI if self.pypi else super().home

    def missing(self) -> str | None:
        """Why it cannot be run here, or None if it can."""
        if not (self.home / self.script).exists():
            return f"there is no {self.home / self.script}"
        done = subprocess.run([DEBIAN, "-c", "import milter"], capture_output=True, check=False)
        return "there is no python3-milter" if done.returncode else None

    def path(self, ours: bool) -> str:
        """Where modules are looked for, before Debian's own."""
        modules = self.home if self.pypi else self.home / "usr/lib/python3/dist-packages"
        places = [HERE / "hooks", modules, *([OURS, PYPI] if ours else [])]
        return os.pathsep.join(map(str, places))

    @contextmanager
    def start(self, ours: bool, folder: Path, socket: Path) -> Iterator[Start]:
        """With a DNS server beside it, if `configure` left records."""
        arguments = [interpreter(ours), self.home / self.script, *self.configure(folder, socket)]
        environment = {
            "PYTHONPATH": self.path(ours),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",  # newer interpreters have more of them
        }
        records = folder / RECORDS
        with DnsServer(records.read_text()) if records.exists() else nullcontext() as server:
            if server:
                environment["MILTERKIT_TEST_DNS"] = str(server.port)
            yield Start(arguments, environment)

    def own(self, library: str) -> bool:
        """Whether a file is that of our library."""
        return library == str(milter.__file__)


@cache
def user() -> str:
    """Whom programs become that give up being root: nobody, unless nobody could not go on to read
    our modules, as where this folder or the interpreter is in root's home."""
    ask = f"import Milter, sys; sys.exit(not Milter.__file__.startswith({str(OURS)!r}))"
    try:
        done = subprocess.run(
            [interpreter(ours=True), "-c", ask],
            env={**os.environ, "PYTHONPATH": str(OURS)},
            user="nobody",
            group="postfix",
            extra_groups=(),
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return "root"
    return "root" if done.returncode else "nobody"


# ------------------------------------------------------------------------------- dkimpy-milter

DKIMPY_CONF = """\
Socket local:{socket}
PidFile {folder}/pid
UserID {user}:postfix
UMask 007
Syslog no
Mode sv
Domain example.test
Selector test
SelectorEd25519 ed
KeyFile {folder}/rsa
KeyFileEd25519 {folder}/ed25519
InternalHosts 127.0.0.1
AuthservID mx.local.test
"""


def dkimpy(folder: Path, socket: Path) -> list[str]:
    """Signs for example.test with two keys; their public halves are in DNS."""
    (folder / RECORDS).write_text(
        txt("test._domainkey.example.test", rsa_key(folder / "rsa"))
        + txt("ed._domainkey.example.test", ed25519_key(folder / "ed25519"))
    )
    conf = DKIMPY_CONF.format(folder=folder, socket=socket, user=user())
    (folder / "conf").write_text(conf)
    return [str(folder / "conf")]


def dkimpy_messages(send: Send) -> dict[str, Outcome]:
    """What is sent from inside comes back from outside: as it is, and changed."""
    sent = (
        b"From: \xc3\x89mile <sender@example.test>\r\nTo: one@local.test\r\n"
        b"Subject: a subject,\r\n folded\r\nDate: Tue, 22 Dec 2009 13:04:12 -0800\r\n"
        b"\r\nThe body.\r\n.\r\n" + b"".join(b"line %06d\r\n" % n for n in range(9000))
    )
    signed = send(sent)
    again = signed.header("DKIM-Signature") + sent
    results = b"Authentication-Results: %s; dkim=pass\r\n"
    forged = results % b"other.test" + results % b"mx.local.test" + sent
    elsewhere = sent.replace(b"example.test", b"elsewhere.test")
    return {
        "signed": signed,
        "verified": send(again, "192.0.2.9"),
        "changed": send(again.replace(b"000007", b"00000x"), "192.0.2.9"),
        "key unknown": send(again.replace(b"s=ed", b"s=no"), "192.0.2.9"),
        "no signature at all": send(b"DKIM-Signature: \xff;;=\r\n" + elsewhere, "192.0.2.9"),
        "forged": send(forged, "192.0.2.9"),
        "others'": send(elsewhere),
        "no headers": send(b"\r\nNothing else.\r\n"),
    }


# -------------------------------------------------------------------------------- pyspf-milter

PYSPF_CONF = """\
debugLevel = 1
Socket = local:{socket}
PidFile = {folder}/pid
UserID = {user}:postfix
UMask = 007
Authserv_Id = mx.local.test
InternalHosts = 127.0.0.1
HELO_reject = Fail
Mail_From_reject = Fail
PermError_reject = True
"""
PYSPF_RECORDS = {
    "ok.test": "v=spf1 ip4:192.0.2.9 -all",
    "soft.test": "v=spf1 ~all",
    "included.test": "v=spf1 include:ok.test -all",
    "broken.test": "v=spf1 bad:mechanism -all",
    "example.test": "v=spf1 -all",
}


def pyspf(folder: Path, socket: Path) -> list[str]:
    """Adds a header with what SPF says, and refuses what it forbids."""
    (folder / RECORDS).write_text("".join(txt(*each) for each in PYSPF_RECORDS.items()))
    conf = PYSPF_CONF.format(folder=folder, socket=socket, user=user())
    (folder / "conf").write_text(conf)
    return [str(folder / "conf")]


def pyspf_messages(send: Send) -> dict[str, Outcome]:
    """Senders for whom SPF says different things."""
    message = b"From: sender@example.test\r\n\r\nThe body.\r\n"
    outside = partial(send, message, "192.0.2.9")
    return {
        "pass": outside("<a@ok.test>"),
        "include": outside("<a@included.test>"),
        "fail": outside("<a@example.test>"),
        "softfail": outside("<a@soft.test>"),
        "broken": outside("<a@broken.test>"),
        "none": outside("<a@none.test>"),
        "null sender": outside("<>"),
        "from inside": send(message, sender="<a@example.test>"),
    }


# ------------------------------------------------------------------------------------- vrfydmn


def vrfydmn(*options: str, folder: Path, socket: Path) -> list[str]:
    """Its list of domains is the name of the file, letter by letter: on Python 3 it takes the one
    for the other, so all domains with an x in them are its own."""
    (folder / "x").write_text("example.test\n")
    where = ["--socket", f"local:{socket}", "--pid", str(folder / "pid"), "--file", "x"]
    return [*where, "--user", user(), "--group", "postfix", *options]


def vrfydmn_messages(send: Send) -> dict[str, Outcome]:
    """Senders of its own domains and of others."""
    return {
        "own": send(b"From: A <a@example.test>\r\n\r\nThe body.\r\n"),
        "other": send(b"From: B <b@other.test>\r\nSubject: s\r\n\r\nThe body.\r\n"),
        "reply-to": send(b"From: b@other.test\r\nReply-To: c@d.test\r\n\r\nThe body.\r\n"),
        "sender": send(b"From: b@other.test\r\nSender: a@example.test\r\n\r\nThe body.\r\n"),
        "8-bit": send(b"From: \xc3\x89mile <b@other.test>\r\n\r\nThe body.\r\n"),
    }


def vrfydmn_exceptions(send: Send) -> dict[str, Outcome]:
    """What it raises exceptions for, and what comes after that."""
    return {
        "own": send(b"From: A <a@example.test>\r\n\r\nThe body.\r\n"),
        "encoded": send(b"From: =?utf-8?q?=C3=89mile?= <b@other.test>\r\n\r\nThe body.\r\n"),
        "none": send(b"Subject: s\r\n\r\nThe body.\r\n"),
        "after that": send(b"From: A <a@example.test>\r\n\r\nThe body.\r\n"),
    }


def vrfydmn_used(*options: str, became: dict[str, str]) -> ProgramInPython:
    """It with some options, in the background."""
    same = {"own": r"From: A <a@example\.test>", "sender": r"Sender: a@example\.test"}
    return ProgramInPython(
        name=" ".join(["vrfydmn", *options]),
        package="vrfydmn",
        script="usr/sbin/vrfydmn",
        configure=lambda folder, socket: vrfydmn(*options, folder=folder, socket=socket),
        messages=vrfydmn_messages,
        varying=re.compile(r"(?<=Queue-ID: )\w+|\w+(?=: header_from)"),  # the queue id
        became=same | became,
        signals={SIGTERM: (ENDED, ENDED), SIGHUP: (None, None)},
    )


# ------------------------------------------------------------------------------- no-ppap-milter


def no_ppap(_folder: Path, socket: Path) -> list[str]:
    """Refuses encrypted archives."""
    return ["--socket-name", f"unix:{socket}"]


def archive(encrypted: bool) -> bytes:
    """A message with a zip archive."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        writer.writestr(zipfile.ZipInfo("name"), "text")
    data = bytearray(file.getvalue())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flags in both headers
        data[data.index(signature) + at] |= encrypted
    return (
        b"From: a@example.test\r\nSubject: caf\xc3\xa9\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: application/zip; name="a.zip"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + base64.encodebytes(data).replace(b"\n", b"\r\n")
    )


def no_ppap_messages(send: Send) -> dict[str, Outcome]:
    """Archives, encrypted and not."""
    return {
        "plain": send(archive(encrypted=False)),
        "encrypted": send(archive(encrypted=True)),
        "after that": send(archive(encrypted=False)),
    }


# ----------------------------------------------------------------------------------- srsmilter

SRS_CONF = """\
[srs]
secret = shhhh!
sign = local.test
fwdomain = forward.test
[srsmilter]
socketname = {socket}
reject_spoofed = true
miltersrs = true
internal_connect = 192.168.*.*,127.0.0.1
"""


def srs(folder: Path, socket: Path) -> list[str]:
    """Signs senders, and takes bounces only if they are to such addresses. Its configuration is
    where it is started."""
    (folder / "pysrs.cfg").write_text(SRS_CONF.format(socket=socket))
    return []


def srs_messages(send: Send) -> dict[str, Outcome]:
    """A message, its bounce, and bounces to others; the filter sees refused recipients too."""
    message = b"From: one@local.test\r\n\r\nThe body.\r\n"
    signed = send(message, sender="<one@local.test>")
    bounce = partial(send, message, "192.0.2.9", "<>")
    return {
        "signed": signed,
        "bounce": bounce([signed.sender]),
        "forged": bounce([re.sub("=.*?=", "=aaaa=", signed.sender, count=1)]),
        "unsigned": bounce(),
        "forwarded": send(message, "192.0.2.9", "<a@b.test>", [ELSEWHERE, "<two@local.test>"]),
    }


# ------------------------------------------------------------------------------------ the table

PROGRAMS = [
    ProgramInPython(
        name="dkimpy-milter",
        script="usr/bin/dkimpy-milter",
        configure=dkimpy,
        messages=dkimpy_messages,
        # A signature's time and value.
        varying=re.compile(r"(?<=\bt=)\d+|(?<=[\s;]b=)[\w+/=\s|\\]+(?=$|\n)", re.MULTILINE),
        became={
            "signed": r"DKIM-Signature: .*a=ed25519-sha256(.*\n)*DKIM-Signature: .*a=rsa-sha256",
            "verified": r"dkim=pass \(Good\W+ed25519-sha256.*dkim=pass \(Good\W+2048\W+bit\W+rsa",
            "changed": r"(?s)^(?!.*dkim=pass).*dkim=fail.*dkim=fail",
            "key unknown": r"(?s)dkim=pass.*dkim=fail|dkim=fail.*dkim=pass",
            "no signature at all": r"^from (?s:(?!.*dkim=))",
            "forged": r"(?s)^(?!.*mx\.local\.test; dkim=pass).*other\.test; dkim=pass",
            "others'": r"(?s)^(?!.*DKIM)",
            "no headers": r"Nothing else\.",
        },
    ),
    ProgramInPython(
        name="pyspf-milter",
        script="usr/bin/pyspf-milter",
        configure=pyspf,
        messages=pyspf_messages,
        varying=re.compile(r"(?!)"),
        became={
            "pass": r"Authentication-Results: mx\.local\.test; spf=pass",
            "include": r"spf=pass",
            "fail": r"^550 5\.7\.23 .*SPF fail",
            "softfail": r"spf=softfail",
            "broken": r"^550 5\.7\.2\d .*SPF Permanent Error",
            "none": r"spf=none",
            "null sender": r"spf=none",
            "from inside": r"(?s)^(?!.*spf=)",
        },
    ),
    vrfydmn_used(
        became={
            "other": r"^554 5\.7\.0 Reject Queue-ID: \w+ - RFC5322 from address: <b@other\.test>$",
            "reply-to": r"^554 5\.7\.0 ",
            "8-bit": r"^554 5\.7\.0 ",
        }
    ),
    vrfydmn_used(
        "--fix",
        became={
            "other": r"From: <sender@example\.test>\n(.*\n)*Reply-To: B <b@other\.test>",
            "reply-to": r"From: <sender@example\.test>\nReply-To: c@d\.test",
            "8-bit": r"From: <sender@example\.test>\n",
        },
    ),
    vrfydmn_used(
        "--action",
        "quarantine",
        became={"other": "^quarantined", "reply-to": "^quarantined", "8-bit": "^quarantined"},
    ),
    # In the foreground. In the background it has no sys.stderr for the tracebacks; the older
    # package then prints what it can of them, and some time hangs.
    ProgramInPython(
        name="vrfydmn --debug",
        package="vrfydmn",
        script="usr/sbin/vrfydmn",
        configure=lambda folder, socket: vrfydmn("--debug", folder=folder, socket=socket),
        messages=vrfydmn_exceptions,
        varying=re.compile(r"(?<=451 4\.3\.0 ).*"),
        became={
            "own": r"From: A <a@example\.test>",
            "encoded": r"^451 4\.3\.0 ",
            "none": r"^451 4\.3\.0 ",
            "after that": r"From: A <a@example\.test>",
        },
        signals={SIGTERM: (0, 0), SIGHUP: (None, None)},
        says=r"in the eoh callback\nTraceback (.*\n)+?TypeError: (.*\n)+?KeyError: 'from'",
    ),
    ProgramInPython(
        name="srsmilter",
        package="python3-srs",
        script="usr/share/doc/python3-srs/examples/srsmilter.py",
        configure=srs,
        messages=srs_messages,
        # What depends on the day; the wording after an exception.
        varying=re.compile(r"(?i)(?<=SRS0=)\w+=\w+|(?<=451 4\.3\.0 ).*"),
        became={
            "signed": r"^from <SRS0=\w+=\w+==one@local\.test>",
            "bounce": r"^451 4\.3\.0 ",  # it gives a tuple where addrcpt wants a text
            "forged": r"^550 5\.7\.1 Invalid SRS signature$",
            "unsigned": r"^550 5\.7\.1 ",
            "forwarded": r"^from <SRS0=\w+=\w+=b\.test=a@forward\.test> to .*two@local\.test\n",
        },
        says=r"in the eom callback\nTraceback (.*\n)+?TypeError: (.*\n)+srsmilter shutdown\n$",
    ),
    ProgramInPython(
        name="no-ppap-milter",
        pypi=True,
        script="bin/no-ppap-milter",
        configure=no_ppap,
        messages=no_ppap_messages,
        varying=re.compile(r"(?!)"),
        became={
            "plain": r"Subject: caf",
            "encrypted": r"^550 5\.7\.1 We do not accpet encrypted zip\.$",
            "after that": r"Subject: caf",
        },
        # Its own handler ends it. Under the older package none runs: libmilter takes the signal.
        signals={SIGTERM: (0, 15), SIGHUP: (0, 0)},
        says=r"^Terminated\.\n$",
    ),
]
