"""Filters that others wrote in C, as Debian has them: one entry of PROGRAMS for each.

Beside messages they get scripts for Debian's miltertest.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from program import BUILD, HERE, Outcome, Program, Send, Start
from shared.keys import rsa_key

MILTERTEST = BUILD / "miltertest" / "usr" / "bin" / "miltertest"
# Another build of it can be tried, for example one with sanitizers.
OURS = Path(os.environ.get("MILTERKIT_LIBMILTER", BUILD / "libmilter" / "src" / "libmilter"))


@dataclass(frozen=True, kw_only=True)
class ProgramInC(Program):
    """One program on libmilter. packaging/needs.py unpacks it; its scripts are in the folder of
    its name."""

    binary: str  # below its home
    library: re.Pattern[str] = re.compile(r"/libmilter\.so")
    now: re.Pattern[bytes]  # what differs in its answers when it is asked once more
    scripted: tuple[str, ...]  # regular expressions that a script's output must have

    @property
    def path(self) -> Path:
        """The program's file."""
        return self.home / self.binary

    def scripts(self) -> list[Path]:
        """Its scripts for miltertest."""
        return sorted((HERE / self.name).glob("*.lua"))

    def missing(self) -> str | None:
        """Why it cannot be run here, or None if it can."""
        needed = (self.path, MILTERTEST, OURS / "libmilter.so.1.0.1")
        return next((f"there is no {path}" for path in needed if not path.exists()), None)

    @contextmanager
    def start(self, ours: bool, folder: Path, socket: Path) -> Iterator[Start]:
        """With our library found before Debian's, or Debian's alone."""
        environment = {"LD_LIBRARY_PATH": str(OURS) if ours else ""}
        yield Start([self.path, *self.configure(folder, socket)], environment)

    def own(self, library: str) -> bool:
        """Whether a file is that of our library."""
        return library == str(OURS / "libmilter.so.1.0.1")


# ------------------------------------------------------------------------------------- opendkim

OPENDKIM_CONF = """\
Socket local:{socket}
Background no
Syslog no
UMask 0
Mode sv
Domain example.test
Selector test
KeyFile {folder}/key
TestPublicKeys {folder}/public
RequireSafeKeys no
InternalHosts 127.0.0.1
AuthservID mx.local.test
AlwaysAddARHeader yes
SoftwareHeader yes
Canonicalization relaxed/simple
OversignHeaders From
On-BadSignature reject
"""


def opendkim(folder: Path, socket: Path) -> list[str]:
    """Signs for example.test with a key of its own; verifies with the key in its file."""
    record = f"test._domainkey.example.test {rsa_key(folder / 'key')}\n"
    (folder / "public").write_text(record)
    (folder / "conf").write_text(OPENDKIM_CONF.format(socket=socket, folder=folder))
    return ["-x", str(folder / "conf")]


def opendkim_messages(send: Send) -> dict[str, Outcome]:
    """What is sent from inside comes back from outside: as it is, and changed."""
    sent = (
        b"From: sender@example.test\r\nTo: one@local.test\r\nSubject: caf\xc3\xa9,\r\n folded\r\n"
        b"Date: Tue, 22 Dec 2009 13:04:12 -0800\r\nMessage-ID: <1@example.test>\r\n"
        b"\r\nThe body.\r\n.\r\n" + b"".join(b"line %06d\r\n" % n for n in range(9000))
    )
    signed = send(sent)
    again = signed.header("DKIM-Signature") + sent
    forged = b"Authentication-Results: mx.local.test; dkim=pass\r\n"
    return {
        "signed": signed,
        "verified": send(again, "192.0.2.9"),
        "changed": send(again.replace(b"000007", b"00000x"), "192.0.2.9"),
        "unsigned": send(sent, "192.0.2.9"),
        "forged": send(forged + sent, "192.0.2.9"),
        "others'": send(b"From: x@elsewhere.test\r\n\r\nx\r\n"),
    }


# ------------------------------------------------------------------------------------ the table

PROGRAMS = [
    ProgramInC(
        name="opendkim",
        binary="usr/sbin/opendkim",
        configure=opendkim,
        messages=opendkim_messages,
        # A signature's time and value, in it and where it is told of; the queue id.
        varying=re.compile(
            r"(?<=\bt=)\d+|(?<=[\s;]b=)[\w+/=\s|]+(?=$|\n)|(?<=header\.b=)\S+"
            r"|(?<=mx\.local\.test )\w+$",
            re.MULTILINE,
        ),
        now=re.compile(rb"\b(t=\d+|b=[\w+/=\s]+)|header\.b=\S+"),
        scripted=(
            r"message signed\n(.*\n)+?DKIM-Signature: .*a=rsa-sha256",
            r"message verified\n(.*\n)+?Authentication-Results: .*\n.*dkim=pass",
            r"message changed\n(.*\n)+?Authentication-Results: .*\n.*dkim=fail",
            r"message changed\n(.*\n)+?eom: y\n",
            r"message forged\n(.*\n)+?MT_HDRDELETE true",
            r"message none\n(.*\n)+?Authentication-Results: .*dkim=none",
            r"\ndone\n$",
        ),
        became={
            "signed": r"DKIM-Signature: .*a=rsa-sha256",
            "verified": r"dkim=pass",
            "changed": r"^550 5\.7\.0 bad DKIM signature data$",
            "unsigned": r"dkim=none",
            "forged": r"(?s)^(?!.*dkim=pass).*dkim=none",
            "others'": r"From: x@elsewhere.test",
        },
    ),
]
