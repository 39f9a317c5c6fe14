"""Filters that others wrote in C, as Debian has them: one entry of PROGRAMS for each.

Each is run unchanged on Debian's libmilter and on ours, under scripts for Debian's miltertest and
behind a real Postfix. What both runs say must be equal but for what the entry calls varying.
"""

import base64
import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mta import Mta

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build"

# Sends messages through a service of an MTA. Returns by a name what became of each: the text that
# was delivered, with the envelope's sender first, or the reply that refused it.
Messages = Callable[[Mta, str], dict[str, str]]


@dataclass(frozen=True)
class Program:
    """One program. Its name is also that of the folder with its scripts, and of the folder below
    build/ into which packaging/needs.py unpacks it."""

    name: str
    binary: str  # below that folder
    # Writes into a folder what the program needs to listen on a unix socket and to stay in the
    # foreground; returns its arguments. Of the environment only LD_LIBRARY_PATH is changed.
    configure: Callable[[Path, Path], list[str]]
    messages: Messages
    varying: re.Pattern[str]  # what differs from run to run on one and the same library
    now: re.Pattern[bytes]  # and in its answers, when it is asked once more
    scripted: tuple[str, ...]  # regular expressions that a script's output must have
    became: dict[str, str]  # and that what became of a message must have, by its name

    @property
    def path(self) -> Path:
        """The program's file."""
        return BUILD / self.name / self.binary

    def scripts(self) -> list[Path]:
        """Its scripts for miltertest."""
        return sorted((HERE / self.name).glob("*.lua"))


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


def openssl(*arguments: str | Path) -> bytes:
    """What an openssl command writes."""
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


def opendkim(folder: Path, socket: Path) -> list[str]:
    """Signs for example.test with a key of its own; verifies with the key in its file."""
    key = folder / "key"
    key.write_bytes(openssl("genrsa", "-traditional", "2048"))
    public = base64.b64encode(openssl("rsa", "-in", key, "-pubout", "-outform", "DER"))
    record = f"test._domainkey.example.test v=DKIM1; k=rsa; p={public.decode()}\n"
    (folder / "public").write_text(record)
    (folder / "conf").write_text(OPENDKIM_CONF.format(socket=socket, folder=folder))
    return ["-x", str(folder / "conf")]


def sent_from(mta: Mta, service: str, address: str, message: bytes) -> str:
    """What became of a message that a client with some address has sent."""
    with closing(mta.client(service)) as client:
        client.command("EHLO client.test")
        client.command(f"XCLIENT NAME=client.test ADDR={address}")
        client.command("EHLO client.test")
        reply = client.run(message)["."]
    if reply.code != 250:
        return str(reply)
    found = mta.delivered(mta.queue_id(reply))
    return "\n".join([found.sender, *found.headers, "", found.body.decode()])


def opendkim_messages(mta: Mta, service: str) -> dict[str, str]:
    """What is sent from inside comes back from outside: as it is, and changed."""
    sent = (
        b"From: sender@example.test\r\nTo: one@local.test\r\nSubject: caf\xc3\xa9,\r\n folded\r\n"
        b"Date: Tue, 22 Dec 2009 13:04:12 -0800\r\nMessage-ID: <1@example.test>\r\n"
        b"\r\nThe body.\r\n.\r\n" + b"".join(b"line %06d\r\n" % n for n in range(9000))
    )
    signed = sent_from(mta, service, "127.0.0.1", sent)
    # Without the private Postfix's own header, which the signature does not cover.
    headers = [line for line in signed.split("\n") if line.startswith("DKIM-Signature")]
    again = headers[0].replace("|", "\r\n").encode() + b"\r\n" + sent
    forged = b"Authentication-Results: mx.local.test; dkim=pass\r\n"
    return {
        "signed": signed,
        "verified": sent_from(mta, service, "192.0.2.9", again),
        "changed": sent_from(mta, service, "192.0.2.9", again.replace(b"000007", b"00000x")),
        "unsigned": sent_from(mta, service, "192.0.2.9", sent),
        "forged": sent_from(mta, service, "192.0.2.9", forged + sent),
        "others'": sent_from(mta, service, "127.0.0.1", b"From: x@elsewhere.test\r\n\r\nx\r\n"),
    }


# ------------------------------------------------------------------------------------ the table

PROGRAMS = [
    Program(
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
