"""Messages whose parts can be looked at and changed, every other byte staying as it came; and what
makes them harmless: attachments that would run are replaced by a text, scripts in HTML removed.

    import mime

    with open("message.eml", "rb") as file:
        msg = mime.message_from_file(file)
    if mime.defang(msg):
        print(msg.as_bytes())

Built on the standard `email` package. What programs may set for themselves stands in this file:
`extlist`, `bad_extensions` and `virus_msg`.
"""

from __future__ import annotations

import codecs
import io
import re
import socket
import zipfile
from collections.abc import Callable, Iterator
from email.errors import MessageDefect
from typing import Any

from mime import transfer
from mime.archives import SuspiciousArchive, zipnames
from mime.charsets import codec_of
from mime.html import HTMLScriptFilter, SGMLFilter
from mime.message import MimeGenerator, MimeMessage, message_from_file
from mime.parameters import ends_with, kind_of, unquote
from mime.parameters import split_parameters as _parseparam
from mime.parse import MAX_DEPTH, MAX_PARTS, NotTakenApartDefect, SeveralReadingsDefect

__all__ = [
    "MAX_DEPTH",
    "MAX_ENCODED",
    "MAX_PARTS",
    "HTMLScriptFilter",
    "MimeGenerator",
    "MimeMessage",
    "NotTakenApartDefect",
    "SGMLFilter",
    "SeveralReadingsDefect",
    "SuspiciousArchive",
    "_parseparam",
    "bad_extensions",
    "check_attachments",
    "check_ext",
    "check_html",
    "check_name",
    "defang",
    "extlist",
    "message_from_file",
    "unquote",
    "virus_msg",
    "zipnames",
]

#: Extensions of files that systems may run, separated by commas: the older package's list, which is
#: not a current one. Microsoft keeps such a list, under the title "Blocked attachments in Outlook"
#: at support.microsoft.com. Programs add to `bad_extensions`, which `check_ext` goes by.
extlist = (
    "ade,adp,asd,asx,asp,bas,bat,chm,cmd,com,cpl,crt,dll,exe,hlp,hta,inf,ins,isp,js,jse,lnk,mdb,"
    "mde,msc,msi,msp,mst,ocx,pcd,pif,reg,scr,sct,shs,url,vb,vbe,vbs,wsc,wsf,wsh"
)
#: The same with their dots, in lower case: what `check_ext` goes by.
bad_extensions = [f".{extension}" for extension in extlist.split(",")]
#: The text that takes the place of a dangerous attachment, with three %s: its name, this host's
#: name, and where the original is saved.
virus_msg = """This message appeared to contain a virus.
It was originally named '%s', and has been removed.
A copy of your original message was saved as '%s:%s'.
See your administrator.
"""

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml", "image/svg+xml"})
_HTML_NAMES = (".htm", ".html", ".shtml", ".xht", ".xhtml", ".svg")
_ASCII = bytes(range(32, 127))
_ASCII_SCRIPT = re.compile(rb"<[^\s<>]*script|<!entity", re.IGNORECASE)
_META = re.compile(rb"""charset\s*=\s*["']?\s*([!-%*-:?-~]+)""", re.IGNORECASE)
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NO_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}  # as the HTML standard has it
_WIDTHS = {"utf-16": 2, "utf-32": 4}
_CONTINUE = 0
MAX_ENCODED = 5
"""Levels of messages in a transfer encoding, within each other, that are looked into."""


def check_ext(name: str | None) -> str | None:
    """`name` if a system might run what it is the name of, by its extension; else None, as for
    None, the name of a part that has none.

    What `bad_extensions` holds counts, in any case; also where systems drop what stands within or
    behind it (what cannot be seen; dots, spaces, backslashes and `::$DATA` at the end; all from a
    NUL on).
    """
    return name if name and ends_with(name, tuple(bad_extensions)) else None


def _parts(msg: Any, scan_rfc822: bool = True) -> Iterator[Any]:
    """All parts that hold no others, all messages inside, and all parts that mail programs take
    apart in several ways, in front of what they hold."""
    waiting = [msg]
    while waiting:
        part = waiting.pop()
        is_message = part.get_content_maintype() == "message"
        if is_message or not part.is_multipart() or _has(part, SeveralReadingsDefect):
            yield part
        if part.is_multipart() and (scan_rfc822 or not is_message):
            waiting += reversed(part.get_payload())


def check_attachments(msg: Any, check: Callable[[Any], Any]) -> Any:
    """Calls check(part) for each part that holds no others, also in messages inside of messages.

    The first result that is neither 0 (Milter.CONTINUE) nor None ends it and is returned, else 0.
    """
    for part in _parts(msg):
        result = None if part.is_multipart() else check(part)
        if result:
            return result
    return _CONTINUE


def check_name(
    msg: Any,
    savname: str | None = None,
    ckname: Callable[[str], Any] = check_ext,
    scan_zip: bool = False,
) -> int:
    """Replaces a part by a text, `virus_msg`, if a name of it is not allowed.

    savname: the name of the copy that the text speaks of. ckname: says of a name whether it is
    not allowed; a str that it returns stands in the text in the name's place. scan_zip: names in
    archives count too, and what cannot be looked into is not allowed. Nor is a part that was not
    taken apart (NotTakenApartDefect), or that programs take apart in several ways
    (SeveralReadingsDefect). Always returns 0.
    """
    bad = _bad_name(msg, ckname, scan_zip)
    if bad is not None:
        _replace(msg, bad, savname)
    return _CONTINUE


def _bad_name(msg: Any, ckname: Callable[[str], Any], scan_zip: bool) -> str | None:
    if _has(msg, NotTakenApartDefect):
        return "too many parts"
    if _has(msg, SeveralReadingsDefect):
        return "parts that programs read differently"
    try:
        names = msg.getnames(scan_zip)
    except zipfile.BadZipFile:
        return msg.get_filename() or "archive"
    for attribute, name in names:
        if found := ckname(name):
            shown = found if isinstance(found, str) else name
            return str((attribute == "zipname" and msg.get_filename()) or shown)
    return None


def _has(msg: Any, kind: type[MessageDefect]) -> bool:
    return any(isinstance(defect, kind) for defect in msg.defects)


def _replace(msg: Any, name: str, savname: str | None) -> None:
    """Makes a part the text that says what was removed."""
    for header in ("content-type", "content-disposition", "content-transfer-encoding"):
        del msg[header]
    msg["Content-Type"] = "text/plain; name=WARNING.TXT"
    plain = ascii(name)[1:-1][:200]
    msg.set_payload(virus_msg % (plain, socket.gethostname(), savname))


def check_html(msg: Any, savname: str | None = None) -> int:  # noqa: ARG001 (as others have it)
    """Takes the scripts out of a part that is HTML (also XHTML and SVG), to who goes by any of its
    types and names. Always returns 0.

    The rest stays the same to the byte, and so do charset and transfer encoding (uuencode becomes
    base64). In charsets with shifts (UTF-7, ISO-2022) the rest stays the same text; what in it is
    no text becomes U+FFFD, and the charset UTF-8.
    """
    if msg.is_multipart() or not _is_html(msg):
        return _CONTINUE
    was = data = msg.get_payload_source()
    charset = None
    for position, codec in enumerate(_codecs(msg, data)):
        if position and codec == "latin-1" and not _ASCII_SCRIPT.search(data):
            break
        data, new_charset = _filtered(data, codec)
        charset = charset or new_charset
    if data != was:
        _set_data(msg, data, charset)
    return _CONTINUE


def _is_html(msg: Any) -> bool:
    kinds = map(kind_of, msg.fields("content-type"))
    return not _HTML_TYPES.isdisjoint(kinds) or any(
        ends_with(name, _HTML_NAMES) for _, name in msg.getnames()
    )


def _codecs(msg: Any, data: bytes) -> list[str]:
    """What to read HTML as, in turn: Latin-1, which keeps all bytes, stands for all charsets in
    which ASCII means what it says. Others come before it: what the data begin with, and the first
    and the last charset that the header names, for who believes in that one."""
    found = [codec for mark, codec in _MARKS if data.startswith(mark)][:1]
    names = [text for attribute, text in msg.getnames() if attribute == "charset"]
    named = [name for name in map(codec_of, names) if name]
    if not (found or named) and (meta := _META.search(data, 0, 4096)):
        named = list(filter(None, [codec_of(meta[1].decode())]))
    found += [_NO_MARK.get(name, name) for name in named[:1] + named[-1:] if _is_shifted(name)]
    return [*dict.fromkeys(found), "latin-1"]


def _is_shifted(name: str) -> bool:
    """Whether ASCII may mean something else in a charset."""
    return name.startswith(("iso2022", "hz")) or _ASCII.decode(name, "replace") != _ASCII.decode()


def _filtered(data: bytes, codec: str) -> tuple[bytes, str | None]:
    """HTML without scripts, and its new charset if it could not be kept."""
    width = _WIDTHS.get(codec[:6], 1)
    errors = "surrogatepass" if width > 1 else "strict"
    whole = len(data) - len(data) % width
    try:
        text, rest = data[:whole].decode(codec, errors), data[whole:]
    except ValueError:
        text, rest = data.decode(codec, "replace"), b""
    out = io.StringIO()
    script_filter = HTMLScriptFilter(out)
    script_filter.feed(text)
    script_filter.close()
    if not script_filter.modified:
        return data, None
    try:
        return out.getvalue().encode(codec, errors) + rest, None
    except ValueError:
        return out.getvalue().encode("utf-8", "replace"), "utf-8"


def _set_data(msg: Any, data: bytes, charset: str | None) -> None:
    """Gives a part its new data in the encoding that it had."""
    if charset:
        msg.set_param("charset", charset)
    line_end = msg.policy.linesep.encode("ascii")
    encoded = transfer.encode(
        data, transfer.encoding_of(msg.get("content-transfer-encoding")), line_end
    )
    if encoded is None:
        msg.replace_header("Content-Transfer-Encoding", "base64")
        encoded = transfer.encode(data, "base64", line_end)
    msg.set_payload(encoded)


def defang(
    msg: Any,
    savname: str | None = None,
    check: Callable[[str], Any] = check_ext,
    scan_rfc822: bool = True,
    scan_zip: bool = False,
) -> bool:
    """Replaces attachments that are not allowed and removes scripts; returns whether it did.

    savname, check, scan_zip: as in check_name; check's default goes by the older package's list,
    see `extlist`. scan_rfc822: whether to look into messages inside of the message, also if they
    are encoded (which RFC 2046 forbids), MAX_ENCODED within each other at most.
    """
    return _defang(msg, 0, (savname, check, scan_zip), scan_rfc822)


def _defang(
    msg: Any, level: int, how: tuple[str | None, Callable[[str], Any], bool], scan_rfc822: bool
) -> bool:
    savname = how[0]
    for part in _parts(msg, scan_rfc822):
        check_name(part, *how)
        check_html(part, savname)
        encoding = transfer.encoding_of(part.getencoding())
        if scan_rfc822 and part.is_multipart() and transfer.is_encoded(encoding):
            if level == MAX_ENCODED:
                _replace(part, "too many parts", savname)
                continue
            inner = message_from_file(io.BytesIO(part.get_payload_source()))
            if _defang(inner, level + 1, how, scan_rfc822):
                _set_data(part, inner.as_bytes(unixfrom=True), None)
    return bool(msg.ismodified())
