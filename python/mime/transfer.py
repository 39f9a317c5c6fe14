"""Content-Transfer-Encodings: bytes to what stands in a message, and back."""

from __future__ import annotations

import base64
import binascii
import re
import string
from email.message import Message
from typing import Any

__all__ = ["decode", "decode_base64", "encode", "encoding_of", "is_encoded"]

_LINE_END = re.compile(rb"\r?\n")
_NO_BASE64 = bytes(set(range(256)) - set((string.ascii_letters + string.digits + "+/=").encode()))
_TOKEN = re.compile(r"[^\s;(]*")  # what mail programs read, whatever follows it


def encoding_of(field: Any) -> str:
    """The encoding that the header field Content-Transfer-Encoding names, in lower case."""
    found = _TOKEN.match(str(field or "").strip())
    return found[0].strip('"').lower() if found else ""


def decode(data: bytes, encoding: str) -> bytes:
    """Takes an encoding off, as `email` does, but base64 as lenient programs do; what cannot be
    decoded stays as it is."""
    if encoding == "base64":
        return decode_base64(data)
    part: Message = Message()
    part["Content-Transfer-Encoding"] = encoding
    part.set_payload(data)
    try:
        plain = part.get_payload(decode=True)
    except ValueError:
        return data
    return plain if isinstance(plain, bytes) else data


def decode_base64(data: bytes) -> bytes:
    """Takes base64 off: other characters do not count, nor does a digit that is left over, and
    padding ends its group of digits, not the whole."""
    groups = data.translate(None, _NO_BASE64).rstrip(b"=").split(b"=")
    return b"".join(
        binascii.a2b_base64(group[: len(group) - (len(group) % 4 == 1)] + b"==") for group in groups
    )


def is_encoded(encoding: str) -> bool:
    """Whether there is something to take off."""
    return encoding in ("base64", "quoted-printable") or "uue" in encoding


def encode(data: bytes, encoding: str, line_end: bytes = b"\n") -> bytes | None:
    """Puts an encoding on, in lines that end so. None if that encoding is only ever read here."""
    if encoding == "base64":
        lines = base64.encodebytes(data)
    elif encoding == "quoted-printable":
        other = data.replace(line_end, b"")
        lines = binascii.b2a_qp(data, istext=b"\n" not in other and b"\r" not in other)
    else:
        return None if "uue" in encoding else data
    return _LINE_END.sub(line_end, lines)
