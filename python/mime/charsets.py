"""Bytes and text: which charsets count, and what text stands for bytes that need not be in any."""

from __future__ import annotations

import codecs

__all__ = ["as_bytes", "as_text", "codec_of"]

# Python's own codecs that are no charsets of mail. The first two take time that grows with the
# square of the text; the next two warn about what is in it.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"})
# Other names of UTF-7, in which scripts are hidden, that mail programs know and Python does not.
_UTF_7 = frozenset(
    {"csunicode11utf7", "unicode-2-0-utf-7", "x-unicode-1-1-utf-7", "x-unicode-2-0-utf-7"}
)


def codec_of(charset: str | None) -> str | None:
    """The name of Python's codec for a charset; None if there is none, or for another name than an
    ASCII one: Python before 3.15 left other characters out, and from 3.17 on it raises."""
    if not charset or not charset.isascii():
        return None
    if charset.lower() in _UTF_7:
        return "utf-7"
    try:
        name = codecs.lookup(charset).name
        b"-".decode(name, "replace")  # LookupError for codecs that make no text
    except (LookupError, ValueError):
        return None
    return None if name in _NO_CHARSETS else name


def as_bytes(text: str) -> bytes:
    """The bytes that a message's text stands for; what is no ASCII in it, as UTF-8."""
    try:
        return text.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def as_text(data: bytes, charset: str | None = None) -> str:
    """Text of bytes in a charset, if it is known and they are of it; else UTF-8, else Latin-1."""
    for name in (codec_of(charset) or "utf-8", "utf-8"):
        try:
            return data.decode(name)
        except ValueError:
            continue
    return data.decode("latin-1")
