"""Milter.utils against the older package, and with whatever bytes a message may bring."""

from __future__ import annotations

import doctest
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter import utils

from .oracle import agree

ADDRESSES = [
    "user@example.com", "<user@example.com>", "<User@Example.COM>", '"user@example.com"',
    '"user@bar"@example.com', '<"user@bar"@example.com>', "foo", "", "<>", "@", "a@", "@b",
    "@mx.example.com:user@example.com", "<@a,@b:user@example.com>", "@user@example.com", "a@b@c",
    "a:b@c", "a@b:c", " a@b ", "<a@b", "a@b>", '"a b"@c', '"a', 'a"b"@c', '"a\\"b"@c', '""@c', '""',
    '"a"b"@c', '"a@b"c@d', "@a:b", "@a:", "<@a:b@c:d@e>", "a@[1.2.3.4]", "a@[IPv6:::1]",
    "<<a@b>>", "Full <a@b>", "é@b", "@@", "@a@b:c@d", "a\n@b", ":a@b", '"a"@"b"', '<"a@b>',
    "<a>@b", "a@b>c", "user@@d", "@b:@c", "@b:@c:x",
]  # fmt: skip
FULL = [
    "user@example.com", '"Full Name" <foo@example.com>', "spam@spammer.com <foo@example.com>",
    "God@heaven <@hop1.org,@hop2.net:jeff@spec.org>", "", "<>", "a", "<a@b>",
    "Real Name ((comment)) <addr...@example.com>", '"a\\"b" <a@b>', "foo (c) <a@b>",
    "a@b (Full Name)", "Foo, Bar <a@b>", '"Foo, Bar" <a@b>', "=?utf-8?q?F=C3=A9?= <a@b>",
    '"<x@y>" <a@b>', "'x' <a@b>", "(c) a@b", "Foo\n <a@b>", "Foo  Bar <a@b>", '"Foo" Bar <a@b>',
    'Foo <"a b"@c>', "Foo <@h:a@b>", "foo@bar@baz <a@b>", "foo@bar <@a@b>", "foo@bar",
    "foo@bar<a@b>", "a(c)@b", "foo[x] <a@b>", '"foo@bar" <>', "a@b <>", "a; b <x@y>", "a. b <x@y>",
]  # fmt: skip
#: What one author's header is, and what is none: under every version of Python. The older package
#: uses Python's own function, which takes some of these otherwise from one patch level to the next.
AUTHORS = {
    "user@example.com": ("", "user@example.com"),
    "Full Name <foo@example.com>": ("Full Name", "foo@example.com"),
    "Foo\n Bar  <a@b>": ("Foo Bar", "a@b"),
    "A <a@b": ("A", "a@b"),
    "A B. C <a@b>": ("A B. C", "a@b"),
    "A\\B <a@b>": ("A\\B", "a@b"),
    "é <é@é>": ("é", "é@é"),
    "<a@b> (x)": ("", "a@b"),
    "(a)(b) c@d (e)": ("a b e", "c@d"),
    "A (b(c)) C <d@e> (f)": ("A C (bc)", "d@e"),
    "A <@h1:a@b>": ("A", "a@b"),
    "Group: a@b;": ("", "a@b"),
    "a@b,": ("", "a@b"),
    "a@b, ": ("", "a@b"),
    "a @ b": ("", "a@b"),
    "a(c)@b": (
        "c c",
        "a@b",
    ),  # an expected failure in the older package's tests, which must stay one
    "a@[192.0.2.1]": ("", "a@[192.0.2.1]"),
    "A <a@[IPv6:2001:db8::1]>": ("A", "a@[IPv6:2001:db8::1]"),
    '"x" <a@b@c>': ("x", ""),
    "a (b\\)c) <d@e>": ("a (b)c)", "d@e"),
    '"x@y"@z': ("", '"x@y"@z'),
    'a"b"@c': ("", 'a"b"@c'),
    '"a@b, c@d" <e@f>': ("a@b, c@d", "e@f"),
    "Foo, Bar <a@b>": ("Foo, Bar", "a@b"),
    "A ) <a@b>": ("A )", "a@b"),
    "undisclosed-recipients:;": ("", ""),
    "a@example.org, ceo@other.example": ("", ""),
    "alice@example.org)bob@example.com": ("", ""),
    "Ann <a@b>, Bob <c@d>": ("", ""),
    "<a@b>, <c@d>": ("", ""),
    "Group: a@b, c@d;": ("", ""),
    "A <a@b>; B <c@d>": ("", ""),
    "a@b; c@d": ("", ""),
    "a@b <c@d> e": ("", ""),
    "A <a@b> B <c@d>": ("", ""),
    "a@b\n c@d": ("", ""),
    "A <a@b>x": ("", ""),
    "A <a@b> )": ("", ""),
    "a@b]": ("", ""),
    "a@[b": ("", ""),
    "A (": ("", ""),
    "A ( <a@b>": ("", ""),
    "foo@": ("", ""),
    "a@b@c": ("", ""),
    "<a@b@c>": ("", ""),
}
#: An address to theirs.
NONE = [
    "a b", "a@b c", "@foo", "<a b@c>", "<a@b c>", '"a', '<"a" b@c>', "a@b, c <d@e>", "x:y@z",
    "a@b(c)d",
]  # fmt: skip
#: None, or another one, to theirs.
MORE = {
    '"a\\"b"@c <x@y>': ('a"b@c', "x@y"),
    "A: b <c@d>": ("A: b", "c@d"),
    "<a(c)@b>": ("", "a@b"),
    ", a@b": ("", "a@b"),
}
HEADERS = [
    "", "hello", "=?utf-8?q?caf=C3=A9?=", "=?iso-8859-1?q?caf=E9?=", "=?UTF-8?B?Y2Fmw6k=?=",
    "=?UTF-8?B?Y2Fmw6k?=", "=?UTF-8?B?Y2Fmw6k=====?=", "a =?utf-8?q?b?= c",
    "a =?utf-8?q?b?= =?utf-8?q?c?= d", "=?utf-8?q?b?=\n =?utf-8?q?c?=", "=?bogus?q?b=E9?=",
    "=?us-ascii?q?b=E9?=", "=?utf-8?q?b=E9?=", "=?utf-8?x?b?=", "=?utf-8?q?a_b?=",
    "a=?utf-8?q?b?=c", "é", "a\udce9b", "a\n b", "a\r\n b", "=?utf-8?b?!!!?=", "=?utf-8?b?a?=",
    "=?utf-8?b?YQ?= =?iso-8859-1?q?=E9?=", "=?gb2312?b?xOO6ww==?=", "=?gb2312?b?xOO6w/8=?=",
    "=?utf-7?q?+AGE-?=", "=?hex?q?6162?=", "=?rot13?q?abc?=", "=?utf-16?b?//5hAA==?=",
    "=?utf-8?q??=", "=??q?b?=", "=?utf-8*en?q?b?=", "  a  ", "a  =?utf-8?q?b?=  c",
    "=?utf-8?q?b?= ", " =?utf-8?q?b?=", "=?koi8-r?q?=C1?= =?utf-8?q?=C3=A9?= x",
    "x =?bogus?q?=C1?= =?utf-8?q?=C3=A9?= x", "x =?bogus?q?abc?= y", "x\0y", "=?utf-8?q?=00?=",
    '"=?ascii?q?x?=" <a@b>', "=?unknown-8bit?q?=E9?=", "=?utf-8?q?=C3?= =?utf-8?q?=A9?=",
]  # fmt: skip
LISTS = [
    ("66.179.26.146", ["127.0.0.1", "66.179.26.128/26"]), ("192.168.0.45", ["192.168.0.*"]),
    ("192.168.0.45", ["192.168.?.45"]), ("192.168.0.45", ["[1]92.168.0.45"]),
    ("192.168.0.45", []), ("192.168.0.45", ["192.168.0.45"]), ("192.168.0.45", ["1.2.3.4/0"]),
    ("192.168.0.45", ["192.168.0.0/16"]), ("192.168.0.45", ["1.2.3.4/33"]),
    ("192.168.0.45", ["192.168.0.45/x"]), ("192.168.0.45", ["192.168.0.45/"]),
    ("::1", ["::/0"]), ("::1", ["0:0::1"]), ("::1", ["::/127"]), ("::1", ["*"]),
    ("::1", ["::1/129"]),
    ("2001:DB8::1", ["2001:db8::/32"]), ("::ffff:1.2.3.4", ["1.2.3.4"]),
    ("::ffff:1.2.3.4", ["1.2.3.0/24"]), ("foo", ["*"]), ("", ["*"]), ("1.2.3.4", "1.2.3.4"),
    ("127.1.0.1", ["localhost/8"]), ("1.2.3.4", ["no-such.invalid"]), ("1.2.3.4", [""]),
    ("1.2.3.4", ["1.2.3"]), ("192.168.0.45", ["::/0"]), ("::1", ["::1/-1"]),
    ("2001:610:779:0:223:6cff:fe9a:9cf3", ["127.0.0.1", "172.20.1.0/24", "2001:610:779::/48"]),
]  # fmt: skip
IPS = [
    "1.2.3.4", "1.2.3.4x", "1.2.3.04", "256.2.3.4", "10.20.30.255", "a1.2.3.4", "::1", "::", "1::",
    "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::", "::1:2:3:4:5:6:7",
    "::1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1::2::3", "FE80::1", "::1x",
    "fe80::1%eth0", "12345::", ":1", "1:2", "1::2:3", "1:2::3:4:5:6:7", "1:2:3::4:5:6:7:8", "",
]  # fmt: skip


def test_addresses_as_the_oracle() -> None:
    agree(
        "utils",
        [f"parse_addr({text!r})" for text in ADDRESSES],
        {
            "parse_addr('@b:\"x@y\"@z')": "['x@y', 'z']",
            "parse_addr('\"@a:b\"@c')": "['@a:b', 'c']",
            "parse_addr('\"')": "['\"']",
            "parse_addr('\"@a\"@c')": "['@a', 'c']",
            "parse_addr('\"a\"@@c')": "['\"a\"@', 'c']",
        },
    )


def test_authors_as_the_oracle() -> None:
    agree(
        "utils",
        [f"parseaddr({text!r})" for text in FULL],
        {f"parseaddr({text!r})": "('', '')" for text in NONE}
        | {f"parseaddr({text!r})": repr(result) for text, result in MORE.items()},
    )


def test_authors_under_every_python() -> None:
    found = {text: utils.parseaddr(text) for text in [*AUTHORS, *NONE, *MORE]}
    assert found == {**AUTHORS, **dict.fromkeys(NONE, ("", "")), **MORE}


def test_headers_as_the_oracle() -> None:
    agree(
        "utils",
        [f"parse_header({text!r})" for text in HEADERS],
        {
            "parse_header('=?utf-8?b?YQ?= é')": "'a é'",
            "parse_header('=?idna?q?xn--a?=')": "'xn--a'",
        },
    )


def test_ip_addresses_as_the_oracle() -> None:
    agree(
        "utils",
        [
            *(f"iniplist({ip!r}, {items!r})" for ip, items in LISTS),
            *(f"bool(ip4re.match({ip!r})), bool(ip6re.match({ip!r}))" for ip in IPS),
            *(f"inet_pton({ip!r})" for ip in IPS),
            *(f"addr2bin({ip!r})" for ip in ("1.2.3.4", "127.1", "256.1.1.1", "", "::1")),
            *(f"cidr(0x01020304, {bits})" for bits in (0, 8, 24, 32, 33, -1)),
            "cidr(MASK6, 1, MASK6)",
            "bin2long6(b'\\xff' * 16)",
            "inet_ntop(b'\\0' * 12 + b'\\1\\2\\3\\4')",
            "inet_ntop(b'\\0' * 4)",
        ],
        {
            "iniplist('1.2.3.4\\n', ['*'])": "ValueError",
            "iniplist('1.2.3.4', ['::ffff:1.2.3.0/120'])": "True",
            "bool(ip4re.match('1.2.3.4\\n'))": "False",
            "bin2long6(b'')": "ValueError",
        },
    )


def test_lists_of_both_families_as_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)  # put back afterwards
    found = (
        "[(f, 1, 6, '', (a, 0)) for f, a in ((10, '::1'), (2, '127.0.0.1')) if family in (0, f)]"
    )
    fake = f"lambda host, port, family=0, type=0: {found}"

    def ask(ip: str, item: str) -> str:
        return f"(setattr(socket, 'getaddrinfo', {fake}), iniplist({ip!r}, [{item!r}]))[1]"

    ips = ["::1", "::2", "127.0.0.1", "127.1.0.0", "::ffff:127.0.0.1", "1.2.3.4"]
    hosts = ["localhost", "localhost/64", "localhost/8", "localhost/126", "localhost/128"]
    mapped = "::ffff:127.0.0.1"
    agree(
        "utils",
        [ask(ip, item) for ip in ips for item in hosts],
        {
            **{ask(mapped, f"localhost{bits}"): "True" for bits in ("", "/126", "/128")},
            ask("127.0.0.1", mapped): "True",
            ask("127.0.0.1", "::7f00:1"): "False",
            ask("::7f00:1", "127.0.0.1"): "False",
            ask("::1", "0.0.0.0/0"): "False",
        },
    )
    agree("utils", [ask(ip, item) for ip in ips for item in ("::/0", "*", "127.0.0.1")], {})


def test_examples() -> None:
    assert doctest.testmod(utils).attempted > 5
    assert doctest.testmod(utils).failed == 0


@given(st.text())
def test_any_text(text: str) -> None:
    assert len(utils.parse_addr(text)) in (1, 2)
    assert isinstance(utils.parse_header(text), str)
    assert len(utils.parseaddr(text)) == 2


@given(
    st.binary(), st.sampled_from("bqBQ"), st.sampled_from(["utf-8", "utf-7", "big5", "x", "idna"])
)
def test_any_encoded_word(data: bytes, kind: str, charset: str) -> None:
    text = data.decode("latin-1")
    assert isinstance(utils.parse_header(f"a =?{charset}?{kind}?{text}?= b"), str)


def test_hostile_texts_take_few_steps() -> None:
    """Steps are counted, as lines that Python runs."""

    def steps(func: object, text: str) -> int:
        count = 0

        def trace(*_: object) -> object:
            nonlocal count
            count += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            func(text)  # type: ignore[operator]
        finally:
            sys.settrace(before)
        return count

    for part in ("=?a?q?", "=?utf-8?q?=C3?= ", "(", "<", '"', "@", ":", "<@", "a,", "\\("):
        for func in (utils.parse_addr, utils.parse_header, utils.parseaddr):
            assert steps(func, part * 3000) < 12 * steps(func, part * 300) + 2000, (part, func)


def test_import_of_the_package_is_light() -> None:
    heavy = "'email', 'zipfile', 'html', 'sqlite3', 'dns', 'smtplib', 'configparser'"
    ask = f"import sys, Milter; print([name for name in ({heavy}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("statement", "error", "text"),
    [
        ("iniplist('1.2.3.4', ['1.2.3.0/x'])", ValueError, "not a number of bits: 1.2.3.0/x"),
        ("inet_pton('::x')", OSError, "Invalid IP6 address: ::x"),
        ("addr2bin('::x')", OSError, "Invalid IP6 address: ::x"),
        ("addr2bin('::\\0')", OSError, "Invalid IP6 address"),
    ],
)
def test_what_is_wrong_is_named(statement: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}"):
        eval(statement, vars(utils))
