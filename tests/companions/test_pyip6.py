"""Milter.pyip6 against the older package."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter import pyip6

from .oracle import agree

PACKED = [
    bytes(16), bytes(10) + b"\xff\xff\1\2\3\4", bytes(12) + b"\1\2\3\4", b"\xfe\x80" + bytes(14),
    b"\xab" * 16, b"\x12\x34\x56\x78" + bytes(8) + b"\1\2\3\4",
    b"\0\0\0\0\0\0\x12\x34\x56\x78\0\0\1\2\3\4",
]  # fmt: skip
TEXTS = [
    "::", "1.2.3.4", "::1.2.3.4.5", "", "x", "1::2::3", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::",
    "::ABCD", "::FFFF:1.2.3.4",
]  # fmt: skip


def test_as_the_oracle() -> None:
    agree(
        "pyip6",
        [
            *(f"inet_ntop({packed!r})" for packed in PACKED),
            *(f"inet_pton({text!r})" for text in TEXTS),
        ],
        {
            f"inet_ntop({bytes(15) + bytes([1])!r})": "'::1'",
            f"inet_ntop({bytes.fromhex('0001000000010001000100010001') + bytes(2)!r})":
                "'1:0:1:1:1:1:1:0'",
            "inet_ntop(b'')": "ValueError",
            "inet_pton('12345::')": "ValueError",
            "inet_pton('::ffff:256.1.1.1')": "ValueError",
        },
    )  # fmt: skip


@given(st.binary(min_size=16, max_size=16))
def test_there_and_back(packed: bytes) -> None:
    assert pyip6.inet_pton(pyip6.inet_ntop(packed)) == packed


@given(st.text())
def test_any_text(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert len(pyip6.inet_pton(text)) == 16
    with pytest.raises(ValueError, match="length"):
        pyip6.inet_ntop(b"123")
