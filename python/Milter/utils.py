"""Mail addresses, header texts and lists of IP addresses, as filters need them."""

from __future__ import annotations

import codecs
import re
import socket
from binascii import Error, a2b_base64, a2b_qp
from collections.abc import Iterable
from fnmatch import fnmatchcase

__all__ = [
    "MASK",
    "MASK6",
    "PAT_IP4",
    "a2b_base64",
    "addr2bin",
    "bin2long6",
    "cidr",
    "decode",
    "dnsre",
    "inet_ntop",
    "inet_pton",
    "iniplist",
    "ip4re",
    "ip6re",
    "parse_addr",
    "parse_header",
    "parseaddr",
]

#: The bits of an IPv4 address.
MASK = 0xFFFFFFFF
#: The bits of an IPv6 address.
MASK6 = (1 << 128) - 1
#: IPv4 addresses stand at the end of this IPv6 prefix, so that one comparison serves both.
_MAPPED = 0xFFFF << 32

#: The pattern of an IPv4 address in a regular expression.
PAT_IP4 = r"\.".join([r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"] * 4)
#: Matches a text that is an IPv4 address as a whole.
ip4re = re.compile(rf"{PAT_IP4}\Z")
#: Matches a text that may be a domain's name.
dnsre = re.compile(r"[a-z][-a-z0-9.]+\Z", re.IGNORECASE | re.ASCII)

_GROUP = "[0-9a-f]{1,4}"


def _ip6_forms() -> Iterable[str]:
    """The patterns of an IPv6 address: where "::" stands, and whether IPv4 ends it."""
    for tail, rest in ((_GROUP, 7), (PAT_IP4, 6)):
        yield rf"(?:{_GROUP}:){{{rest}}}{tail}"
        for before in range(rest):
            start = rf"(?:{_GROUP}(?::{_GROUP}){{{before - 1}}})" if before else ""
            yield rf"{start}::(?:{_GROUP}:){{0,{rest - 1 - before}}}{tail}"
    yield rf"(?:{_GROUP}(?::{_GROUP}){{0,6}})?::"


#: Matches a text that is an IPv6 address as a whole.
ip6re = re.compile(rf"(?:{'|'.join(_ip6_forms())})\Z", re.IGNORECASE | re.ASCII)


def inet_ntop(s: bytes) -> str:
    """Return the text of an IPv6 address of 16 bytes. Raises ValueError for another length."""
    return socket.inet_ntop(socket.AF_INET6, s)


def inet_pton(p: str) -> bytes:
    """Return the 16 bytes of an IPv6 address. Raises OSError for what is none."""
    try:
        return socket.inet_pton(socket.AF_INET6, p)
    except (OSError, ValueError) as error:
        raise OSError(f"Invalid IP6 address: {p}") from error


def bin2long6(s: bytes) -> int:
    """Return an IPv6 address of 16 bytes as a number. Raises ValueError for another length."""
    if len(s) != 16:
        raise ValueError("an IPv6 address has 16 bytes")
    return int.from_bytes(s, "big")


def addr2bin(s: str) -> int:
    """Return an IPv4 or IPv6 address as a number, IPv4 in any form of inet_aton(3).

    Raises OSError for what is none.
    """
    if ":" in s:
        return int.from_bytes(inet_pton(s), "big")
    try:
        return int.from_bytes(socket.inet_aton(s), "big")
    except (OSError, ValueError) as error:
        raise OSError(f"Invalid IP4 address: {s}") from error


def cidr(i: int, n: int, mask: int = MASK) -> int:
    """Return the network of n bits in which the address i is. mask: MASK, or MASK6 for IPv6.

    Raises ValueError for a negative n.
    """
    return ~(mask >> n) & mask & i


def _mapped(address: str) -> int:
    number = addr2bin(address)
    return number if ":" in address else number | _MAPPED


def _addresses(host: str, family: int) -> list[str]:
    """What a name resolves to; nothing if it does not."""
    try:
        found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(each[4][0]) for each in found]


def iniplist(ipaddr: str, iplist: Iterable[str]) -> bool:
    """Return whether an IP address is in a list.

    An item is an address, a network (`10.0.0.0/8`, `2001:db8::/32`), a pattern (`192.168.0.*`), or
    a host's name, which is looked up, with or without `/bits`. `::ffff:1.2.3.4` is 1.2.3.4.
    Raises ValueError for an ipaddr that is none and for bits that are no number.

    >>> iniplist('66.179.26.146', ['127.0.0.1', '66.179.26.128/26'])
    True
    >>> iniplist('192.168.0.45', ['192.168.1.*'])
    False
    """
    if not (ip4re.match(ipaddr) or ip6re.match(ipaddr)):
        raise ValueError(f"Invalid ip syntax:{ipaddr}")
    number = _mapped(ipaddr)
    # A network of the other family, with bits meant for this one, would have everybody in it.
    family = socket.AF_INET if number >> 32 == _MAPPED >> 32 else socket.AF_INET6
    for item in iplist:
        if fnmatchcase(ipaddr.lower(), item.lower()):
            return True
        host, slash, bits = item.partition("/")
        try:
            size = int(bits) if slash else 128
        except ValueError as error:
            raise ValueError(f"not a number of bits: {item}") from error
        if size < 0:
            raise ValueError(f"negative number of bits: {item}")
        is_address = ip4re.match(host) or ip6re.match(host)
        found = [host] if is_address else _addresses(host, family) if dnsre.match(host) else []
        for address in found:
            wide = size + 96 if slash and ":" not in address else size
            if cidr(number, wide, MASK6) == cidr(_mapped(address), wide, MASK6):
                return True
    return False


def parse_addr(t: str) -> list[str]:
    """Split the address of an envelope into [user, domain], or [user] if it has no domain.

    Angle brackets, a source route and the quotes around the user are left out.

    >>> parse_addr('<"user@bar"@example.com>')
    ['user@bar', 'example.com']
    >>> parse_addr('@mx.example.com:user@example.com')
    ['user', 'example.com']
    """
    if t.startswith("<") and t.endswith(">"):
        t = t[1:-1]
    if t.startswith("@") and ":" in t:
        t = t.partition(":")[2]
    if t.startswith('"') and t.endswith('"') and len(t) > 1:
        return [t[1:-1]]
    user, at, domain = t.rpartition("@")
    if not at:
        return [t]
    if user.startswith('"') and user.endswith('"') and len(user) > 1:
        user = user[1:-1]
    return [user, domain]


# The address of a header is read as pieces, each with a letter for its kind: q, a text in quotes;
# l, a literal such as [192.0.2.1]; a space; w, a word; c, a comment; a mark stands for itself. What
# an address looks like is then a pattern of these letters.
_PIECE = re.compile(
    r"""(?P<q>"(?:[^"\\]|\\.)*")|(?P<l>\[[^][]*\])|(?P<space>\s+)|(?P<w>[^\s"()<>,;:@[\]\\]+)"""
    r"""|(?P<pair>\\.)|(?P<mark>.)""",
    re.DOTALL,
)
_IN_COMMENT = re.compile(r"\\(?P<pair>.)|[()]|[^()\\]+|\\", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_BLANK = "[ c]*"
_ADDRESS = re.compile(rf"{_BLANK}[wq]+{_BLANK}(?:@{_BLANK}[wl]{_BLANK})?")
_ROUTE = re.compile(rf"{_BLANK}@[^:<>]*:")
#: A name, in which an "@" behind a comma or in front of one would be another address; an address.
_NAMED = re.compile(r"((?:[^<>@\"]*[,;])?[^<>,;\"]*)<([^<>]*)>?[ c,;]*")
_PLAIN = re.compile(r"[ ,;]*([^<>,;]*)[ c,;]*")
#: A group, "Friends: ...;".
_LIST = re.compile(r"[^<>@,;:\"]*:(.*);[ c]*")
_Pieces = list[tuple[str, str]]  # letter, text


def _comment(t: str, at: int) -> tuple[str, int]:
    """The text of a comment, without those in it, and where it ends; -1 if it does not."""
    texts: list[str] = []
    depth = 0
    for found in _IN_COMMENT.finditer(t, at):
        if found[0] in "()":
            depth += 1 if found[0] == "(" else -1
            if not depth:
                return "".join(texts), found.end()
        else:
            texts.append(found["pair"] or found[0])
    return "", -1


def _pieces(t: str) -> _Pieces:
    """A header's text as pieces; none if a comment does not end."""
    pieces: _Pieces = []
    at = 0
    while found := _PIECE.match(t, at):
        text, at = found[0], found.end()
        if text == "(":
            text, at = _comment(t, found.start())
            if at < 0:
                return []
            pieces.append(("c", text))
        else:
            kinds = {"space": " ", "pair": "\\", "mark": text}
            pieces.append((kinds.get(found.lastgroup or "", found.lastgroup or ""), text))
    return pieces


def _full_name(pieces: _Pieces) -> str:
    """What people read as the name: without quotes, with one space for any number of them."""
    words = [""]
    for kind, text in pieces:
        if kind in " c":
            words.append("")
        else:
            words[-1] += _ESCAPED.sub(r"\1", text[1:-1]) if kind == "q" else text
    name = " ".join(filter(None, words))
    comments = " ".join(text for kind, text in pieces if kind == "c")
    return f"{name} ({comments})" if name and comments else name or comments


def _only_address(pieces: _Pieces) -> str:
    """An address, or "" for what is none."""
    if not _ADDRESS.fullmatch("".join(kind for kind, _ in pieces)):
        return ""
    return "".join(text for kind, text in pieces if kind not in " c")


def parseaddr(t: str) -> tuple[str, str]:
    """Split the address of a header into the full name and the address; both "" if it is none.

    Names that should have been quoted are taken too. Several addresses are none, since programs do
    not agree on which of them counts. The same under every version of Python.

    >>> parseaddr('"Full Name" <foo@example.com>')
    ('Full Name', 'foo@example.com')
    >>> parseaddr('God@heaven <@hop1.org,@hop2.net:jeff@spec.org>')
    ('God@heaven', 'jeff@spec.org')
    >>> parseaddr('ann@example.org, bob@example.net')
    ('', '')
    """
    pieces = _pieces(str(t))  # a Header of the package `email` too
    shape = "".join(kind for kind, _ in pieces)
    if group := _LIST.fullmatch(shape):
        pieces, shape = pieces[group.start(1) : group.end(1)], group[1]
    if named := _NAMED.fullmatch(shape):
        name, inside = named.span(1), named.span(2)
        if route := _ROUTE.match(shape, *inside):
            inside = (route.end(), inside[1])
        return _full_name(pieces[slice(*name)]), _only_address(pieces[slice(*inside)])
    if plain := _PLAIN.fullmatch(shape):
        address = _only_address(pieces[slice(*plain.span(1))])
        # A comment in front of the "@" counts twice: tests of the older package insist on that.
        comments = [
            text
            for (kind, text), following in zip(pieces, f"{shape[1:]} ", strict=False)
            if kind == "c" and address
            for _ in range(2 if following == "@" else 1)
        ]
        return " ".join(comments), address
    return "", ""


def decode(s: str | bytes, convert_eols: str | None = None) -> bytes:
    """Decode base64 whose padding may be missing; convert_eols takes the place of CR LF.

    Raises binascii.Error for what is cut off within a byte.
    """
    text = s.encode("ascii", "ignore") if isinstance(s, str) else s
    decoded = a2b_base64(text + b"==")
    return decoded.replace(b"\r\n", convert_eols.encode()) if convert_eols else decoded


_WORD_START = re.compile(r"=\?([^?\s]+)\?([bq])\?", re.IGNORECASE)
#: Their decoders take much more time than the text is long, or make what is no text.
_NO_CHARSETS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}


def _words(val: str) -> list[tuple[str, bytes, str]]:
    """A header as pieces: (plain text, b"", "") and ("", bytes of encoded words, charset)."""
    pieces: list[tuple[str, bytes, str]] = []
    at = search = 0
    while start := _WORD_START.search(val, search):
        end = val.find("?=", start.end())
        if end < 0:
            break
        raw = val[start.end() : end].encode("ascii")
        data = decode(raw) if start[2] in "bB" else a2b_qp(raw, header=True)
        charset = start[1].partition("*")[0].lower()
        if between := val[at : start.start()]:
            blank = between.isspace()
            if not (blank and (not pieces or pieces[-1][2])):
                pieces.append((between, b"", ""))
        pieces.append(("", data, charset))
        at = search = end + 2
    if at and val[at:]:
        pieces.append((val[at:], b"", ""))
    return pieces


def _text(data: bytes, charset: str) -> str:
    try:
        if charset.isascii():  # from Python 3.17 on others raise
            codec = codecs.lookup(charset)
            known = codec.name.replace("-", "_") not in _NO_CHARSETS
            if known and getattr(codec, "_is_text_encoding", True):
                return codec.decode(data, "replace")[0]
    except LookupError:
        pass
    return data.decode("ascii")


def parse_header(val: str) -> str:
    """Return a header's text with its encoded words (RFC 2047) decoded, if all of them can be.

    Otherwise, as for an unknown character set, the text is returned as it is.

    >>> parse_header('a =?utf-8?q?caf=C3=A9?=')
    'a café'
    """
    try:
        pieces = _words(val)
        result: list[str] = []
        gathered: list[bytes] = []  # words of one character set, which may cut within a character
        before = ""
        for plain, data, charset in [*pieces, ("", b"", "")]:
            if charset != before and gathered:
                result.append(_text(b"".join(gathered), before))
                gathered.clear()
            before = charset
            if charset:
                gathered.append(data)
            else:
                result.append(plain)
    except (Error, UnicodeError, ValueError):
        return val
    return "".join(result) if pieces else val
