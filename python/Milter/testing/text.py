"""Bytes of mail as str and back, without loss: UTF-8 with surrogateescape."""

from __future__ import annotations

import re

__all__ = ["bare", "bracketed", "printable", "to_bytes", "to_str"]

# What a terminal or a log must not get raw. Tab is harmless.
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def to_str(data: bytes) -> str:
    """The text of bytes; those that are no UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str | bytes) -> bytes:
    """The bytes of a text, the opposite of to_str. Bytes stay as they are."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def printable(text: str | bytes) -> str:
    """A text that is safe to print: control characters and stray bytes as escapes."""

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        if 0xDC80 <= code <= 0xDCFF:
            code -= 0xDC00  # the byte that surrogateescape put there
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _CONTROL.sub(escape, text if isinstance(text, str) else to_str(text))


def bracketed(address: str) -> str:
    """An address as SMTP clients write it: in angle brackets."""
    return address if address.startswith("<") else f"<{address}>"


def bare(address: str) -> str:
    """An address as queues hold it: without angle brackets, "" for the null sender."""
    address = address.strip()
    return address[1:-1] if address[:1] == "<" and address[-1:] == ">" else address
