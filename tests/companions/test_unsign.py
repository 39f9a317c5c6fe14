"""Milter.unsign. The older package's gives every address back as it is, also its own example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter.unsign import unsign

from .oracle import agree


@pytest.mark.parametrize(
    ("signed", "plain"),
    [
        ("SRS0=8Y3CZ=3U=jsconnor.com=bills@bmsi.com", "bills@jsconnor.com"),
        ("srs0+8Y3CZ=3U=jsconnor.com=bills@bmsi.com", "bills@jsconnor.com"),
        ("SRS0=8Y3CZ=3U=jsconnor.com=bi=lls@bmsi.com", "bi=lls@jsconnor.com"),
        ("SRS1=hash=fwd.com==8Y3CZ=3U=jsconnor.com=bills@bmsi.com", "bills@jsconnor.com"),
        ("prvs=1234567890=user@d.com", "user@d.com"),
        ("btv1==0123==user@d.com", "user@d.com"),
    ],
)
def test_signed(signed: str, plain: str) -> None:
    assert unsign(signed) == plain
    agree("unsign", [], {f"unsign({signed!r})": repr(plain)})


def test_not_signed() -> None:
    texts = ["user@d.com", "user+x@d.com", "", "foo", "SRS0=a=b@c", "SRS0@d", "prvs=@d", "prvs=a@d"]
    agree("unsign", [f"unsign({text!r})" for text in texts], {})


@given(st.text(alphabet="SRS01=+-@prvs.\n\0é"))
def test_any_text(text: str) -> None:
    assert isinstance(unsign(text), str)
    assert unsign("x=" * 20000 + text) is not None
