"""Nothing that may be done with a message raises, whatever arrived as one. About three seconds."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import corpus, read
from operations import IN_TURN, OPERATIONS
from test_messages import MESSAGES, NESTED

CORPUS = corpus()


CHARSETS = [
    *("idna", "punycode", "undefined", "unicode_escape", "hex", "rot13", "zlib", "utf-7", "utf-16"),
    *("mbcs", "unknown-8bit", "\\0", "a\0b", "\xe9", "x" * 10000, "iso-2022-jp", "utf-8"),
]
LEVELS = 1000  # more than are taken apart
ODD: dict[str, bytes] = {
    "nested": NESTED,
    "multiparts within each other": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (level, level)
        for level in range(LEVELS)
    ),
    "messages within each other": b"Content-Type: message/rfc822\n\n" * LEVELS,
    "8-bit": b"Subject: \xe9\0\xff\nX\xe9: y\nContent-Type: text/plain; charset=\xe9\n\n\xe9\0",
    "an 8-bit parameter": b'Content-Type: text/html; name="\xe9\0"; charset=x\n\n\xe9\0',
    "an 8-bit boundary": b'Content-Type: multipart/mixed; boundary="\xe9"\n\n--\xe9\n\nx\n--\xe9--',
    "RFC 2231, a charset": b"Content-Type: text/plain; charset*=utf-8''utf-8\n\n\xe9",
    "RFC 2231, a boundary": b"Content-Type: multipart/mixed; boundary*=utf-8''%C3%A9\n\n"
    b"--\xc3\xa9\n\nx\n",
    "RFC 2231, odd numbers": b"Content-Type: text/plain; name*99999999999999999999=x; name*0=y;"
    b" name*-1=z; *=x; *0=y; name**=a; name*=; name*0*=%; name*0=b\n\n",
    "no charset of mail": b"Content-Type: text/plain; name*=x-y''%e9; x=y\n\n\xe9",
    "a multipart in base64": b"Content-Type: multipart/mixed; boundary=a\n"
    b"Content-Transfer-Encoding: base64\n\n--a\n\nx\n--a--\n",
    "a status": b"Content-Type: message/delivery-status\n\nA: b\n\nC: d\n",
    "a status in a status": b"Content-Type: message/delivery-status\n\n"
    b"Content-Type: message/delivery-status\nx y\n\nA: b\n",
    "a message that is none": b"Content-Type: message/external-body\n\nContent-Type: x/y\n\n",
    "no header": b"\n\xe9",
    "nothing": b"",
    "a charset that is written in another": b"Content-Type: text/plain; charset=shift_jis\n\n\xb1",
    **{
        f"{charset[:20]}, {encoding}": (
            f'Content-Type: text/html; charset="{charset}"\n'
            f"Content-Transfer-Encoding: {encoding}\n\n\xe9<script>\\x"
        ).encode("latin-1")
        for charset in CHARSETS
        for encoding in ("base64", "8bit", "quoted-printable", "x-uue")
    },
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_operations(operation: Callable[[Any], object]) -> None:
    for data in CORPUS.values():
        operation(read(data))
        operation(read(data[: len(data) * 2 // 3]))
    for data in ODD.values():
        operation(read(data))


@settings(max_examples=300, deadline=None)
@given(MESSAGES, st.lists(st.sampled_from(IN_TURN), min_size=1, max_size=4))
def test_one_after_the_other(data: bytes, names: list[str]) -> None:
    message = read(data)
    for name in names:
        OPERATIONS[name](message)


@pytest.mark.parametrize("data", [*CORPUS.values(), *ODD.values()], ids=[*CORPUS, *ODD])
def test_copies(data: bytes) -> None:
    message = read(data)
    message.headerchange = lambda *_: pytest.fail("a copy was changed, not the message")
    for again in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert again.as_bytes(unixfrom=True) == data
        assert not again.ismodified()
        again["X"] = "y"
        assert again.ismodified()
        assert not message.ismodified()
    if parts := message.get_submsg():
        message.headerchange = None
        parts[0]["X"] = "y"
        changed = copy.deepcopy(message)
        assert changed.as_bytes() == message.as_bytes()
        assert [part.ismodified() for part in changed.walk()] == [
            part.ismodified() for part in message.walk()
        ]


@pytest.mark.parametrize("charset", [*CHARSETS, "*=utf-8''utf-8"])
def test_text_of_8_bit_in_any_charset(charset: str) -> None:
    form = charset if charset.startswith("*") else f'="{charset}"'
    data = f"Subject: \xe9\nContent-Type: text/plain; charset{form}\n\n\xe9\n".encode("latin-1")
    message = read(data)
    text = message.as_string()
    assert text.startswith("Subject: ")
    text.encode()  # nothing in it stands for a byte
    assert str(message) == text
    assert message.as_bytes() == data
