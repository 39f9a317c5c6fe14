"""A DKIM key for tests, made by openssl, and a look at signatures by dkimpy."""

import base64
import shutil
import subprocess
from pathlib import Path

import dkim
import pytest


def make_key(file: Path) -> None:
    """Writes a private key. Skips the test if there is no openssl."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is missing")
    subprocess.run(["openssl", "genrsa", "-out", file, "2048"], check=True, capture_output=True)


def record_of(key: bytes) -> bytes:
    """The DNS record for a private key."""
    command = ["openssl", "rsa", "-pubout", "-outform", "DER"]
    public = subprocess.run(command, input=key, check=True, capture_output=True).stdout
    return b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)


def is_signed(message: bytes, name: str, record: bytes) -> bool:
    """Whether the first signature of a message holds, made with the key that has this name."""
    names = []

    def look_up(asked: bytes, **_: object) -> bytes:
        names.append(asked.decode())
        return record

    return bool(dkim.DKIM(message).verify(dnsfunc=look_up)) and names == [f"{name}."]
