"""Names of charsets that a message chooses: Python's codecs are asked for ASCII ones only, as other
names warn from 3.15 on and raise from 3.17 on."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

import mime
import pytest
from Milter.utils import parse_header
from mime.charsets import codec_of

NAMES = ["x-none-é", "é", "x-none-\u017f", "x-none-\udce9", "x\u2011none"]


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """The names that no codec was found for: a look-up of one of NAMES would end here."""
    seen: list[str] = []
    codecs.register(seen.append)  # type: ignore[arg-type]
    yield seen
    codecs.unregister(seen.append)  # type: ignore[arg-type]


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize(
    "head",
    [
        b"Content-Type: text/html; charset=%b",
        b'Content-Type: text/html; charset="%b"',
        b"Content-Type: text/html; charset*=utf-8''%b",
        b"Content-Type: text/html; name*=%b''a%%E9.htm",
        b"Content-Type: text/html; name==?%b?q?a=E9.htm?=",
        b"Subject: =?%b?q?=E9?=\nContent-Type: text/html",
    ],
)
def test_names_of_messages(asked: list[str], name: str, head: bytes) -> None:
    whole = head % _bytes(name) + b"\n\n\xe9<script>x</script>\n"
    message = mime.message_from_file(io.BytesIO(whole))
    message.getnames(True)
    message.get_payload(decode=True)
    message.get_payload()
    message.get_content_charset()
    mime.defang(message)
    assert b"<script" not in message.as_bytes()
    message.as_string()
    assert asked == []


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_of_words(asked: list[str], name: str) -> None:
    word = f"a =?{name}?q?=E9?= b"
    assert parse_header(word) == word
    assert parse_header(f"a =?{name}?q?c?= b") == "a c b"
    assert asked == []


def test_characters_that_python_left_out() -> None:
    assert codec_of("utf-8") == "utf-8"
    assert [codec_of(f"utf{each}-8") for each in ("é", "\u2011", "\udce9")] == [None] * 3
