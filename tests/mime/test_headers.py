"""Header fields are changed where they are meant to be and nowhere else, and who asked is told."""

from __future__ import annotations

from collections.abc import Callable
from email.errors import HeaderParseError
from typing import Any

import mime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import read
from mime.parameters import readable

SET_PARAM = {
    "in its place": (
        "text/plain; Charset=a; name=b",
        "charset",
        "x",
        'text/plain; charset="x"; name=b',
    ),
    "new": ("text/plain; name=b", "charset", "x", 'text/plain; name=b; charset="x"'),
    "alone": ("text/plain", "charset", "x", 'text/plain; charset="x"'),
    "without a header": (None, "charset", "x", 'text/plain; charset="x"'),
    "in place of its parts": (
        "text/plain; name*0=a; x=y; name*1=b; name*=c",
        "name",
        "z",
        'text/plain; name="z"; x=y',
    ),
    "in place of several": ("a/b; c=1; c=2", "c", "3", 'a/b; c="3"'),
    "before quotes that never close": ('a/b; c="d', "e", "f", 'a/b; e="f"; c="d'),
    "behind quotes that never close": ('a/b"c; d', "e", "f", 'a/b; e="f"'),
    "8-bit beside it": ('a/b; c="\udce9"', "e", "f", 'a/b; c="\udce9"; e="f"'),
    "8-bit": ("a/b", "c", "\udce9", "a/b; c*=utf-8''%C3%A9"),
    "folded": ("a/b;\n c=d;\n e=f", "c", "x", 'a/b;\n c="x";\n e=f'),
}


@pytest.mark.parametrize(("was", "name", "value", "new"), SET_PARAM.values(), ids=SET_PARAM)
def test_set_param(was: str | None, name: str, value: str, new: str) -> None:
    message = mime.MimeMessage()
    if was is not None:
        message["Content-Type"] = was
    message.set_param(name, value)
    assert str(message.fields("content-type")[0]) == new
    assert message.get_param(name) is not None
    message.del_param(name)
    assert message.get_param(name) is None


WORDS = st.sampled_from(["a", "x-y", "\u20ac", 'a"b', "a;b", "", "\udce9", "=?q?b?c", "a\0", "\\"])


@settings(max_examples=500, deadline=None)
@given(st.text(st.sampled_from("abc=;*01\"\\ '%()\udce9"), max_size=30), WORDS)
def test_set_param_of_anything(was: str, value: str) -> None:
    message = mime.MimeMessage()
    message["Content-Type"] = f"a/b; {was}"
    others = [it for it in message.get_params()[1:] if it[0] != "name"]
    message.set_param("name", value)
    assert readable(message.get_param("name")) == readable(value)
    assert [it for it in message.get_params()[1:] if it[0] != "name"] == others
    assert read(message.as_bytes()).get_params() == message.get_params()
    message.del_param("name")
    assert message.get_params()[1:] == others


def test_getparams_can_be_gone_through() -> None:
    assert read(b"A: b\n\n").getparams() == []
    assert read(b'Content-Type: a/b; c="d e"; f\n\n').getparams() == [
        ("a/b", ""),
        ("c", "d e"),
        ("f", ""),
    ]


def test_set_type_and_boundary() -> None:
    message = read(b"A: b\nContent-Type: text/plain (x); a=b;\n name*=x-y''%e9\nC: d\n\n")
    message.set_boundary("e f")
    assert message.as_bytes() == (
        b"A: b\nContent-Type: text/plain (x); a=b;\n name*=x-y''%e9; boundary=\"e f\"\nC: d\n\n"
    )
    message.set_type("a/b")
    assert message.fields("content-type") == ["a/b; a=b;\n name*=x-y''%e9; boundary=\"e f\""]
    with pytest.raises(ValueError, match="'ab'"):
        message.set_type("ab")
    with pytest.raises(HeaderParseError, match="set the type"):
        mime.MimeMessage().set_boundary("x")


def test_a_value_starts_no_other_header() -> None:
    message = mime.MimeMessage()
    message["X"] = "a\r\nBcc: b\n\tc\r\n"
    message["Y"] = "\udce9\nBcc: b"
    message["Z"] = "\n"
    message["V"] = "a\vb\x1c c: d\u2028"
    assert message.as_bytes() == (b"X: a\n Bcc: b\n\tc\nY: \xe9\n Bcc: b\nZ: \nV: a b  c: d \n\n")
    crlf = read(b"A: b\r\n\r\n")
    crlf["Y"] = "\udce9\n b"
    assert crlf.as_bytes() == b"A: b\r\nY: \xe9\r\n b\r\n\r\n"


def test_white_space_in_front_of_a_colon() -> None:
    data = b"Content-Type \t: text/html; charset=utf-8\nX : y\n\n<script>"
    message = read(data)
    assert message.items() == [("Content-Type", "text/html; charset=utf-8"), ("X", "y")]
    message["Z"] = "z"
    assert message.as_bytes() == data.replace(b"\n\n", b"\nZ: z\n\n")
    assert mime.defang(message)


# A change, and what headerchange is told: name, value, and the headers of that name at that time.
CHANGES: dict[
    str, tuple[Callable[[Any], object], list[tuple[str, str | None, list[str] | None]]]
] = {
    "set": (lambda it: it.__setitem__("A", "y"), [("A", "y", ["b", "y"])]),
    "delete": (lambda it: it.__delitem__("a"), [("a", None, ["b"])]),
    "delete nothing": (lambda it: it.__delitem__("z"), []),
    "add_header": (lambda it: it.add_header("Q", "r", s="t"), [("Q", 'r; s="t"', ['r; s="t"'])]),
    "replace_header": (lambda it: it.replace_header("A", "q"), [("A", "q", ["q"])]),
    "set_param": (
        lambda it: it.set_param("charset", "x"),
        [
            ("Content-Type", None, ["text/plain; charset=a"]),
            ("Content-Type", 'text/plain; charset="x"', ['text/plain; charset="x"']),
        ],
    ),
    "set_param, in its place": (
        lambda it: it.set_param("charset", "x", replace=True),
        [("Content-Type", 'text/plain; charset="x"', ['text/plain; charset="x"'])],
    ),
    "set_param to what it is": (lambda it: it.set_param("charset", "a", requote=False), []),
    "del_param": (
        lambda it: it.del_param("charset"),
        [
            ("content-type", None, ["text/plain; charset=a"]),
            ("content-type", "text/plain", ["text/plain"]),
        ],
    ),
    "del_param of none": (lambda it: it.del_param("x"), []),
    "set_type": (
        lambda it: it.set_type("x/y"),
        [
            ("MIME-Version", "1.0", ["1.0"]),
            ("Content-Type", None, ["text/plain; charset=a"]),
            ("Content-Type", "x/y; charset=a", ["x/y; charset=a"]),
        ],
    ),
    "set_boundary": (
        lambda it: it.set_boundary("x"),
        [
            (
                "Content-Type",
                'text/plain; charset=a; boundary="x"',
                ['text/plain; charset=a; boundary="x"'],
            )
        ],
    ),
    "set_charset": (
        lambda it: it.set_charset("utf-8"),
        [
            ("MIME-Version", "1.0", ["1.0"]),
            ("Content-Type", None, ["text/plain; charset=a"]),
            ("Content-Type", 'text/plain; charset="utf-8"', ['text/plain; charset="utf-8"']),
            ("Content-Transfer-Encoding", "base64", ["base64"]),
        ],
    ),
    "set_charset(None)": (
        lambda it: it.set_charset(None),
        [
            ("content-type", None, ["text/plain; charset=a"]),
            ("content-type", "text/plain", ["text/plain"]),
        ],
    ),
    "set_payload": (lambda it: it.set_payload("x"), []),
    "set_payload with a charset": (
        lambda it: it.set_payload("\u20ac", "iso-8859-15"),
        [
            ("MIME-Version", "1.0", ["1.0"]),
            ("Content-Type", None, ["text/plain; charset=a"]),
            (
                "Content-Type",
                'text/plain; charset="iso-8859-15"',
                ['text/plain; charset="iso-8859-15"'],
            ),
            ("Content-Transfer-Encoding", "quoted-printable", ["quoted-printable"]),
        ],
    ),
    "attach": (lambda it: (it.set_payload([]), it.attach(mime.MimeMessage())), []),
    "defang": (
        lambda it: mime.check_name(it, ckname=bool),
        [
            ("content-type", None, ["text/plain; charset=a"]),
            ("Content-Type", "text/plain; name=WARNING.TXT", ["text/plain; name=WARNING.TXT"]),
        ],
    ),
}


@pytest.mark.parametrize(("change", "told"), CHANGES.values(), ids=CHANGES)
def test_headerchange(change: Callable[[Any], object], told: list[Any]) -> None:
    message = read(b"A: b\nContent-Type: text/plain; charset=a\n\nx\n")
    log: list[Any] = []
    message.headerchange = lambda msg, name, value: log.append((name, value, msg.get_all(name)))
    before = message.items()
    change(message)
    assert log == told
    # To follow what is told is to have the same headers.
    for name, value, _ in log:
        others = [it for it in before if it[0].lower() != name.lower()]
        before = others if value is None else [*others, (name, value)]
    if "set" not in change.__code__.co_names and "A" not in {name for name, _, _ in log}:
        assert sorted(before) == sorted(message.items())


def test_deleting_as_the_older_package_tells_it() -> None:
    """A hook as its documentation has it: it deletes the headers that it still sees."""
    message = read(b"X: 1\nX: 2\n\n")
    deleted: list[tuple[str, int]] = []

    def hook(msg: Any, name: str, value: str | None) -> None:
        if value is None:
            deleted.extend((name, index) for index in range(len(msg.getheaders(name)), 0, -1))

    message.headerchange = hook
    del message["X"]
    assert deleted == [("X", 2), ("X", 1)]
