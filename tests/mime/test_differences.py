"""Where `mime` is not as the older package's: each row of docs/differences.md, run on both."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
OLDER = "/usr/bin/python3"


class Difference(NamedTuple):
    """An expression, and its value with the older package and with ours; an exception is its
    name."""

    code: str
    theirs: Any
    ours: Any


DIFFERENCES = {
    "line ends": Difference(
        r"read(b'A: b\r\n\r\nc\r\n').as_bytes().hex()",
        b"A: b\n\nc\n".hex(),
        b"A: b\r\n\r\nc\r\n".hex(),
    ),
    "an envelope line": Difference(
        r"read(b'From x\nA:b\n y\n:z\n\nc').as_bytes().decode()",
        "A: b\n y\n\nc",
        "A:b\n y\n:z\n\nc",
    ),
    "a header that is added and deleted": Difference("undone()", True, False),
    "a header that is not there": Difference(
        "told('__delitem__', 'C') + told('set_type', 'c/d')[:1]",
        [["C", None], ["mime-version", None]],
        [["MIME-Version", "1.0"]],
    ),
    "replace_header": Difference("told('replace_header', 'A', 'c')", [], [["A", "c"]]),
    "set_boundary": Difference(
        "told('set_boundary', 'x')", [], [["Content-Type", 'a/b; boundary="x"']]
    ),
    "a parameter beside 8-bit text": Difference(
        "told('set_param', 'c', 'd', content=b'a/b; e=\\xe9')[-1:]",
        "TypeError",
        [["Content-Type", 'a/b; e=\udce9; c="d"']],
    ),
    "a value with lines": Difference("lines()", "HeaderParseError", "A: b\nX: a\n b: c\n\n"),
    "a name without a header": Difference(
        "read(b'Content-Type: a/b; name=c\\n\\n').getnames()",
        [["a/b", ""], ["name", "c"], ["filename", "c"]],
        [["a/b", ""], ["name", "c"]],
    ),
    "RFC 2231": Difference("""names(b"name*=utf-8''a%2Eexe")""", "NameError", ["a.exe"]),
    "RFC 2047 in a name": Difference(
        "names(b'name=\"=?utf-8?b?YS5leGU=?=\"')",
        ["=?utf-8?b?YS5leGU=?="] * 2,
        ["=?utf-8?b?YS5leGU=?=", "a.exe"],
    ),
    "text after the closing quote": Difference(
        "names(b'name=\"a.exe\"b')", ['"a.exe"b'] * 2, ["a.exe", "a.exeb", 'a.exe"b']
    ),
    "a name in other headers": Difference(
        "others(b'Content-Disposition: a; name=b')", [None], ["b"]
    ),
    "a name in a second header": Difference(
        "others(b'Content-Disposition: a; filename=b\\nContent-Disposition: a; filename=c')",
        ["b"],
        ["b", "c"],
    ),
    "dots and spaces at the end": Difference("mime.check_ext('a.exe. ')", None, "a.exe. "),
    "scan_rfc822": Difference("inner()", True, False),
    "a message inside that has a name": Difference(
        "mime.defang(read(b'Content-Type: message/rfc822; name=a.exe\\n\\nb'))", False, True
    ),
    "a message inside that is encoded": Difference("encoded()", False, True),
    "a message inside": Difference("'boundary=' in changed_inside()", True, False),
    "archives within archives": Difference("deep()", False, True),
    "a member that not all programs see": Difference("behind_another()", False, True),
    "boundaries that programs read differently": Difference("two_boundaries()", False, True),
    "HTML by its name": Difference(
        "named(b'a.htm'), named(b'a.html')", [True, False], [True, True]
    ),
    "HTML with a comment": Difference("html(b'<script>', b'text/html (x)')", False, True),
    "base64 with more than it needs": Difference("more()", False, True),
    "bytes in HTML": Difference("html(b'<b>\\xe9<script>x</script>')", "NameError", True),
    "HTML after it was changed": Difference("'quoted-printable' in changed_html()", True, False),
    "a script in an attribute": Difference(
        "page('<a b=\"<script>\">c</a>')", '<a b="</a>', '<a b="<script>">c</a>'
    ),
    "a script that never ends": Difference("page('a<script>b')", "a", "a{}"),
    "a script that HTML does not let end at once": Difference(
        "page('<script/>a')", "<script/>a", "{}"
    ),
    "the end of no script": Difference("page('a</script>b')", "ab", "a</script>b"),
    "a processing instruction": Difference("page('<?a?>b')", "b", "<?a?>b"),
}

PROGRAM = r"""
import base64, contextlib, io, json, sys, zipfile
import mime
def read(data): return mime.message_from_file(io.BytesIO(data))
def names(parameter):
    message = read(b"Content-Type: a/b; " + parameter + b"\n\n")
    return [name for key, name in message.getnames() if name and key != "a/b"]
def undone():
    message = read(b"A: b\n\nc\n")
    message["X"] = "y"
    del message["X"]
    return message.ismodified()
def told(method, *arguments, content=b"a/b"):
    message, log = read(b"A: b\nContent-Type: " + content + b"\n\nc\n"), []
    message.headerchange = lambda msg, name, value: log.append([name, value])
    getattr(message, method)(*arguments)
    return log
def lines():
    message = read(b"A: b\n\n")
    message["X"] = "a\nb: c"
    return message.as_bytes().decode()
def others(header):
    return [name for key, name in read(header + b"\n\n").getnames() if "/" not in key]
def named(name):
    head = b"Content-Type: application/octet-stream; name=" + name
    return mime.defang(read(head + b"\n\n<script>"))
def encoded():
    head = b"Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n"
    return mime.defang(read(head + base64.encodebytes(INNER)))
def more():
    head = b"Content-Type: text/html\nContent-Transfer-Encoding: base64\n\n"
    return mime.defang(read(head + base64.encodebytes(b"<script>").rstrip(b"=\n") + b"AA"))
INNER = b"Content-Type: message/rfc822\n\nContent-Type: a/b; name=c.exe\n\nd\n"
def inner(): return mime.defang(read(INNER), scan_rfc822=False)
def changed_inside():
    message = read(INNER)
    mime.defang(message)
    return message.as_bytes().decode()
def behind_another():
    archives = b""
    for name in ("a.exe", "b.txt"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(name, "x")
        archives += out.getvalue()
    head = b"Content-Type: application/zip; name=a.zip\nContent-Transfer-Encoding: base64\n\n"
    msg = read(head + base64.encodebytes(archives))
    mime.defang(msg, scan_zip=True)
    return msg.ismodified()

def two_boundaries():
    head = b"Content-Type: multipart/mixed; boundary=A; boundary=B\n\n--A\n\nx\n--B\n"
    msg = read(head + b"Content-Disposition: attachment; filename=a.exe\n\nx\n--B--\n--A--\n")
    mime.defang(msg)
    return msg.ismodified()

def deep():
    data = b"x"
    for name in ["a.txt"] + ["a.zip"] * 5:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(name, data)
        data = out.getvalue()
    head = b"Content-Type: application/zip; name=a.zip\nContent-Transfer-Encoding: base64\n\n"
    return mime.defang(read(head + base64.encodebytes(data)), scan_zip=True)
def html(data, kind=b"text/html"):
    return mime.defang(read(b"Content-Type: " + kind + b"\n\n" + data))
def changed_html():
    message = read(b"Content-Type: text/html\n\n<script>x</script>\n")
    mime.defang(message)
    return message.as_bytes().decode()
def page(text):
    out = io.StringIO()
    script_filter = mime.HTMLScriptFilter(out)
    script_filter.feed(text)
    script_filter.close()
    return out.getvalue().replace(script_filter.msg, "{}")
said = []
for code in json.loads(sys.stdin.read()):
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            value = eval(code)
        except Exception as error:
            value = type(error).__name__
    said.append(value)
print(json.dumps(said))
"""


@cache
def said(python: str) -> dict[str, Any]:
    """What each expression gives under an interpreter."""
    if subprocess.run([python, "-c", "import mime"], capture_output=True, check=False).returncode:
        pytest.skip("python3-milter is not installed")
    codes = json.dumps([it.code for it in DIFFERENCES.values()])
    done = subprocess.run(
        [python, "-W", "ignore", "-c", PROGRAM],
        input=codes,
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return dict(zip(DIFFERENCES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_ours(name: str) -> None:
    assert said(sys.executable)[name] == DIFFERENCES[name].ours


@pytest.mark.parametrize("name", DIFFERENCES)
def test_theirs(name: str) -> None:
    assert said(OLDER)[name] == DIFFERENCES[name].theirs


def test_the_page_names_them_all() -> None:
    section = PAGE.read_text().split("\n## mime\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE) == list(DIFFERENCES)
