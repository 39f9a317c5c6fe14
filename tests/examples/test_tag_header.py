"""examples/tag_header.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter.testing import MTA, AddHeader, ChangeHeader
from tag_header import TagHeader

MARK = AddHeader("X-External", "yes")
ENCODED = b"=?utf-8?q?caf=C3=A9?="


@pytest.fixture(params=["postfix", "sendmail"])
def mta(request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    with MTA(TagHeader, profile=request.param) as made:
        yield made


def subjects(message: bytes) -> list[bytes]:
    lines = message.split(b"\n\n")[0].split(b"\n")
    return [line[9:] for line in lines if line.lower().startswith(b"subject: ")]


@pytest.mark.parametrize(
    ("subject", "tagged"),
    [
        (b"hello", b"[external] hello"),
        (b"Re: [external] hello", b"Re: [external] hello"),
        (ENCODED, b"[external] " + ENCODED),
        (b"=?utf-8?q?Re=3A_=5Bexternal=5D_caf=C3=A9?=", None),
        (b"=?utf-8?b?UmU6IFtleHRlcm5hbF0gY2Fmw6k=?=", None),
        (b"=?utf-8?q?=5Bexter?= =?utf-8?q?nal=5D?=", None),
        (b"caf\xe9", b"[external] caf\xe9"),
        (b"=?nonsense?q?a?= =?utf-8?b?!!!?=", b"[external] =?nonsense?q?a?= =?utf-8?b?!!!?="),
        (b"100%", b"[external] 100%"),
    ],
)
def test_a_subject(mta: MTA, subject: bytes, tagged: bytes | None) -> None:
    result = mta.send(b"Subject: " + subject + b"\n\nhi\n")
    assert subjects(result.message) == [subject if tagged is None else tagged]


def test_a_lone_carriage_return_is_not_sent_back() -> None:
    with MTA(TagHeader) as mta:  # Sendmail itself refuses it
        result = mta.send(b"Subject: a\rX-External: no\n\nhi\n")
    assert subjects(result.message) == [b"[external] a X-External: no"]


def test_a_folded_subject_stays_folded(mta: MTA) -> None:
    result = mta.send(b"Subject: one\n\ttwo\n\nhi\n")
    assert b"Subject: [external] one\n\ttwo\n" in result.message


def test_a_subject_that_is_missing_or_empty(mta: MTA) -> None:
    assert subjects(mta.send(b"From: a@b\n\nhi\n").message) == [b"[external]"]
    assert ChangeHeader(1, "Subject", "[external] ") in mta.send(b"Subject:\n\nhi\n").changes


def test_each_of_several_subjects_is_tagged(mta: MTA) -> None:
    result = mta.send(b"Subject: one\nSUBJECT: [external] two\nsubject: three\n\nhi\n")
    assert subjects(result.message) == [b"[external] one", b"[external] two", b"[external] three"]


def test_forged_marks_go(mta: MTA) -> None:
    result = mta.send(b"X-External: no\nSubject: s\nx-external: no\nX-EXTERNAL: no\n\nhi\n")
    head = result.message.removesuffix(b"\n\nhi\n").split(b"\n")
    assert sorted(head) == [b"Subject: [external] s", b"X-External: yes"]


def test_our_own_people_are_not_tagged(mta: MTA) -> None:
    assert mta.send(b"Subject: hello\n\nhi\n", auth="ann").changes == ()


def test_nothing_stays_for_the_next_message(mta: MTA) -> None:
    mta.send(b"X-External: no\nSubject: one\nSubject: two\n\nhi\n")
    result = mta.send(b"Subject: three\n\nhi\n")
    assert result.changes == (MARK, ChangeHeader(1, "Subject", "[external] three"))


@given(st.binary(max_size=40))
def test_no_subject_makes_it_fail(subject: bytes) -> None:
    with MTA(TagHeader) as mta:
        message = b"Subject: " + subject.replace(b"\n", b"\n ") + b"\n\nhi\n"
        assert mta.send(message).verdict == "accepted"
