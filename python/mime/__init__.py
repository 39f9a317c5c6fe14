"""Messages whose parts can be looked at and changed, every other byte staying as it came; and what
makes them harmless: attachments that would run are replaced by a text, scripts in HTML removed.

    import mime

    msg = mime.message_from_file(open("message.eml", "rb"))
    if mime.defang(msg):
        print(msg.as_bytes())

Built on the standard `email` package. What programs may set for themselves stands in this file:
`extlist`, `bad_extensions` and `virus_msg`.
"""

from __future__ import annotations

import base64
import codecs
import io
import quopri
import socket
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from mime.archives import SuspiciousArchive, zipnames
from mime.html import HTMLScriptFilter, SGMLFilter
from mime.message import MimeGenerator, MimeMessage, message_from_file
from mime.parameters import split_parameters as _parseparam
from mime.parameters import unquote
from mime.parse import MAX_DEPTH, MAX_PARTS, NotTakenApartDefect

__all__ = [
    "MAX_DEPTH",
    "MAX_PARTS",
    "HTMLScriptFilter",
    "MimeGenerator",
    "MimeMessage",
    "NotTakenApartDefect",
    "SGMLFilter",
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

extlist = (
    "ade,adp,asd,asx,asp,bas,bat,chm,cmd,com,cpl,crt,dll,exe,hlp,hta,inf,ins,isp,js,jse,lnk,mdb,"
    "mde,msc,msi,msp,mst,ocx,pcd,pif,reg,scr,sct,shs,url,vb,vbe,vbs,wsc,wsf,wsh"
)
bad_extensions = [f".{extension}" for extension in extlist.split(",")]
virus_msg = """This message appeared to contain a virus.
It was originally named '%s', and has been removed.
A copy of your original message was saved as '%s:%s'.
See your administrator.
"""

_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml", "image/svg+xml"})
_ASCII = bytes(range(32, 127))
_CONTINUE = 0


def check_ext(name: str) -> str | None:
    """`name` if a system might run what it is the name of, by its extension; else None.

    What `bad_extensions` holds counts, in any case; also when the system drops what follows it
    (dots, white space, NULs at the end).
    """
    text = name.rstrip(". \t\r\n\0").lower()
    return name if text.endswith(tuple(bad_extensions)) else None


def _leaves(msg: Any, scan_rfc822: bool = True) -> Iterator[Any]:
    """All parts that hold no others."""
    waiting = [msg]
    while waiting:
        part = waiting.pop()
        if not part.is_multipart():
            yield part
        elif scan_rfc822 or part.get_content_maintype() != "message":
            waiting += reversed(part.get_payload())


def check_attachments(msg: Any, check: Callable[[Any], Any]) -> Any:
    """Calls check(part) for each part that holds no others, also in messages inside of messages.

    The first result that is neither 0 (Milter.CONTINUE) nor None ends it and is returned, else 0.
    """
    for part in _leaves(msg):
        result = check(part)
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
    not allowed. scan_zip: names in archives count too, and what cannot be looked into is not
    allowed. Nor is a part that was not taken apart (NotTakenApartDefect). Always returns 0.
    """
    bad = _bad_name(msg, ckname, scan_zip)
    if bad is not None:
        _replace(msg, bad, savname)
    return _CONTINUE


def _bad_name(msg: Any, ckname: Callable[[str], Any], scan_zip: bool) -> str | None:
    if any(isinstance(defect, NotTakenApartDefect) for defect in msg.defects):
        return "too many parts"
    try:
        names = msg.getnames(scan_zip)
    except zipfile.BadZipFile:
        return msg.get_filename() or "archive"
    for _, name in names:
        if ckname(name):
            return str(name)
    return None


def _replace(msg: Any, name: str, savname: str | None) -> None:
    """Makes a part the text that says what was removed."""
    for header in ("content-type", "content-disposition", "content-transfer-encoding"):
        del msg[header]
    msg["Content-Type"] = "text/plain; name=WARNING.TXT"
    plain = ascii(name)[1:-1][:200]
    msg.set_payload(virus_msg % (plain, socket.gethostname(), savname))


def check_html(msg: Any, savname: str | None = None) -> int:
    """Takes the scripts out of a part that is HTML (also XHTML and SVG); the rest stays the same
    to the byte, and so does the transfer encoding. Always returns 0."""
    if msg.get_content_type() not in _HTML_TYPES or msg.is_multipart():
        return _CONTINUE
    data = msg.get_payload_decoded() or b""
    codec = _codec(msg, data)
    out = io.StringIO()
    script_filter = HTMLScriptFilter(out)
    script_filter.feed(data.decode(codec, "replace"))
    script_filter.close()
    if script_filter.modified:
        _set_data(msg, out.getvalue(), codec)
    return _CONTINUE


def _codec(msg: Any, data: bytes) -> str:
    """What to read HTML as: Latin-1, which keeps all bytes, where ASCII means what it says."""
    for mark, codec in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return codec
    try:
        codec = codecs.lookup(msg.get_content_charset("ascii")).name
        if codec.startswith(("iso2022", "hz")) or _ASCII.decode(codec) != _ASCII.decode("ascii"):
            return codec
    except (LookupError, ValueError):
        pass
    return "latin-1"


def _set_data(msg: Any, text: str, codec: str) -> None:
    """Gives a part its new text in the encodings that it had."""
    try:
        data = text.encode(codec)
    except ValueError:
        data = text.encode("utf-8", "replace")
        msg.set_param("charset", "utf-8")
    encoding = str(msg.getencoding()).strip().lower()
    if encoding == "base64":
        data = base64.encodebytes(data)
    elif encoding == "quoted-printable":
        data = quopri.encodestring(data)
    msg.set_payload(data)


def defang(
    msg: Any,
    savname: str | None = None,
    check: Callable[[str], Any] = check_ext,
    scan_rfc822: bool = True,
    scan_zip: bool = False,
) -> bool:
    """Replaces attachments that are not allowed and removes scripts; returns whether it did.

    savname, check, scan_zip: as in check_name. scan_rfc822: whether to look into messages inside
    of the message.
    """
    for part in _leaves(msg, scan_rfc822):
        check_name(part, savname, check, scan_zip)
        check_html(part, savname)
    return bool(msg.ismodified())
