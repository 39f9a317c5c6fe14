"""Parameters of header fields, and the file names in them as mail programs read them.

The forms are those of RFC 2045 (5.1), RFC 2231, and what programs write in their place: encoded
words inside quotes (which RFC 2047 forbids), doubled quotes, text after the closing quote, quotes
that never close. Nothing here raises, whatever the field holds.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from urllib.parse import unquote_to_bytes

from mime.charsets import as_bytes, as_text
from mime.transfer import decode_base64

__all__ = [
    "Parameter",
    "Value",
    "decoded",
    "ends_with",
    "kind_of",
    "located",
    "loosely_named",
    "parameters",
    "readable",
    "readings",
    "split_parameters",
    "unquote",
    "with_parameter",
    "with_value",
    "without_comments",
]

Value = str | tuple[str | None, str | None, str]
"""A parameter's value: text, or what RFC 2231 makes of it: (charset, language, text)."""
Parameter = tuple[str, Value]

_TOKENS = re.compile(r'\\.|""?|;', re.DOTALL)
_COMMENT = re.compile(r"\\.|[()]", re.DOTALL)
_KIND = re.compile(r'[\s"]*([^\s/;,"(]+)\s*/\s*([^\s/;,"(]+)(?=[\s;,"(]|\Z)')
_CONTINUED = re.compile(r"([^*]*)\*(?:([0-9]{1,9})(\*?))?\Z")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_WORD = re.compile(r"=\?([^?\s]+)\?([bBqQ])\?")
_UNSEEN = ". \\"  # at the end of a name
_ENDS_OF_PATHS = ("/", "?")
_QUOTED = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z))', re.DOTALL)
_PARAMETER_OF_WORDS = re.compile(r"(?:\A|;)\s*=\?[^;]*")
_CONTROLS = dict.fromkeys((*range(9), *range(14, 32), 127))  # without white space
# What every field has in which there may be one more name than its parameters say.
_MAY_NAME = re.compile(r"name|=\?|\(", re.IGNORECASE)
# A parameter that is a file's name, as far as its value; quoted values are passed over.
_LOOSE = re.compile(
    r"""=\s*"[^"\\]*(?:\\.[^"\\]*)*"
    | (?<![^\s;,:"')])((?:file)?name(?:\*[0-9]*\*?)?)["'\s]*(?==)""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)


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


def _pieces(text: str) -> list[str]:
    """What stands between the semicolons that are not quoted: the field's value, parameters."""
    pieces = []
    start = 0
    quote = ""
    for token in _TOKENS.finditer(text):
        found = token.group()
        if found[0] == "\\":
            continue
        if found == ";":
            if not quote:
                pieces.append(text[start : token.start()])
                start = token.end()
        elif quote:
            if quote in ('"', found):
                quote = '"' if found == '""' and quote == '"' else ""
        elif found == '"' or text[token.end() : token.end() + 1].strip(" \t\r\n;"):
            quote = found
    pieces.append(text[start:])
    return pieces


def split_parameters(text: str) -> list[str]:
    """Cuts a field's value at the semicolons that are not quoted: the value, then parameters."""
    return [_trimmed(piece) for piece in _pieces(text)]


def with_parameter(text: str, name: str, written: str) -> str:
    """A field's value with a parameter as `written`, in place of all that have its name; without
    it, if that is empty. All else stays as it stands."""
    pieces = []
    for piece in _pieces(text):
        if piece.partition("=")[0].partition("*")[0].strip().lower() != name.lower():
            pieces.append(piece)
        elif written:
            pieces.append(piece[: len(piece) - len(piece.lstrip())] + written)
            written = ""
    if written and len(pieces) > 1:
        # In front of the last, whose quotes may never close, if they do not.
        pieces.insert(-1 if _is_open(pieces[-1]) else len(pieces), f" {written}")
    elif written:
        own = pieces[0].partition('"')[0] if pieces and _is_open(pieces[0]) else "".join(pieces)
        pieces = [own, f" {written}"] if own.strip() else [written]
    return ";".join(pieces)


def with_value(text: str, value: str) -> str:
    """A field's value in place of the one that stands before its parameters."""
    return ";".join([value, *_pieces(text)[1:]])


def _is_open(piece: str) -> bool:
    """Whether a semicolon behind a piece would be one in quotes."""
    return len(_pieces(f"{piece};")) == 1


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


def loosely_named(text: str) -> list[tuple[str, str]]:
    """Name and value, as written, of all that lenient programs take for a file's name in a field:
    without a semicolon in front; the parameter's name in quotes, beside comments, with control
    characters in it; the whole an encoded word."""
    text = text.translate(_CONTROLS)
    if not _MAY_NAME.search(text):
        return []
    pieces = _QUOTED.split(text)
    pieces[::2] = [
        _PARAMETER_OF_WORDS.sub(lambda words: _words_decoded(words[0]), without_comments(piece))
        for piece in pieces[::2]
    ]
    text = "".join(pieces)
    found = [match for match in _LOOSE.finditer(text) if match[1]]
    ends = [*(match.start() for match in found), len(text)][1:]
    return [
        (match[1].lower(), _pieces(text[match.end() + 1 : end])[0].strip())
        for match, end in zip(found, ends, strict=True)
    ]


def decoded(pairs: list[tuple[str, str]]) -> list[Parameter]:
    """Puts together what RFC 2231 cut into parts, and decodes it. Values that it does not decode
    keep their quotes. What programs put together in several ways comes in each."""
    whole: list[Parameter] = []
    cut: dict[str, dict[int, list[_Part]]] = {}
    for name, value in pairs:
        match = _CONTINUED.match(name)
        base = match[1].strip() if match else ""
        if not match or not base:
            whole.append((name, value))
        elif match[2] is None:
            whole.append((base, _joined([(value, True)])))
        else:
            part = (value, bool(match[3]))
            cut.setdefault(base, {}).setdefault(int(match[2]), []).append(part)
    for base, parts in cut.items():
        numbers = sorted(parts)
        whole.append((base, _joined([parts[number][0] for number in numbers])))
        if any(len(same) > 1 for same in parts.values()):
            whole.append((base, _joined([parts[number][-1] for number in numbers])))
        ends = next((at for at, number in enumerate(numbers) if number > numbers[0] + at), None)
        if ends:  # a part is missing
            whole.append((base, _joined([parts[number][0] for number in numbers[:ends]])))
    return whole


_Part = tuple[str, bool]  # text as written, and whether it is percent-encoded


def _joined(written: list[_Part]) -> Value:
    parts = [(unquote(text), extended) for text, extended in written]
    if not any(extended for _, extended in parts):
        whole = "".join(text for text, _ in parts)
        if all(text.startswith('"') and _closing_quote(text) > 0 for text, _ in written):
            whole = '"' + re.sub(r'(["\\])', r"\\\1", whole) + '"'  # a space in it ends nothing
        return whole
    first, extended = parts[0]
    charset: str | None = None
    language: str | None = None
    if extended and first.count("'") >= 2:
        charset, language, first = first.split("'", 2)
    data = []
    for is_extended, run in groupby([(first, extended), *parts[1:]], itemgetter(1)):
        piece = as_bytes("".join(text for text, _ in run))
        if is_extended:
            piece = _PERCENT.sub(lambda hexed: binascii.unhexlify(hexed[1]), piece)
        data.append(piece)
    return charset, language, b"".join(data).decode("latin-1")


def readable(value: Value) -> str:
    """A value as text: a tuple of RFC 2231 is decoded, 8-bit bytes are UTF-8 or else Latin-1."""
    if isinstance(value, tuple):
        return as_text(value[2].encode("latin-1", "replace"), value[0])
    return as_text(as_bytes(value))


def readings(value: Value) -> Iterator[str]:
    """All names that some mail program might read in a parameter's value, none twice."""
    return iter(dict.fromkeys(_ways(value)))


def _ways(value: Value) -> Iterator[str]:
    text = readable(value)
    if isinstance(value, tuple):  # to who does not know its charset it is none
        ways = [text, as_text(value[2].encode("latin-1", "replace"))]
    else:
        ways = [unquote(text)]
        if '"' in text:
            ways += [each.replace('"', "") for each in (text, ways[0])]
            if text.startswith('"'):
                ways += [text.strip('"').partition(mark)[0].rstrip() for mark in ('"', ";")]
        if not text.startswith('"'):
            bare = without_comments(text).strip()
            ways += [bare, *bare.split(None, 1)[:1]]
            if text.startswith("'"):
                ways += [way.strip("'") for way in ways]
    for way in ways:
        yield way
        if way.rstrip(_UNSEEN).endswith(_ENDS_OF_PATHS):
            yield way.rstrip(_UNSEEN + "".join(_ENDS_OF_PATHS))
        if "=?" in way:
            yield _words_decoded(way)
            yield _words_decoded(way, are_charsets_known=False)


def ends_with(name: str, extensions: tuple[str, ...]) -> bool:
    """Whether a file of this name has one of the extensions, in any case, to some system: what it
    drops within or behind a name does not count."""
    return any(_seen(each).endswith(extensions) for each in {name, name.partition("\0")[0]})


def _seen(name: str) -> str:
    text = name if name.isprintable() else "".join(filter(str.isprintable, name))
    return text.lower().rstrip(_UNSEEN).removesuffix("::$data").rstrip(_UNSEEN)


def located(text: str) -> Iterator[str]:
    """The name of the file that a URL names, if it names one."""
    path = without_comments(readable(text)).strip().partition("?")[0].partition("#")[0]
    path = "".join(path.split())  # long ones are folded
    _, is_absolute, rest = path.partition("://")
    _, has_path, rest = (rest if is_absolute else f"/{path}").partition("/")
    name = rest.rpartition("/")[2]
    if has_path and name:
        yield from dict.fromkeys((name, unquote_to_bytes(name).decode("utf-8", "replace")))


def without_comments(text: str) -> str:
    """`text` without its comments in parentheses (RFC 5322, 3.2.2); one that never ends is none."""
    if "(" not in text:
        return text
    kept = []
    depth = start = 0
    for mark in _COMMENT.finditer(text):
        if mark[0] == "(":
            if not depth:
                kept.append(text[start : mark.start()])
                start = mark.start()
            depth += 1
        elif mark[0] == ")" and depth:
            depth -= 1
            if not depth:
                start = mark.end()
    return "".join(kept) + text[start:]


def kind_of(text: str) -> str | None:
    """The media type, in lower case, that mail programs read in a Content-Type: without comments,
    quotes and what follows it. None if there is none."""
    found = _KIND.match(without_comments(text))
    return f"{found[1]}/{found[2]}".lower() if found else None


def _words_decoded(text: str, are_charsets_known: bool = True) -> str:
    """`text` with its encoded words (RFC 2047) decoded, wherever they stand."""
    text = re.sub(r"\?=\s+=\?", "?==?", text)
    decoded = []
    at = 0
    while (word := _WORD.search(text, at)) and (end := text.find("?=", word.end())) >= 0:
        data = as_bytes(text[word.end() : end])
        data = decode_base64(data) if word[2] in "bB" else binascii.a2b_qp(data, header=True)
        charset = word[1].partition("*")[0] if are_charsets_known else None
        decoded += [text[at : word.start()], as_text(data, charset)]
        at = end + 2
    return "".join(decoded) + text[at:]
