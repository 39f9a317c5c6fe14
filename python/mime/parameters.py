"""Parameters of header fields, and the file names in them as mail programs read them.

The forms are those of RFC 2045 (5.1), RFC 2231, and what programs write in their place: encoded
words inside quotes (which RFC 2047 forbids), doubled quotes, text after the closing quote, quotes
that never close. Nothing here raises, whatever the field holds.
"""

from __future__ import annotations

import binascii
import email.errors
import email.header
import re
from collections.abc import Iterator

from mime.charsets import as_bytes, as_text

__all__ = [
    "Parameter",
    "Value",
    "decoded",
    "parameters",
    "readable",
    "readings",
    "split_parameters",
    "unquote",
]

Value = str | tuple[str | None, str | None, str]
"""A parameter's value: text, or what RFC 2231 makes of it: (charset, language, text)."""
Parameter = tuple[str, Value]

_TOKENS = re.compile(r'\\.|""?|;', re.DOTALL)
_CONTINUED = re.compile(r"([^*]*)\*(?:([0-9]{1,4})(\*?))?\Z")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_ENCODED_WORD = re.compile(r"=\?[^?\s]+\?[bBqQ]\?[^?]*\?=")
_MANY = 1000  # parts of one value; nobody writes as many


def unquote(text: str) -> str:
    """`text` without the quotes or angle brackets that it stands in.

    What follows the closing quote is dropped; a quote that never closes is text.
    """
    if len(text) > 1:
        if text[0] == '"':
            end = _closing_quote(text)
            if end > 0:
                return re.sub(r"\\(.)", r"\1", text[1:end], flags=re.DOTALL)
        elif text[0] == "<" and text[-1] == ">":
            return text[1:-1]
    return text


def _closing_quote(text: str) -> int:
    """Where the quotes that `text` begins with close, -1 if nowhere. Doubled ones are one."""
    doubled = text.startswith('""') and len(text) > 2 and not text[2].isspace()
    for token in re.finditer(r'\\.|"', text[1:], re.DOTALL):
        at = token.start() + 1
        if token.group() == '"' and not (doubled and at == 1):
            return at + 1 if doubled and text.startswith('"', at + 1) else at
    return -1


def split_parameters(text: str) -> list[str]:
    """Cuts a field's value at the semicolons that are not quoted: the value, then parameters."""
    parts = []
    start = 0
    quote = ""
    for token in _TOKENS.finditer(text):
        found = token.group()
        if found[0] == "\\":
            continue
        if found == ";":
            if not quote:
                parts.append(text[start : token.start()])
                start = token.end()
        elif quote:
            if quote in ('"', found):
                quote = '"' if found == '""' and quote == '"' else ""
        elif found == '"' or text[token.end() : token.end() + 1].strip(" \t\r\n;"):
            quote = found
    parts.append(text[start:])
    return [_trimmed(part) for part in parts]


def _trimmed(part: str) -> str:
    """A parameter without the white space around its name and its value; the name in lower case."""
    name, equals, value = part.partition("=")
    return f"{name.strip().lower()}={value.strip()}" if equals else part.strip()


def parameters(text: str) -> list[tuple[str, str]]:
    """Name and value of each parameter, as written. The first is the field's own value, with ""."""
    pairs = []
    for part in split_parameters(text):
        name, _, value = part.partition("=")
        pairs.append((name, value))
    return pairs


def decoded(pairs: list[tuple[str, str]]) -> list[Parameter]:
    """Puts together what RFC 2231 cut into parts, and decodes it. Values keep their quotes where
    they were not put together."""
    whole: list[Parameter] = []
    cut: dict[str, dict[int, tuple[str, bool]]] = {}
    for name, value in pairs:
        match = _CONTINUED.match(name)
        if not match or not match[1]:
            whole.append((name, value))
            continue
        parts = cut.setdefault(match[1], {})
        if len(parts) < _MANY:
            extended = match[2] is None or bool(match[3])
            parts.setdefault(int(match[2] or 0), (unquote(value), extended))
    whole += [(name, _joined(parts)) for name, parts in cut.items()]
    return whole


def _joined(parts: dict[int, tuple[str, bool]]) -> Value:
    ordered = [parts[number] for number in sorted(parts)]
    if not any(extended for _, extended in ordered):
        return "".join(text for text, _ in ordered)
    first = ordered[0][0]
    charset: str | None = None
    language: str | None = None
    if ordered[0][1] and first.count("'") >= 2:
        charset, language, first = first.split("'", 2)
        ordered[0] = (first, True)
    data = b"".join(
        _PERCENT.sub(lambda hexed: binascii.unhexlify(hexed[1]), as_bytes(text))
        if extended
        else as_bytes(text)
        for text, extended in ordered
    )
    return charset, language, data.decode("latin-1")


def readable(value: Value) -> str:
    """A value as text: a tuple of RFC 2231 is decoded, 8-bit bytes are UTF-8 or else Latin-1."""
    if isinstance(value, tuple):
        return as_text(value[2].encode("latin-1", "replace"), value[0])
    return as_text(as_bytes(value))


def readings(value: Value) -> Iterator[str]:
    """All names that some mail program might read in a parameter's value, none twice."""
    seen = set()
    for text in _ways(value):
        if text not in seen:
            seen.add(text)
            yield text


def _ways(value: Value) -> Iterator[str]:
    if isinstance(value, tuple):
        ways = [readable(value)]
    else:
        text = readable(value)
        ways = [unquote(text)]
        if '"' in text:
            ways.append(text.replace('"', ""))
            if text.startswith('"'):
                ways += [text.strip('"').partition(mark)[0].rstrip() for mark in ('"', ";")]
    for way in ways:
        yield way
        if "=?" in way:
            yield _words_decoded(way)


def _words_decoded(text: str) -> str:
    """`text` with its encoded words (RFC 2047) decoded, wherever they stand."""

    def one(match: re.Match[str]) -> str:
        try:
            return "".join(
                as_text(data, charset) if isinstance(data, bytes) else data
                for data, charset in email.header.decode_header(match[0])
            )
        except (ValueError, email.errors.HeaderParseError):
            return match[0]

    return _ENCODED_WORD.sub(one, re.sub(r"\?=\s+=\?", "?==?", text))
