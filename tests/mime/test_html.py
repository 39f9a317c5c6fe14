"""Scripts are taken out of HTML, however illegal, and every other byte stays. About ten seconds."""

from __future__ import annotations

import base64
import binascii
import codecs
import contextlib
import io
import pyexpat
import re
from typing import Any

import html5lib
import mime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from messages import filtered, read

MSG = mime.HTMLScriptFilter(io.StringIO()).msg

# A page, and what is left of it; {} stands for the message in a script's place.
PAGES = {
    "plain": ("<p>a &amp; b &#65; &foo</p>", "<p>a &amp; b &#65; &foo</p>"),
    "script": ("a<script>x</script>b", "a{}b"),
    "attributes": ("a<script src='x>y' defer>x</script>b", "a{}b"),
    "upper case": ("<B>x</B><SCRIPT A=1>foo</SCRIPT >y", "<B>x</B>{}y"),
    "two": ("<script src=x></script><script>b</script>", "{}{}"),
    "unclosed": ("a<script>b<p>c", "a{}"),
    "cut in the start tag": ("a<script src='b", "a{}"),
    "cut after the name": ("a<script", "a{}"),
    "self-closing, which HTML does not have": ("<script/>x</script>y", "{}y"),
    "slash in place of a space": ("<script/src=x></script>y", "{}y"),
    "line end in the tag": ("<script\n\t>x</script\n>y", "{}y"),
    "other elements": ("<scriptx>a</scriptx><scri pt>", "<scriptx>a</scriptx><scri pt>"),
    "end of another element": ("<script>a</scriptx>b</script>c", "{}c"),
    "end tag alone": ("x</script>y", "x</script>y"),
    "in itself": ("<scr<script>x</script>ipt>y</script>", "<scr{}ipt>y</script>"),
    "a prefix": ("<svg:script>x</svg:script>y", "{}y"),
    "in an attribute": ('<a href="<script>x</script>">', '<a href="<script>x</script>">'),
    "in single quotes": ("<a title='<script>\"'>", "<a title='<script>\"'>"),
    "quotes that never close": ('<a title="x><script>y</script>', '<a title="x>{}'),
    "quotes after a wide space": ('<a x=\xa0"><script>y</script>">', '<a x=\xa0">{}">'),
    "quotes in a name": ('<a\xa0x="><script>y</script>">', '<a\xa0x=">{}">'),
    "comment": ("<!-- <script>a</script> -->b", "<!-- <script>a</script> -->b"),
    "comment that is empty": ("<!--><script>a</script>-->", "<!-->{}-->"),
    "comment of three": ("<!---><script>a</script>-->", "<!--->{}-->"),
    "comment with --!>": ("<!--a--!><script>b</script>-->", "<!--a--!>{}-->"),
    "comment that never ends": ("<!-- a <script>b</script> c", "<!-- a {} c"),
    "comment in a tag's name": ("<a<!-- ><script>b</script>-->", "<a<!-- >{}-->"),
    "conditional": (
        "<!--[if IE]><script>b</script><p><![endif]-->c",
        "<!--[if IE]>{}<p><![endif]-->c",
    ),
    "conditional without": (
        "<!--[if mso]><b>c</b><![endif]-->",
        "<!--[if mso]><b>c</b><![endif]-->",
    ),
    "conditional that cuts a tag": (
        '<!--[if x]><a title="--><script>b</script>">',
        '<!--[if x]><a title="-->{}">',
    ),
    "conditional, with a title that never ends and the end of another": (
        "</title><!--[if x]><title \0--><script>b</script>",
        "</title><!--[if x]><title \0-->{}",
    ),
    "downlevel-revealed": ("<![if !IE]><script>1</script><![endif]>", "<![if !IE]>{}<![endif]>"),
    "CDATA": ("<![CDATA[<script>]]>x", "<![CDATA[<script>]]>x"),
    "CDATA that ends early": ("<svg><![CDATA[><script>a</script>]]>", "<svg><![CDATA[>{}]]>"),
    "instruction": ("<?php x ?><script>a</script>", "<?php x ?>{}"),
    "instruction of XML": ('<?x ><a title="?><script>a</script>">', '<?x ><a title="?>{}">'),
    "CDATA of XML": (
        '<svg><![CDATA[><a title="]]><script>a</script>">',
        '<svg><![CDATA[><a title="]]>{}">',
    ),
    "CDATA of XML, in Shift_JIS": (
        '<svg><![CDATA[ \x81]]> <a title="]]><script>b</script>">',
        '<svg><![CDATA[ \x81]]> <a title="]]>{}">',
    ),
    "letters without case in an end tag": (
        '<title></t\u0131tle><a title="</title><script>b</script>">',
        '<title></t\u0131tle><a title="</title>{}">',
    ),
    "another": (
        '<style></\u017ftyle><a title="</style><script>b</script>">',
        '<style></\u017ftyle><a title="</style>{}">',
    ),
    "entities of XML": (
        "<!DOCTYPE x [<!ENTITY a '<script>b</script>'>]>",
        "<!DOCTYPE x [<!ENTITY a '{}'>]>",
    ),
    "entities of XML, by number": (
        "<!DOCTYPE x [<!ENTITY a '&#60;script>b&#60;/script>'>]><x>&a;</x>",
        "<!DOCTYPE x [{} a '&#60;script>b&#60;/script>'>]><x>&a;</x>",
    ),
    "entities of XML, in one another": (
        "<!DOCTYPE x [<!ENTITY % a '&#x0026;#x3C;script>'> <!ENTITY b 'c'>]>",
        "<!DOCTYPE x [{} % a '&#x0026;#x3C;script>'> <!ENTITY b 'c'>]>",
    ),
    "entities of XML, behind a quoted end": (
        "<!DOCTYPE x PUBLIC '>' '\"'[<!ENTITY a '&#60;script>'>]>",
        "<!DOCTYPE x PUBLIC '>' '\"'[{} a '&#60;script>'>]>",
    ),
    "entities of XML without": (
        "<!DOCTYPE x [<!ENTITY a 'http://www.w3.org/'><!ENTITY b '&#160;'>]><p>&#160;",
        "<!DOCTYPE x [<!ENTITY a 'http://www.w3.org/'><!ENTITY b '&#160;'>]><p>&#160;",
    ),
    "a long prefix": (f"<{'a' * 50}:script>x</{'a' * 50}:script>y", "{}y"),
    "a long prefix, where only scripts count": (
        f"<!DOCTYPE x []><{'a' * 50}:script>x</{'a' * 50}:script>y",
        "<!DOCTYPE x []>{}y",
    ),
    "event handlers": (
        "<a onclick='x' href='javascript:y'>",
        "<a onclick='x' href='javascript:y'>",
    ),
    "template": ("<template><script>x</script></template>", "<template>{}</template>"),
    "iframe": ("<iframe srcdoc='<script>x'>y</iframe>", "<iframe srcdoc='<script>x'>y</iframe>"),
    "in SVG": ("<svg><script href='x'/><p>y", "<svg>{}"),
    "in MathML": ("<math><mi><script>x</script></mi></math>", "<math><mi>{}</mi></math>"),
    "references": ("&lt;script&gt;x&lt;/script&gt;", "&lt;script&gt;x&lt;/script&gt;"),
    "instruction with a tag in it": ("<?php <script a</script>", "<?php <script a</script>"),
    "doctype": ("<!DOCTYPE html PUBLIC 'a'><p>", "<!DOCTYPE html PUBLIC 'a'><p>"),
    "no end tag": ("</ script><script>a</script>", "</ script>{}"),
    "NUL in the name": ("<scr\0ipt>a</script>b", "{}b"),
    "NUL before the name": ("<\0script>a</script>b", "{}b"),
    "NUL in front of a tag": (
        '<\0a title="><script>b</script>">',
        '<\0a title=">{}">',
    ),
    "NUL before quotes": ('<a title=\0"><script>b</script>">', '<a title=\0">{}">'),
    "style": ("<style>a<!-- </style>b<script>c</script>", "<style>a<!-- </style>b{}"),
    "in a style": ("<style><script>a</script></style>", "<style>{}</style>"),
    "in a style in SVG": (
        '<svg><style><a title="</style><a title="><script>b</script>">',
        '<svg><style><a title="</style><a title=">{}">',
    ),
    "unclosed in a style": ("<style>a<script>b</style>c", "<style>a{}</style>c"),
    "unclosed in a comment": ("<!--[if x]><script>b<![endif]-->c", "<!--[if x]>{}c"),
    "in a title": ("<title><script>a</script></title>b", "<title>{}</title>b"),
    "title that is cut": ("<title></title<script>a</script>", "<title></title{}"),
    "textarea": (
        "<textarea><!--</textarea><script>a</script>-->",
        "<textarea><!--</textarea>{}-->",
    ),
    "noscript": (
        '<noscript><a title="</noscript><script>b</script>">',
        '<noscript><a title="</noscript>{}">',
    ),
    "select, where no title is": (
        '<select><title><a b="</title><a b="><script>c</script>">',
        '<select><title><a b="</title><a b=">{}">',
    ),
    "less-than signs": ("a < b <3 <> <", "a < b <3 <> <"),
    "script in a script": ("<script><!--<script>a</script>b</script>c", "{}b</script>c"),
}


@pytest.mark.parametrize(("page", "rest"), PAGES.values(), ids=PAGES)
def test_pages(page: str, rest: str) -> None:
    assert filtered(page) == rest.replace("{}", MSG)


PIECES = st.sampled_from(
    [
        *("<", ">", "</", "/>", '"', "'", "=", " ", "\n", "\0", "\xa0", "\v", "a", "x=", "-", "!"),
        *("<script", "<script>", "</script>", "</script", "<SCRIPT/", "script", "<scr", "ipt>"),
        *("<!--", "-->", "--!>", "<!-->", "<!", "<?", "<![CDATA[", "]]>", "<!--[if IE]>"),
        *("<![endif]-->", "<a ", '<a title="', "<a title='", "</a>", "<p>", "<svg>", "</svg>"),
        *("<math>", "<select>", "<table>", "<template>", "<frameset>", "<mi>", "<foreignObject>"),
        *(f"<{name}>" for name in ("style", "title", "textarea", "noscript", "xmp", "plaintext")),
        *(f"</{name}>" for name in ("style", "title", "textarea", "noscript", "xmp", "select")),
        *("<!DOCTYPE x [", "<!DOCTYPE x '", "<!ENTITY a '", "&#60;", "&#x26;", "<x:script>", "]>"),
        *("<iframe>", "</iframe>", "<noembed>", "</noembed>", "<noframes>", "</noframes>"),
    ]
)
HTML = st.lists(PIECES, max_size=14).map("".join)


def scripts(page: str) -> list[Any]:
    """The scripts that another reader of HTML finds in a page."""
    found = html5lib.parse(page, namespaceHTMLElements=False).iter()
    return [
        it
        for it in found
        if isinstance(it.tag, str) and it.tag.endswith("script") and not it.tag.endswith("noscript")
    ]


@settings(max_examples=1500, deadline=None)
@given(HTML)
@example("<svg><title><!--</title><a title='--><script>a</script>'>")
def test_no_script_is_left_and_again_changes_nothing(page: str) -> None:
    once = filtered(page)
    assert scripts(once) == []
    assert filtered(once) == once


@settings(max_examples=500, deadline=None)
@given(HTML | st.text())
@example("<noscript><SCRIPT/></noscript>a")
def test_the_rest_stays(page: str) -> None:
    out = io.StringIO()
    through = mime.SGMLFilter(out)
    for letter in page:
        through.feed(letter)
    through.close()
    assert out.getvalue() == page

    # What is left are pieces of the page, in order, with the message between them.
    at = 0
    for piece in filtered(page).split(MSG):
        at = page.index(piece, at) + len(piece)
    if MSG not in filtered(page):
        assert filtered(page) == page


def test_an_empty_message_joins_nothing() -> None:
    out = io.StringIO()
    script_filter = mime.HTMLScriptFilter(out)
    script_filter.msg = ""
    script_filter.feed("<scr<script></script>ipt>a</script>")
    script_filter.close()
    assert out.getvalue() == "<scr ipt>a</script>"


def test_handlers_of_programs() -> None:
    class Links(mime.SGMLFilter):
        def start_a(self, attributes: list[tuple[str, str]]) -> None:
            self.out.write(f"[{dict(attributes)}]")

        def do_br(self, attributes: list[tuple[str, str]]) -> None:
            self.out.write("|" + self.get_starttag_text())

        def end_a(self) -> None:
            self.out.write("[/]")

        def handle_comment(self, comment: str) -> None:
            self.out.write(f"({comment})")

        def handle_special(self, data: str) -> None:
            self.out.write(data.upper())

    out = io.StringIO()
    links = Links(out)
    links.write("<!x><A Href='b' c=d e>t</a><br/><p>")
    links.write("<!--c--></p>")
    links.close()
    assert out.getvalue() == "<!X>[{'href': 'b', 'c': 'd', 'e': 'e'}]t[/]|<br/><p>(c)</p>"


def page_part(data: bytes, charset: str = "", encoding: str = "8bit", end: bytes = b"\n") -> Any:
    """A message that is HTML."""
    kind = f"text/html; charset={charset}" if charset else "text/html"
    head = [f"Content-Type: {kind}", f"Content-Transfer-Encoding: {encoding}", "", ""]
    return read(end.join(line.encode() for line in head) + data)


def quoted_printable(data: bytes) -> bytes:
    """Lines stay lines, unless their ends differ, which b2a_qp does not keep."""
    ends = set(re.findall(rb"\r\n|\r|\n", data))
    return binascii.b2a_qp(data, istext=len(ends) == 1 and ends != {b"\r"})


ENCODERS = {
    "base64": base64.encodebytes,
    "quoted-printable": quoted_printable,
    "8bit": bytes,
    "binary": bytes,
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b"\r\n\n\r"], ids=repr)
@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("message_end", [b"\n", b"\r\n"], ids=repr)
def test_bytes_stay(end: bytes, encoding: str, message_end: bytes) -> None:
    before, after = b"<p>\xe9\x80\xff =20" + end + b".\t " + end, end + b"<i>" + b"y" * 200 + end
    page = before + b"<script>" + end + b"x</script>" + after
    message = page_part(ENCODERS[encoding](page), "utf-8", encoding, message_end)
    assert mime.defang(message)
    written = read(message.as_bytes())
    assert written.get_payload_source() == before + MSG.encode() + after
    assert written["content-transfer-encoding"] == encoding
    _, _, body = message.as_bytes().partition(message_end * 2)
    if encoding in ("base64", "quoted-printable"):
        assert set(body.replace(message_end, b"")).isdisjoint(b"\r\n")


@settings(max_examples=300, deadline=None)
@given(st.binary(), st.binary(), st.sampled_from(sorted(ENCODERS)), st.booleans())
def test_any_bytes_stay(before: bytes, after: bytes, encoding: str, crlf: bool) -> None:
    before = b"." + before.replace(b"<", b"")
    page = before + b"<script>x</script>" + after.replace(b"<", b"")
    end = b"\r\n" if crlf else b"\n"
    encoded = ENCODERS[encoding](page)
    if crlf and encoding == "base64":
        encoded = encoded.replace(b"\n", b"\r\n")
    message = page_part(encoded, "us-ascii", encoding, end)
    page = message.get_payload_source()
    mime.check_html(message)
    written = read(message.as_bytes()).get_payload_source()
    assert written == page.replace(b"<script>x</script>", MSG.encode())


CHARSETS = {
    "UTF-16 with a mark": ("\ufeff", "utf-16-le", ""),
    "UTF-16 with the other mark": ("\ufeff", "utf-16-be", "iso-8859-1"),
    "UTF-32 with a mark": ("\ufeff", "utf-32-le", ""),
    "UTF-16": ("", "utf-16-le", "utf-16"),
    "UTF-16BE": ("", "utf-16-be", "UTF-16BE"),
    "UTF-7": ("", "utf-7", "utf-7"),
    "EBCDIC": ("", "cp037", "cp037"),
    "ISO-2022-JP": ("\u3042", "iso2022-jp", "iso-2022-jp"),
}


@pytest.mark.parametrize(("mark", "codec", "charset"), CHARSETS.values(), ids=CHARSETS)
def test_charsets(mark: str, codec: str, charset: str) -> None:
    page = mark + "<p>a<script>b</script>c"
    message = page_part(base64.encodebytes(page.encode(codec)), charset, "base64")
    assert mime.defang(message)
    assert message.get_payload_decoded() == page.replace("<script>b</script>", MSG).encode(codec)


HIDDEN = {
    "UTF-7": (b"+ADw-script+AD4-b+ADw-/script+AD4-c", "utf-7", MSG.encode() + b"c"),
    "shifts in the name": (b"<scr\x1b(Bipt>b</script>c", "iso-2022-jp", MSG.encode() + b"c"),
    "shifts, by the page's own word": (
        b"<meta charset=iso-2022-jp><scr\x1b(Bipt>b</script>c",
        "",
        b"<meta charset=iso-2022-jp>" + MSG.encode() + b"c",
    ),
    "a charset that is a lie": (b"<script>b</script>c", "utf-16", MSG.encode() + b"c"),
    "another": (b"<script>b</script>c", "cp037", MSG.encode() + b"c"),
    "a mark that lies": (
        b"\xff\xfe<script>b</script>c",
        "utf-8",
        b"\xff\xfe" + MSG.encode() + b"c",
    ),
    "a mark that lies, in UTF-7": (
        b"\xff\xfe+ADw-script+AD4-b",
        "utf-7",
        b"+//3//Q" + MSG.encode(),
    ),
    "UTF-7 by another name": (b"+ADw-script+AD4-b", "unicode-2-0-utf-7", MSG.encode()),
    "UTF-7 with a comment": (b"+ADw-script+AD4-b", "utf-7 (c)", MSG.encode()),
    "UTF-7 behind another": (b"+ADw-script+AD4-b", "utf-8; charset=utf-7", MSG.encode()),
    "a page that lies": (
        b"<meta charset=utf-16><script>b</script>c",
        "",
        b"<meta charset=utf-16>" + MSG.encode() + b"c",
    ),
    "no charset of mail": (b"<script>b</script>c", "punycode", MSG.encode() + b"c"),
    "no charset at all": (b"<script>b</script>c", "\\0", MSG.encode() + b"c"),
}


@pytest.mark.parametrize(("page", "charset", "rest"), HIDDEN.values(), ids=HIDDEN)
def test_charset_tricks(page: bytes, charset: str, rest: bytes) -> None:
    message = page_part(base64.encodebytes(page), charset, "base64")
    assert mime.defang(message)
    assert message.get_payload_decoded() == rest


def test_what_is_no_text_makes_it_utf_8() -> None:
    message = page_part(b"a\xff<script>b</script>", "iso-2022-jp")
    assert mime.defang(message)
    assert message.get_content_charset() == "utf-8"
    assert message.get_payload_decoded() == f"a\ufffd{MSG}".encode()


def test_uuencode_becomes_base64() -> None:
    lines = b"begin 644 x\n#" + b"".join([b"/&(^"]) + b"\n \nend\n"
    assert page_part(lines, "", "x-uuencode").get_payload_decoded() == b"<b>"
    page = b"<script>x</script><b>"
    line = codecs.encode(page, "uu")
    message = page_part(line, "", "x-uuencode")
    assert mime.defang(message)
    assert message["content-transfer-encoding"] == "base64"
    assert message.get_payload_decoded() == MSG.encode() + b"<b>"


def scripts_of_xml(page: str) -> int:
    """How many scripts a reader of XML sees, its entities put in."""
    count = 0

    def begin(name: str, _: object) -> None:
        nonlocal count
        count += name.rpartition(":")[2].lower() == "script"

    reader = pyexpat.ParserCreate()
    reader.StartElementHandler = begin
    with contextlib.suppress(pyexpat.ExpatError):
        reader.Parse(page, True)
    return count


SUBSETS = st.lists(
    st.sampled_from(
        [
            *("<!ENTITY a ", "<!ENTITY b ", "<!ENTITY % c ", "'", '"', ">", " ", "%c;", "&b;", "x"),
            *("<script/>", "&#60;script/>", "&#x3C;script/>", "&#38;#60;", "&#37;", "<!--", "-->"),
            *("<?x ", "?>", "<!ENTITY a '", "'>", "<!ELEMENT x ANY>", "<", "script/>"),
        ]
    ),
    max_size=10,
).map("".join)


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(["", " PUBLIC 'a' '>'", " SYSTEM '\">'"]), SUBSETS)
@example("", "<!ENTITY a '&#60;script/>'>")
@example("", "<!ENTITY % c '&#60;!ENTITY a \"&#38;#60;script/>\">'> %c;")
def test_no_script_is_left_to_readers_of_xml(identifier: str, subset: str) -> None:
    page = f"<!DOCTYPE x{identifier} [{subset}]><x>&a;</x>"
    assert scripts_of_xml(filtered(page)) == 0


def test_readers_of_xml_see_scripts() -> None:
    assert scripts_of_xml("<!DOCTYPE x [<!ENTITY a '&#60;script/>'>]><x>&a;<y:script/></x>") == 2


@pytest.mark.parametrize(
    "kind", ["text/html", "application/xhtml+xml", "image/svg+xml", "TEXT/HTML"]
)
def test_kinds(kind: str) -> None:
    message = read(f"Content-Type: {kind}\n\n<script>a</script>\n".encode())
    assert mime.check_html(message, "saved") == 0
    assert message.get_payload() == MSG + "\n"


HTML_TO_SOME = {
    "a comment": "Content-Type: text/html (x;y); charset=utf-8",
    "a comment in front": "Content-Type: (x) text/html",
    "spaces": "Content-Type: text / html",
    "no semicolon": "Content-Type: text/html charset=utf-8",
    "quotes": 'Content-Type: "text/html"',
    "the second": "Content-Type: text/plain\nContent-Type: text/html",
    "its name": "Content-Type: application/octet-stream; name=a.HTM",
    "its name in the other header": "Content-Disposition: attachment; filename=a.html.",
    "a name of XHTML": "Content-Type: text/plain; name=a.xhtml",
    "a name of SVG": "Content-Type: image/png; name=a.svg",
}


@pytest.mark.parametrize("header", HTML_TO_SOME.values(), ids=HTML_TO_SOME)
def test_html_to_some(header: str) -> None:
    message = read(f"{header}\n\n<script>a</script>\n".encode())
    assert mime.defang(message)
    assert message.as_bytes() == f"{header}\n\n{MSG}\n".encode()


LENIENT = {
    "a digit that is left over": b"PHNjcmlwdD54PC9zY3JpcHQ+YmJiQ\n",
    "padding in the middle": b"Zm8=PHNjcmlwdD54PC9zY3JpcHQ+YmJi\n",
    "what is no digit": b"PHNj*cmlwdD5\x004PC9zY3JpcHQ-+YmJi\n",
}


@pytest.mark.parametrize("encoded", LENIENT.values(), ids=LENIENT)
def test_base64_that_lenient_programs_read(encoded: bytes) -> None:
    message = page_part(encoded, "", "base64")
    assert mime.defang(message)
    assert message.get_payload_decoded() in (f"{MSG}bbb".encode(), f"fo{MSG}bbb".encode())


@pytest.mark.parametrize("charset", ["hex", "rot13", "zlib", "bz2", "uu", "base64", "x-y", "\xe9"])
def test_charsets_that_are_none(charset: str) -> None:
    message = page_part(b"\xe9<script>x</script>", charset)
    assert mime.defang(message)
    assert message.get_payload_source() == b"\xe9" + MSG.encode()


def test_8_bit_beside_a_charset_that_changes() -> None:
    head = b'Content-Type: text/html; charset=iso-2022-jp; x="\xe9"\n'
    message = read(head + b"\n\xff<script>a</script>")
    assert mime.defang(message)
    assert message.as_bytes().startswith(head.replace(b"iso-2022-jp", b'"utf-8"'))


@pytest.mark.parametrize("kind", ["text/plain", "text/plain; name=html", "application/pdf"])
def test_other_kinds_stay(kind: str) -> None:
    message = read(f"Content-Type: {kind}\n\n<script>a</script>\n".encode())
    assert mime.check_html(message) == 0
    assert not message.ismodified()
