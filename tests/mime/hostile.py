"""Inputs made to be slow, of any size: for the tests of growth and for bench/mime_figures.py."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle
import zipfile
from collections.abc import Callable
from typing import NamedTuple

import mime
from messages import filtered, read

SMALL = 150


class Shape(NamedTuple):
    """make(times) makes an input whose size goes with `times`; use() is what is measured."""

    make: Callable[[int], bytes]
    use: Callable[[bytes], object]


def whole(data: bytes) -> None:
    """A message on its way through."""
    message = read(data)
    mime.defang(message, scan_zip=True)
    message.as_bytes()


def page(data: bytes) -> None:
    """HTML."""
    filtered(data.decode("latin-1"))


def header(data: bytes) -> None:
    """A Content-Type."""
    message = read(b"Content-Type: text/plain; " + data + b"\n\n")
    message.getnames()
    message.getparams()
    message.get_filename()
    message.get_boundary()
    mime.unquote(data.decode("latin-1"))


def changed(data: bytes) -> None:
    """A Content-Type that is changed."""
    message = read(b"Content-Type: text/plain; " + data + b"\n\n\xe9")
    message.set_param("name", "x")
    message.del_param("charset")
    message.set_type("text/html")
    message.set_boundary("b")
    message.set_charset("utf-8")
    copies(message.as_bytes())


def copies(data: bytes) -> None:
    """A message that is copied, and written as text."""
    message = read(data)
    copy.deepcopy(message).as_bytes()
    pickle.loads(pickle.dumps(message)).as_bytes()
    message.as_string()
    for part in message.walk():
        part.ismodified()


def archive(data: bytes) -> None:
    """An archive, good or not."""
    with contextlib.suppress(zipfile.BadZipFile):
        mime.zipnames(data)


def _many(piece: bytes, before: bytes = b"", after: bytes = b"") -> Callable[[int], bytes]:
    return lambda times: before + piece * times + after


def _numbered(form: bytes, before: bytes = b"") -> Callable[[int], bytes]:
    return lambda times: before + b"".join(form.replace(b"#", b"%d" % at) for at in range(times))


def _zip(times: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for at in range(times):
            made.writestr(f"{at}.txt", b"x")
    return out.getvalue()


_MULTIPART = b"Content-Type: multipart/mixed; boundary=B\n\n"
_HTML = b"Content-Type: text/html\n\n"

SHAPES = {
    "parts": Shape(_many(b"--B\n\nx\n", _MULTIPART), whole),
    "parts with headers": Shape(_many(b"--B\nA: b\nC: d\n\nx\n", _MULTIPART), whole),
    "parts that are pages": Shape(_many(b"--B\n" + _HTML + b"<script>\n", _MULTIPART), whole),
    "lines that are no delimiters": Shape(_many(b"--\n--C\n--B \tx\n", _MULTIPART), whole),
    "levels of multiparts": Shape(
        _numbered(b"Content-Type: multipart/mixed; boundary=b#\n\n--b#\n"), whole
    ),
    "levels of messages": Shape(_many(b"Content-Type: message/rfc822\n\n"), whole),
    "levels with one boundary": Shape(
        _many(b"Content-Type: multipart/mixed; boundary=B\n\n--B\n"), whole
    ),
    "parts with two boundaries": Shape(
        _many(b"--B\nContent-Type: multipart/mixed; boundary=C; boundary=D\n\nx\n", _MULTIPART),
        whole,
    ),
    "boundaries": Shape(_numbered(b"Content-Type: multipart/mixed; boundary=#\n"), whole),
    "header fields": Shape(_many(b"A: b\n"), whole),
    "header lines that are none": Shape(_many(b":\nFrom x\n y\n"), whole),
    "a folded header": Shape(_many(b" x\n", b"A: b\n"), whole),
    "a long header line": Shape(_many(b"x: ", b"A: "), whole),
    "a delivery status": Shape(
        _many(b"A: b\n\n", b"Content-Type: message/delivery-status\n\n"), whole
    ),
    "bare CR": Shape(_many(b"\r", _MULTIPART), whole),
    "8-bit text": Shape(_many(b"\xe9\n", b"Content-Type: text/html; charset=punycode\n\n"), whole),
    "base64": Shape(_many(b"PHNj\n", b"Content-Transfer-Encoding: base64\n" + _HTML), whole),
    "quoted-printable": Shape(
        _many(b"=3C=\n \t", b"Content-Transfer-Encoding: quoted-printable\n" + _HTML), whole
    ),
    "UTF-7": Shape(_many(b"+ADw-", b"Content-Type: text/html; charset=utf-7\n\n"), whole),
    "parameters": Shape(_numbered(b"a#=b; "), header),
    "parameters of one name": Shape(_many(b"name=x.txt; "), header),
    "parameters in parts": Shape(_numbered(b"name*#=x; "), header),
    "parameters in parts, each cut": Shape(_numbered(b"name#*0=x; "), header),
    "semicolons": Shape(_many(b";"), header),
    "quotes": Shape(_many(b'"', b"name="), header),
    "quotes in turn": Shape(_many(b"\"'", b"name="), header),
    "a quote that never closes": Shape(_many(b'\\";', b'name="'), header),
    "backslashes": Shape(_many(b"\\", b'name="'), header),
    "spaces": Shape(_many(b" ", b"name=", b"x"), header),
    "asterisks": Shape(_many(b"*", b"name", b"=x"), header),
    "percents": Shape(_many(b"%4", b"name*=''"), header),
    "apostrophes": Shape(_many(b"'", b"name*=x"), header),
    "encoded words": Shape(_many(b"=?utf-8?q?a?= ", b'name="'), header),
    "beginnings of encoded words": Shape(_many(b"=?x?q?", b'name="'), header),
    "ends of encoded words": Shape(_many(b"?= ", b'name="', b"=?"), header),
    "a long encoded word": Shape(_many(b"YQ", b'name="=?punycode?b?', b"?="), header),
    "encoded words with question marks": Shape(_many(b"=?x?q?a?b", b'name="'), header),
    "parameters in parts, the same": Shape(_many(b"name*0=x; name*2*=%41; "), header),
    "comments in a name": Shape(_many(b"(a)", b"name="), header),
    "comments that do not close": Shape(_many(b"(", b"name="), header),
    "comments that close too often": Shape(_many(b"(\\)))", b"name="), header),
    "names without semicolons": Shape(_many(b" name=x"), header),
    "names without values": Shape(_many(b' name"( name'), header),
    "names in quotes that do not close": Shape(_many(b'\\" name=', b'x="'), header),
    "names in encoded words": Shape(_many(b"; =?x?q?name=3Da?="), header),
    "parameters that are changed": Shape(_numbered(b"a#=b; "), changed),
    "parameters in parts that are changed": Shape(_numbered(b"name*#=x; "), changed),
    "quotes that are changed": Shape(_many(b'";', b"name="), changed),
    "parts that are copied": Shape(_many(b"--B\nA: b\n\n\xe9\n", _MULTIPART), copies),
    "levels that are copied": Shape(_many(b"Content-Type: message/rfc822\n\n"), copies),
    "header fields that are copied": Shape(_many(b"A: \xe9\n"), copies),
    "a long header that is copied": Shape(_many(b"a b ", b"A: "), copies),
    "a long header of 8-bit text that is copied": Shape(_many(b"\xe9 ", b"A: "), copies),
    "several Content-Types": Shape(_many(b"Content-Type: a/b; name=c\n"), whole),
    "several encodings": Shape(_many(b"Content-Transfer-Encoding: base64\n"), whole),
    "beginnings of uuencode": Shape(
        _many(b"begin 644 a\n", b"Content-Transfer-Encoding: uuencode\n\n"), whole
    ),
    "locations": Shape(_many(b"Content-Location: a/b%4\n"), whole),
    "padding in base64": Shape(
        _many(b"YQ==", b"Content-Transfer-Encoding: base64\n" + _HTML), whole
    ),
    "messages inside that are encoded": Shape(
        _many(
            b"--B\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n"
            b"Q29udGVudC1UeXBlOiB0ZXh0L2h0bWwKCjxzY3JpcHQ+\n",
            _MULTIPART,
        ),
        whole,
    ),
    "encoded messages within each other": Shape(
        _many(
            b"Content-Type: message/rfc822\nContent-Transfer-Encoding: quoted-printable\n\n",
            after=b"x" * 1000,
        ),
        whole,
    ),
    "less-than signs": Shape(_many(b"<"), page),
    "tags that do not end": Shape(_many(b"<a "), page),
    "tags in tags": Shape(_many(b"<a<"), page),
    "tags": Shape(_many(b"<a b=c>"), page),
    "attributes": Shape(_many(b" a=b", b"<a"), page),
    "equals signs": Shape(_many(b"=", b"<a "), page),
    "slashes": Shape(_many(b"/", b"<a "), page),
    "attributes with a quote": Shape(_many(b' a="', b"<a"), page),
    "attributes with quotes in turn": Shape(_many(b" a=\" b='", b"<a"), page),
    "white space": Shape(_many(b" ", b"<a"), page),
    "white space and an equals sign": Shape(_many(b" \n= \n", b"<a b"), page),
    "white space after names": Shape(_many(b"a   \t  ", b"<a "), page),
    "NULs": Shape(_many(b"\0", b"<"), page),
    "NULs in names": Shape(_many(b"<\0s\0c\0"), page),
    "prefixes": Shape(_many(b"<" + b"x" * 20 + b":"), page),
    "comments that do not end": Shape(_many(b"<!--"), page),
    "comments": Shape(_many(b"<!-- - -->"), page),
    "conditional comments": Shape(_many(b"<!--[if x]><p>-->"), page),
    "conditional comments that cut": Shape(_many(b"<!--[if x]><p -->"), page),
    "dashes": Shape(_many(b"--", b"<!-"), page),
    "declarations": Shape(_many(b"<!x>"), page),
    "declarations that do not end": Shape(_many(b"<!x"), page),
    "instructions": Shape(_many(b"<?x>"), page),
    "instructions that end late": Shape(_many(b"<?x><p>", after=b"?>"), page),
    "CDATA": Shape(_many(b"<![CDATA[x>"), page),
    "CDATA and its end": Shape(_many(b"<![CDATA[x>]]>"), page),
    "titles": Shape(_many(b"<title>"), page),
    "titles that end": Shape(_many(b"<title><p></title>"), page),
    "titles in styles": Shape(_many(b"<style><title></style>"), page),
    "ends of titles": Shape(_many(b"</title", b"<title>"), page),
    "scripts": Shape(_many(b"<script>"), page),
    "scripts that end": Shape(_many(b"<script></script>"), page),
    "scripts that do not begin": Shape(_many(b"<script "), page),
    "scripts with quotes": Shape(_many(b"<script a='>\"", b"<!--"), page),
    "scripts after what never ends": Shape(_many(b"<script></script>", b"<!--"), page),
    "ends of scripts": Shape(_many(b"</script", b"<script>"), page),
    "entities": Shape(_many(b"<!ENTITY a '&#60;'>", b"<!DOCTYPE x ["), page),
    "entities that do not end": Shape(_many(b"<!ENTITY '", b"<!DOCTYPE x [", b"&#60;"), page),
    "document types": Shape(_many(b"<!DOCTYPE x '>'>"), page),
    "document types that do not end": Shape(_many(b"<!DOCTYPE x '"), page),
    "references": Shape(_many(b"&#60;&#x26;&#0"), page),
    "prefixes in prefixes": Shape(_many(b":", b"<x"), page),
    "an archive": Shape(_zip, archive),
    "an archive's signatures": Shape(_many(b"PK\1\2"), archive),
    "ends of archives": Shape(_many(b"PK\5\6" + bytes(18)), archive),
}
