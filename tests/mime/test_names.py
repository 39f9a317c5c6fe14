"""Names as mail programs read them: parameters of headers, and what is in archives."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable

import mime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import read

# A Content-Type's or Content-Disposition's parameters, and a name that some program reads there.
NAMES = {
    "token": ("name=a.exe", "a.exe"),
    "quoted": ('name="a.exe"', "a.exe"),
    "spaces around": ('name = "a.exe" ', "a.exe"),
    "upper case": ('NAME="A.EXE"', "A.EXE"),
    "space in a token": ("name=a b.exe", "a b.exe"),
    "semicolon in quotes": ('name="a;b.exe"', "a;b.exe"),
    "quote in quotes": (r'name="a\".exe"', 'a".exe'),
    "quote in quotes, dropped": (r'name="a.e\"xe"', "a.exe"),
    "quote in quotes, RFC 2231 in parts": (r'name*0="a.e\""; name*1="xe"', "a.exe"),
    "second of two": ('name="a.txt"; name="b.exe"', "b.exe"),
    "RFC 2231": ("name*=utf-8''a%2Eexe", "a.exe"),
    "RFC 2231, Latin-1": ("name*=iso-8859-1'de'%e9.exe", "\xe9.exe"),
    "RFC 2231, unknown charset": ("name*=x-y''a%2Eexe", "a.exe"),
    "RFC 2231, no charset of mail": ("name*=punycode''a%2Eexe", "a.exe"),
    "RFC 2231, in parts": ("name*0=a.; name*1=exe", "a.exe"),
    "RFC 2231, in any order": ('name*1="exe"; name*0="a."', "a.exe"),
    "RFC 2231, quoted parts": (r'name*0="\"a\\"; name*1="b.exe"', '"a\\b.exe'),
    "RFC 2231, one part quoted": ('name*0="a."; name*1=exe b.txt', "a.exe"),
    "RFC 2231, parts of two kinds": ("name*0*=utf-8''a%2E; name*1=exe", "a.exe"),
    "RFC 2231, a part missing": ("name*0=a; name*2=.exe", "a.exe"),
    "RFC 2231 in quotes": ("name*=\"utf-8''a%2Eexe\"", "a.exe"),
    "RFC 2047": ("name==?utf-8?q?a=2Eexe?=", "a.exe"),
    "RFC 2047 in quotes": ('name="=?utf-8?b?YS5leGU=?="', "a.exe"),
    "RFC 2047 in two words": ('name="=?utf-8?q?a?= =?utf-8?q?=2Eexe?="', "a.exe"),
    "RFC 2047 as a part": ('name="a.=?us-ascii?q?ex?=e"', "a.exe"),
    "RFC 2047, unknown charset": ('name="=?x-y?q?a=2Eexe?="', "a.exe"),
    "RFC 2047, base64 cut": ('name="=?utf-8?b?YS5leGU?="', "a.exe"),
    "doubled quotes": ('name=""a.exe""', "a.exe"),
    "two quotes open, one closes": ('name=""a.exe"', "a.exe"),
    "three quotes open, one closes": ('name="""a.exe"', "a.exe"),
    "one quote opens, two close": ('name="a.exe""', "a.exe"),
    "two quotes open, none closes": ('name=""a.exe', "a.exe"),
    "two quotes open, more after": ('name=""a.exe"; x="y"', "a.exe"),
    "two quotes open, a space": ('name="" a.exe"', " a.exe"),
    "garbage after the quote": ('name="a.exe"garbage', "a.exe"),
    "garbage after it, no space": ('name="a.exe"; x="y"', "a.exe"),
    "unterminated": ('name="a.exe', "a.exe"),
    "unterminated, more after": ('name="a.exe; x=y', "a.exe"),
    "trailing dots": ('name="a.exe.. ."', "a.exe.. ."),
    "text behind a NUL": ('name="a.exe\0.txt"', "a.exe\0.txt"),
    "trailing NUL": ('name="a.exe\0"', "a.exe\0"),
    "folded": ('name="a\n .exe"', "a\n .exe"),
    "8-bit UTF-8": ('name="\xc3\xa9.exe"', "\xe9.exe"),
    "8-bit Latin-1": ('name="\xe9.exe"', "\xe9.exe"),
    "angle brackets": ("name=<a.exe>", "a.exe"),
    "comment": ("name=a.exe (b.txt)", "a.exe"),
    "comment without a space": ("name=a.exe(b(c\\)d)e)", "a.exe"),
    "comment in front": ("name=(b)a.exe", "a.exe"),
    "text behind a space": ("name=a.exe b.txt", "a.exe"),
    "backslash in quotes": (r'name="a.e\xe"', "a.exe"),
    "path in quotes": (r'name="c:\d\a.exe"', r"c:\d\a.exe"),
    "path": ("name=../../a.exe", "../../a.exe"),
    "right-to-left override": ("name*=utf-8''%E2%80%AEtxt.exe", "\u202etxt.exe"),
    "what cannot be seen": ("name*=utf-8''a.e%E2%80%8Bxe%C2%AD", "a.e\u200bxe\xad"),
    "the file's own stream": ("name=a.exe::$DATA", "a.exe::$DATA"),
    "RFC 2231, UTF-7": ("name*=utf-7''a%2BAC4-exe", "a.exe"),
    "RFC 2231, a charset that it is not of": ("name*=utf-16''ab.exe", "ab.exe"),
    "RFC 2231, a charset that is none to others": ("name*=utf-7''a%2B-.exe", "a+-.exe"),
    "RFC 2231, many parts": (
        "; ".join([f"name*{number}=x" for number in range(2000)] + ["name*2000=.exe"]),
        "x" * 2000 + ".exe",
    ),
    "RFC 2231, the same part twice": ("name*0=a.txt; name*0=a.exe", "a.exe"),
    "RFC 2231, whole and in parts": ("name*=utf-8''a.exe; name*0=b; name*1=.txt", "a.exe"),
    "RFC 2231, behind a missing part": ("name*0=a.exe; name*2=.txt", "a.exe"),
    "RFC 2231, from one on": ("name*1=a; name*2=.exe", "a.exe"),
    "RFC 2231, a byte in two parts": ("name*0*=utf-8''a%2; name*1*=Eexe", "a.exe"),
    "RFC 2231, a space in the name": ("name *0=a; name *1=.exe", "a.exe"),
    "RFC 2231, a long number": ("name*00000=a; name*000001=.exe", "a.exe"),
    "RFC 2047, a language": ('name="=?utf-8*en?q?a=2Eexe?="', "a.exe"),
    "RFC 2047, a charset that it is not of": ('name="=?utf-16?q?ab.exe?="', "ab.exe"),
    "RFC 2047, a question mark": ('name="=?utf-8?q?a?b.exe?="', "a?b.exe"),
    "RFC 2047, base64 with one digit more": ('name="=?utf-8?b?YWIuZXhlY?="', "ab.exe"),
    "RFC 2047, base64 in pieces": ('name="=?utf-8?b?YQ==LmV4ZQ==?="', "a.exe"),
    "RFC 2047, base64 with others": ('name="=?utf-8?b?YS*5l eGU=?="', "a.exe"),
    "RFC 2047 in parts of RFC 2231": ('name*0="=?utf-8?b?YS5l"; name*1="eGU=?="', "a.exe"),
    "RFC 2047, the whole parameter": ("=?utf-8?q?name=3Da.exe?=", "a.exe"),
    "the parameter's name in quotes": ('"name"=a.exe', "a.exe"),
    "a comment in front of it": ("(c)name=a.exe", "a.exe"),
    "a comment behind it": ("name(c=(d;e))=a.exe", "a.exe"),
    "a NUL in it": ("na\0me=a.exe", "a.exe"),
    "no semicolon in front of it": ('x="y" name=a.exe', "a.exe"),
    "behind a quote that never closes": ('x="y; name=a.exe', "a.exe"),
    "RFC 2231, a comment": ("(c)name*=utf-8''a%2Eexe", "a.exe"),
    "apostrophes": ("name='a.exe'", "a.exe"),
    "a slash at the end": ('name="a.exe/"', "a.exe"),
    "a question mark at the end": ("name=a.exe?.", "a.exe"),
}


@pytest.mark.parametrize("header", ["Content-Type: text/plain", "Content-Disposition: attachment"])
@pytest.mark.parametrize(("written", "name"), NAMES.values(), ids=NAMES)
def test_names(header: str, written: str, name: str) -> None:
    if "Disposition" in header:
        written = written.replace("name", "filename").replace("NAME", "FILENAME")
    message = read(f"{header}; {written}\n\nx".encode("latin-1"))
    assert name in [it for _, it in message.getnames()]
    assert mime.defang(message)
    assert message.as_bytes().startswith(b"Content-Type: text/plain; name=WARNING.TXT\n\n")


def test_readings_stand_there_once() -> None:
    message = read(b'Content-Type: text/plain; name="a.txt"\n\n')
    assert message.getnames() == [("text/plain", ""), ("name", "a.txt")]


@pytest.mark.parametrize(
    "written",
    [
        'filename="of a name=b.exe and more.txt"',
        'filename="a.exe (b).txt"',
        'x="filename=b.exe"',
        "hostname=b.exe; x-filename=b.exe",
        "url=http://x/?filename=b.exe",
        "filename==?utf-8?q?a.exe_b.txt?=",
    ],
)
def test_what_is_no_parameter_is_no_name(written: str) -> None:
    message = read(f"Content-Disposition: a; {written}\n\nx".encode())
    assert not mime.defang(message)


def test_quoted_parts_are_one_name() -> None:
    """A space within quotes ends no name, whether RFC 2231 cut the name or not."""
    message = read(b"""Content-Type: text/plain; name*0="Smith's a.exe"; name*1=" b.txt"\n\n""")
    assert message.getnames() == [("text/plain", ""), ("name", "Smith's a.exe b.txt")]
    assert message.getname() == "Smith's a.exe b.txt"
    assert not mime.defang(message)


# A part's header, and a name that some program reads there.
HEADERS = {
    "both": ("Content-Type: a/b; name=a.txt\nContent-Disposition: x; filename=a.exe", "a.exe"),
    "both, the other way": (
        "Content-Type: a/b; name=a.exe\nContent-Disposition: x; filename=a.txt",
        "a.exe",
    ),
    "Content-Type, the second": (
        "Content-Type: a/b; name=a\nContent-Type: a/b; name=a.exe",
        "a.exe",
    ),
    "Content-Disposition, the second": (
        "Content-Disposition: x; filename=a\nContent-Disposition: x; filename=a.exe",
        "a.exe",
    ),
    "name in Content-Disposition": ("Content-Disposition: attachment; name=a.exe", "a.exe"),
    "no disposition": ("Content-Disposition: filename=a.exe", "a.exe"),
    "no semicolon": ("Content-Disposition: attachment filename=a.exe", "a.exe"),
    "space in front of the colon": ("Content-Disposition : attachment; filename=a.exe", "a.exe"),
    "Content-Location": ("Content-Location: http://x.com/y/a%2Eexe?z#q", "a.exe"),
    "Content-Location, a name": ("Content-Location: a.exe", "a.exe"),
    "Content-Location, folded": ("Content-Location: file:///c:/a.\n exe", "a.exe"),
    "a message": ("Content-Type: message/rfc822; name=a.exe", "a.exe"),
}


@pytest.mark.parametrize(("header", "name"), HEADERS.values(), ids=HEADERS)
def test_headers_with_names(header: str, name: str) -> None:
    message = read(f"{header}\n\nx".encode("latin-1"))
    assert name in [it for _, it in message.getnames()]
    assert mime.defang(message)
    assert mime.message_from_file(io.BytesIO(message.as_bytes())).gettype() == "text/plain"


@pytest.mark.parametrize("encoding", ["x-uuencode", "uuencode", "X-UUE (c)"])
def test_the_name_that_uuencode_has(encoding: str) -> None:
    head = f"Content-Type: a/b\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    message = read(head + b"x\r\nbegin 644 a b.exe\r\n#>'AX\r\n`\r\nend\r\n")
    assert ("begin", "a b.exe") in message.getnames()
    assert mime.defang(message)
    text = read(b"Content-Type: text/plain\n\nbegin 644 a.exe\n")
    assert text.getnames() == [("text/plain", "")]


@pytest.mark.parametrize("url", ["http://www.example.com", "http://www.example.com/", "cid:", ""])
def test_a_location_that_names_no_file(url: str) -> None:
    message = read(f"Content-Location: {url}\n\nx".encode())
    assert not mime.defang(message)


@pytest.mark.parametrize(
    ("name", "is_bad"),
    [
        *((f"a.{extension}", True) for extension in mime.extlist.split(",")),
        *(
            ("a.EXE", True),
            (".exe", True),
            ("a.b.scr", True),
            ("a.exe.", True),
            ("a.exe \0.", True),
        ),
        *(("exe", False), ("a.txt", False), ("a.exe.txt", False), ("", False), ("...", False)),
    ],
)
def test_check_ext(name: str, is_bad: bool) -> None:
    assert mime.check_ext(name) == (name if is_bad else None)


def test_a_part_without_a_name_is_allowed() -> None:
    assert mime.check_ext(read(b"A: b\n\n").get_filename()) is None


def test_the_lists_are_the_program_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mime, "bad_extensions", [".xyz"])
    assert mime.check_ext("a.xyz") == "a.xyz"
    assert mime.check_ext("a.exe") is None


SPLIT = {
    "": [""],
    "; a=b; c": ["", "a=b", "c"],
    ';a="x";b': ["", 'a="x"', "b"],
    '; a="b;c"; d': ["", 'a="b;c"', "d"],
    r';a="x\";y"; b=2': ["", r'a="x\";y"', "b=2"],
    "x; A = b ": ["x", "a=b"],
}


@pytest.mark.parametrize(("text", "parts"), SPLIT.items())
def test_parseparam(text: str, parts: list[str]) -> None:
    assert mime._parseparam(text) == parts


UNQUOTED = {
    '"a"': "a",
    "a": "a",
    '""a""': '"a"',  # as the older package has it; names are read in other ways too
    '"a': '"a',
    "<a>": "a",
    r'"a\"b"': 'a"b',
    "": "",
    '"': '"',
    '""': "",
    "'a'": "'a'",
    '"a"b': "a",
}


@pytest.mark.parametrize(("text", "plain"), UNQUOTED.items())
def test_unquote(text: str, plain: str) -> None:
    assert mime.unquote(text) == plain


HEADER = st.lists(
    st.sampled_from(
        [
            *('"', "'", ";", "=", " ", "\t", "\\", "*", "*0", "*1*", "%", "%2", "%41", "\n ", "\0"),
            *("name", "filename", "charset", "boundary", "=?", "?=", "?q?", "?b?", "utf-8", "YQ=="),
            *(
                "utf-7",
                "punycode",
                "idna",
                "\xe9",
                "\xc3\xa9",
                "a.exe",
                "<",
                ">",
                "(",
                ")",
                "text/",
            ),
            *("multipart/mixed", "unicode_escape", "\\x", "99999", "rot13", "zlib"),
        ]
    ),
    max_size=12,
).map("".join) | st.text(st.characters(max_codepoint=255))


@settings(max_examples=500, deadline=None)
@given(HEADER, HEADER, st.binary(max_size=60))
def test_any_header(kind: str, disposition: str, body: bytes) -> None:
    head = f"Content-Type: {kind}\nContent-Disposition: {disposition}\n\n".encode("latin-1")
    message = read(head + body)
    for ask in (
        *(message.getnames, message.getname, message.get_filename, message.getparams),
        *(message.get_boundary, message.get_content_charset, message.get_charsets),
        *(message.get_content_type, message.get_content_disposition, message.getencoding),
        *(message.get_payload, message.get_payload_decoded, message.get_payload_source),
    ):
        ask()
    assert all(isinstance(name, str) for _, name in message.getnames())
    assert message.getparam("name") == message.getname()
    assert message.as_bytes() == head + body or message.get_unixfrom() is not None
    mime.unquote(kind)
    mime._parseparam(kind)
    mime.check_ext(kind)


# ------------------------------------------------------------------------------------- archives


def zipped(contents: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return out.getvalue()


def nested(levels: int) -> bytes:
    """Archives, each in another one."""
    data = zipped({"a.txt": b"x"})
    for _ in range(levels - 1):
        data = zipped({"a.zip": data})
    return data


def encrypted(data: bytes) -> bytes:
    """An archive that says that its members are encrypted."""
    marked = bytearray(data)
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        marked[marked.find(signature) + flags] |= 1
    return bytes(marked)


def names(data: bytes) -> list[str]:
    """The names that zipnames finds."""
    found = mime.zipnames(data)
    assert {attribute for attribute, _ in found} <= {"zipname"}
    return [name for _, name in found]


def test_archives() -> None:
    inner = zipped({"in.exe": b"1", "deep.ZIP. ": zipped({"deepest.scr": b"2"})})
    data = zipped({"a.txt": b"x", "b/c.zip": inner, "d.zip/": b""})
    assert set(names(data)) == {"a.txt", "b/c.zip", "d.zip/", "in.exe", "deep.ZIP. ", "deepest.scr"}
    assert names(zipped({})) == []


def test_archives_under_another_name() -> None:
    inner = zipped({"in.txt": zipped({"a.exe": b"x"})})
    assert names(zipped({"b.dat": inner, "c": b"PK", "d": b""})) == [
        *("b.dat", "c", "d", "in.txt", "a.exe")
    ]
    assert names(encrypted(zipped({"b.dat": inner}))) == ["b.dat"]
    data = b"x"
    for _ in range(6):
        data = zipped({"a.dat": data})
    with pytest.raises(mime.SuspiciousArchive, match="more than 5 levels"):
        names(data)


def test_names_in_an_encrypted_archive_can_be_read() -> None:
    assert names(encrypted(zipped({"a.exe": b"x"}))) == ["a.exe"]


@pytest.mark.parametrize(
    ("content_type", "disposition", "named"),
    [
        ('application/zip; name="a.zip"', 'attachment; filename="b.zip"', "b.zip"),
        ('application/zip; name="a.zip"', "attachment", "a.zip"),
        ("application/zip", "attachment", "in.exe"),
        ('application/zip; name="a.exe"', 'attachment; filename="b.zip"', "a.exe"),
    ],
)
def test_the_name_of_what_was_removed(content_type: str, disposition: str, named: str) -> None:
    """Not that of a member, which nobody had seen."""
    head = f"Content-Type: {content_type}\nContent-Disposition: {disposition}\n\n"
    message = read(head.encode() + zipped({"in.exe": b"x"}))
    assert mime.defang(message, scan_zip=True)
    assert f"named '{named}'" in message.get_payload()


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n"])
@pytest.mark.parametrize("encoding", ["7bit", "base64", "quoted-printable"])
def test_nothing_is_no_bad_archive(encoding: str, body: bytes) -> None:
    """An attachment without content, whatever its name. The older package's own tests have one."""
    head = f'Content-Type: a/b; name="a.zip"\nContent-Transfer-Encoding: {encoding}\n\n'
    message = read(head.encode() + body)
    assert ("name", "a.zip") in message.getnames(scan_zip=True)
    assert not mime.defang(message, scan_zip=True)
    assert message.as_bytes() == head.encode() + body


BAD_ARCHIVES: dict[str, Callable[[], bytes]] = {
    "garbage": lambda: b"garbage",
    "cut": lambda: zipped({"a.txt": b"x" * 1000})[:-10],
    "only its end": lambda: zipped({"a.txt": b"x"})[-22:],
    "encrypted inside": lambda: encrypted(zipped({"a.zip": nested(1)})),
    "corrupt inside": lambda: zipped({"a.zip": b"garbage"}),
    "wrong checksum inside": lambda: zipped(
        {"a.zip": b"PK" + bytes(99)}, zipfile.ZIP_STORED
    ).replace(bytes(99), bytes(98) + b"x"),
    "method that nobody knows": lambda: zipped({"a.zip": b"x"}).replace(
        b"\x14\0\0\0\x08\0", b"\x14\0\0\0\x63\0"
    ),
    "too deep": lambda: nested(6),
    "too many names": lambda: zipped({f"{number}": b"" for number in range(10_001)}),
    "a bomb": lambda: zipped({"a.zip": bytes(65 * 1024 * 1024)}),
    "no member where it should be": lambda: zipped({"a.txt": b"x"}).replace(b"PK\3\4", b"PK\3\5"),
    "many bombs": lambda: zipped({f"{i}.zip": bytes(9 * 1024 * 1024) for i in range(8)}),
}


@pytest.mark.parametrize("make", BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_bad_archives(make: Callable[[], bytes]) -> None:
    data = make()
    with pytest.raises(zipfile.BadZipFile):
        mime.zipnames(data)
    message = read(b"Content-Type: application/zip\nContent-Transfer-Encoding: binary\n\n" + data)
    assert message.get_payload_source() == data
    with pytest.raises(mime.SuspiciousArchive):
        message.getnames(scan_zip=True)
    assert mime.defang(message, scan_zip=True)


def test_within_the_limits() -> None:
    assert len(names(nested(5))) == 5
    assert len(names(zipped({f"{number}": b"" for number in range(10_000)}))) == 10_000


def renamed(data: bytes, was: bytes, name: bytes) -> bytes:
    """An archive with another name in front of a member than in the directory."""
    assert data.count(was) == 2
    assert len(was) == len(name)
    return data.replace(was, name, 1)


def test_names_that_only_some_programs_read() -> None:
    assert set(names(renamed(zipped({"a.txt": b"x"}), b"a.txt", b"a.exe"))) == {"a.txt", "a.exe"}
    cut = zipped({"a.txt_.exe": b"x"}).replace(b"a.txt_", b"a.txt\0")
    assert {"a.txt", "a.txt\0.exe"} <= set(names(cut))
    for name in ("a.exe", "\u20ac.exe"):
        member = zipfile.ZipInfo("a.txt")
        field = b"\1" + bytes(4) + name.encode()
        member.extra = struct.pack("<HH", 1, 0) + struct.pack("<HH", 0x7075, len(field)) + field
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr(member, b"x")
        assert name in names(out.getvalue())


def test_members_that_overlap() -> None:
    """Two entries of the directory for one member, as bombs have it: each is unpacked anew, and
    counts."""
    inner = zipped({"b.txt": b"x"})
    data = zipped({"a.zip": inner})
    entry = data[data.index(b"PK\1\2") : data.index(b"PK\5\6", data.index(b"PK\1\2"))]
    start, end = data.rindex(b"PK\1\2"), data.rindex(b"PK\5\6")
    entry = data[start:end]
    count = 3
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(entry) * count, start, 0)
    with contextlib.suppress(mime.SuspiciousArchive):  # newer versions of zipfile see it
        assert names(data[:start] + entry * count + tail).count("b.txt") == count


def test_an_archive_that_holds_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped({"q.zip": b"x"})
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: io.BytesIO(data))
    with pytest.raises(mime.SuspiciousArchive, match="more than 5 levels"):
        mime.zipnames(data)


@pytest.mark.parametrize(
    ("header", "is_found"),
    [
        (b"Content-Type: application/zip", True),
        (b"Content-Type: application/octet-stream; name=a.zip", True),
        (b'Content-Disposition: attachment; filename="a.ZIP."', True),
        (b"Content-Type: image/png; name=a.png", True),  # it begins as archives do
    ],
)
def test_which_parts_are_archives(header: bytes, is_found: bool) -> None:
    encoding = b"\nContent-Transfer-Encoding: binary\n\n"
    message = read(header + encoding + zipped({"b.exe": b"y"}))
    assert (("zipname", "b.exe") in message.getnames(True)) is is_found
    assert ("zipname", "b.exe") not in message.getnames()
    assert not mime.defang(message)
    assert mime.defang(message, scan_zip=True)
    assert b"WARNING.TXT" in message.as_bytes()


def test_a_text_is_no_archive() -> None:
    message = read(b"Content-Type: text/plain; name=a.txt\n\nPK and so on\n")
    assert not mime.defang(message, scan_zip=True)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8))
def test_any_damage(seed: int, times: int) -> None:
    chance = random.Random(seed)
    data = bytearray(zipped({"a.txt": b"x" * 50, "b.zip": nested(2)}))
    for _ in range(times):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with contextlib.suppress(zipfile.BadZipFile):
        names(bytes(data))
    with pytest.raises(mime.SuspiciousArchive):
        mime.zipnames(bytes(data[: chance.randrange(len(data))]))


def hidden(data: bytes) -> bytes:
    """An archive with a member more that its directory does not have."""
    member, directory = zipped({"a.exe": b"x"}).split(b"PK\1\2")[0], data.index(b"PK\1\2")
    changed = bytearray(data[:directory] + member + data[directory:])
    struct.pack_into("<I", changed, len(changed) - 6, directory + len(member))
    return bytes(changed)


def commented(data: bytes, comment: bytes) -> bytes:
    """An archive with another one as its comment."""
    return data[:-2] + struct.pack("<H", len(comment)) + comment


HARMLESS = zipped({"b.txt": b"x"})
TWO_READINGS = {
    "in front": zipped({"a.exe": b"x"}) + HARMLESS,
    "behind": HARMLESS + zipped({"a.exe": b"x"}),
    "as a comment": commented(HARMLESS, zipped({"a.exe": b"x"})),
    "under a comment": commented(zipped({"a.exe": b"x"}), HARMLESS),
    "not in the directory": hidden(HARMLESS),
    "an archive, by what is not seen": zipped({"a.zip::$DATA": zipped({"a.exe": b"x"})}),
}


@pytest.mark.parametrize("data", TWO_READINGS.values(), ids=TWO_READINGS)
def test_archives_that_programs_read_differently(data: bytes) -> None:
    assert "a.exe" in names(data)


def test_names_of_members_that_overlap_take_no_memory() -> None:
    """Each entry of the directory has its own place for a name, but they may all be the same."""
    name = b"a" * 60_000
    head = struct.pack("<4s5H3I2H", b"PK\3\4", 20, *[0] * 7, len(name), 0) + name
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, *[0] * 7, 1, *[0] * 6) + b"b"
    count = 5000
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(entry) * count, len(head), 0)
    data = head + entry * count + end
    tracemalloc.start()
    try:
        assert len(names(data)) == 2 * count
        assert tracemalloc.get_traced_memory()[1] <= 50 * len(data)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.zip::$DATA", "a.zip\1", "a.zip. "])
def test_archives_by_a_name_that_is_not_all_seen(name: str) -> None:
    head = f'Content-Type: a/b; name="{name}"\nContent-Transfer-Encoding: binary\n\n'
    message = read(head.encode() + b"begins otherwise" + zipped({"b.exe": b"y"}))
    assert ("zipname", "b.exe") in message.getnames(True)
