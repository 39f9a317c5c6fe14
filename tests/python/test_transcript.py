"""Milter.testing.transcript: transcripts as text, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter.testing.transcript import (
    STEPS,
    Answered,
    Called,
    Did,
    Entry,
    Returned,
    Sent,
    Transcript,
    TranscriptError,
    parse,
    render,
)

EXAMPLE = r"""== a recipient is refused
mta: any
mta: another
> R <c@d>\0
envrcpt "<c@d>"
    setreply "550" "5.7.1" "no" = ok
    [new] getsymval "{i}" = NULL
    return REJECT
[old] < r
[new] < y 550 5.7.1 no\0
> B x\{70}
> raw 0000
> eof
close
"""

data = st.binary(max_size=20) | st.builds(lambda n: b"x" * n, st.integers(60, 200))
values = st.none() | st.integers(-9, 9) | data
events = st.one_of(
    st.builds(Sent, st.none() | data.map(lambda it: (len(it) + 1).to_bytes(4, "big") + b"x" + it)),
    st.builds(Sent, data),
    st.builds(Answered, data.map(lambda it: (len(it) + 1).to_bytes(4, "big") + b" " + it)),
    st.builds(Answered, data),
    st.builds(Called, st.sampled_from(STEPS[1:]), st.tuples(values, values)),
    st.builds(Did, st.just("addheader"), st.tuples(values), st.just("ok") | st.none() | data),
    st.builds(Returned, st.integers(-1, 30), st.sampled_from([(), (1, 0x1FFFFF)])),
)
entries = st.builds(Entry, events, st.frozensets(st.sampled_from(["new", "old", "mkit-c"])))
transcripts = st.builds(
    Transcript,
    st.just("title: of it"),
    st.lists(st.just(("key", "a value"))),
    st.lists(entries),
)


@given(st.lists(transcripts, max_size=2))
def test_what_is_written_is_read(written: list[Transcript]) -> None:
    assert parse(render(written)) == written


def test_text() -> None:
    (transcript,) = parse(EXAMPLE)
    assert render([transcript]) == EXAMPLE
    assert transcript.values("mta") == ["any", "another"]
    assert transcript.entries[6].event == Answered(b"\0\0\0\x0ey550 5.7.1 no\0")
    assert transcript.entries[7].event == Sent(b"\0\0\0\x47B" + b"x" * 70)


def test_lines_for_somebody() -> None:
    (transcript,) = parse(EXAMPLE)
    assert transcript.events("old") == [
        Sent(b"\0\0\0\7R<c@d>\0"),
        Called("envrcpt", (b"<c@d>",)),
        Did("setreply", (b"550", b"5.7.1", b"no"), "ok"),
        Returned(1),
        Answered(b"\0\0\0\1r"),
        Sent(b"\0\0\0\x47B" + b"x" * 70),
        Sent(b"\0\0"),
        Sent(None),
        Called("close"),
        Returned(0),
    ]


def test_answers_inside_a_callback() -> None:
    (inside, after) = parse(
        "== in\neom\n    progress = ok\n< p\n    return CONTINUE\n< c\n"
        "== after\neom\n    progress = ok\n< p\n< c\n"
    )
    kinds = [[type(event).__name__ for event in it.events()] for it in (inside, after)]
    assert kinds == [
        ["Called", "Did", "Answered", "Returned", "Answered"],
        ["Called", "Did", "Returned", "Answered", "Answered"],
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("> M", "line 1: a transcript begins with =="),
        ("== a\n\nwhat", "line 3: what is this?"),
        ("== a\n< eof", "line 2: a filter's end is not written"),
        ("== a\n> MM x", "line 2: MM is not one character"),
        ("== a\n> M \\q", "line 2: an unknown escape"),
        ("== a\n> M \\{9}", "line 2: there is nothing to repeat"),
        ("== a\n> raw 0", "line 2: "),
        ("== a\nhelo me", "line 2: no value: me"),
        ("== a\n    addheader 'x' = ok", "line 2: no value: 'x'"),
        ("== a\n    return MAYBE", "line 2: "),
    ],
)
def test_what_is_no_transcript(text: str, why: str) -> None:
    with pytest.raises(TranscriptError, match="line") as raised:
        parse(text)
    assert str(raised.value).startswith(why)
