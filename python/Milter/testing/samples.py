"""Messages to try filters with: ordinary ones, and such as real mail servers meet as well."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["SAMPLES"]

_HEAD = (
    b"From: Ann Archer <ann@example.net>\n"
    b"To: Bob Baker <bob@example.org>\n"
    b"Subject: Lunch on Friday?\n"
    b"Date: Mon, 06 Jan 2025 10:00:00 +0000\n"
    b"Message-ID: <1@example.net>\n"
)
_MIME = _HEAD + b"MIME-Version: 1.0\n"
_MULTIPART = (
    _MIME + b'Content-Type: multipart/mixed; boundary="cut"\n'
    b"\n"
    b"--cut\n"
    b"Content-Type: text/plain; charset=utf-8\n"
    b"Content-Transfer-Encoding: quoted-printable\n"
    b"\n"
    b"Caf=C3=A9 at noon?\n"
    b"--cut\n"
    b"Content-Type: application/octet-stream\n"
    b'Content-Disposition: attachment; filename="menu.bin"\n'
    b"Content-Transfer-Encoding: base64\n"
    b"\n"
    b"AAECAwQFBgcICQ==\n"
    b"--cut--\n"
)

SAMPLES: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        "plain": _HEAD + b"\nSee you at noon.\n",
        "crlf": (_HEAD + b"\nSee you at noon.\n").replace(b"\n", b"\r\n"),
        "8bit": _MIME.replace(b"Lunch", "Déjeuner".encode())
        + b"Content-Type: text/plain; charset=utf-8\n"
        + b"Content-Transfer-Encoding: 8bit\n\n"
        + "À midi, au café.\n".encode(),
        "not utf-8": _HEAD.replace(b"Lunch", b"D\xe9jeuner") + b"\n\xc0 midi\n",
        "multipart": _MULTIPART,
        "multipart without end": _MULTIPART.removesuffix(b"--cut--\n"),
        "folded": _HEAD + b"X-Folded: one,\n two,\n\tthree\n\nSee you.\n",
        "same header twice": _HEAD + b"Subject: Dinner?\nsubject: Or breakfast?\n\nSee you.\n",
        "no blank line": _HEAD,
        "no header": b"\nSee you at noon.\n",
        "no body": _HEAD + b"\n",
        "no line end": _HEAD + b"\nSee you",
        "not mail": b"\x7fELF\x02\x01\x01\n\0\0\xff\xfe\n",
        "bare cr": _HEAD + b"\nSee\ryou\r\r\nat noon.\n",
        "nul": _HEAD + b"\nSee\0you\n",
        "dots": _HEAD + b"\n.\n..\nSee you\n.\n",
        "long line": _HEAD + b"\n" + b"x" * 5000 + b"\n",
        "long header": _HEAD + b"X-Long: " + b"x" * 50_000 + b"\n\nSee you.\n",
        "many headers": _HEAD + b"".join(b"X-%d: %d\n" % (n, n) for n in range(500)) + b"\nHi.\n",
        "several chunks": _HEAD + b"\n" + b"See you at noon.\n" * 8000,
        "empty": b"",
    }
)
"""Messages by name."""
