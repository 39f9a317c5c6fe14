"""DKIM keys, what their public halves look like in DNS, and a look at signatures by dkimpy."""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest


def _openssl(*arguments: str | Path) -> bytes:
    """What an openssl command writes. Skips the test if there is none."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is missing")
    return subprocess.run(["openssl", *arguments], capture_output=True, check=True).stdout


def rsa_key(file: Path) -> str:
    """Writes a private key; returns the record of the public one."""
    file.write_bytes(_openssl("genrsa", "-traditional", "2048"))
    public = _openssl("rsa", "-in", file, "-pubout", "-outform", "DER")
    return f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}"


def ed25519_key(file: Path) -> str:
    """The same; the file has the 32 bytes in base64, as dkimpy reads them (RFC 8032)."""
    pem = file.with_suffix(".pem")
    pem.write_bytes(_openssl("genpkey", "-algorithm", "ed25519"))
    # Both are the last 32 bytes of what the standard wraps them in (RFC 8410).
    private = _openssl("pkey", "-in", pem, "-outform", "DER")[-32:]
    public = _openssl("pkey", "-in", pem, "-pubout", "-outform", "DER")[-32:]
    file.write_bytes(base64.b64encode(private))
    return f"v=DKIM1; k=ed25519; p={base64.b64encode(public).decode()}"


def txt(name: str, text: str) -> str:
    """A line for the DNS server; a string in a record has at most 255 bytes (RFC 1035, 3.3.14)."""
    strings = [text[at : at + 250] for at in range(0, len(text), 250)]
    return f"{name}. TXT " + " ".join(f'"{each}"' for each in strings) + "\n"


def is_signed(message: bytes, name: str, record: str) -> bool:
    """Whether the first signature of a message holds, made with the key whose record has a name."""
    dkim = pytest.importorskip("dkim")
    names = []

    def look_up(asked: bytes, **_: object) -> bytes:
        names.append(asked.decode())
        return record.encode()

    return bool(dkim.DKIM(message).verify(dnsfunc=look_up)) and names == [f"{name}."]
