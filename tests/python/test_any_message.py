"""What reads messages, mailboxes and transcripts takes any bytes: Milter.testing, `milterkit send`
and `milterkit replay`. Ten times as much costs about ten times the calls."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import Milter
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from Milter.cli.output import described
from Milter.cli.send import _addresses
from Milter.cli.show import Printer
from Milter.cli.sources import sources_in
from Milter.testing import MTA
from Milter.testing.replaying import _steps
from Milter.testing.transcript import Transcript, TranscriptError, parse, render

PIECES = st.sampled_from(
    [
        *(
            b"\n",
            b"\r\n",
            b"\r",
            b"\n\n",
            b"\0",
            b"\xff",
            b" ",
            b":",
            b"\t",
            b".",
            b"--",
            b"(",
            b"<",
        ),
        *(
            b"From: ",
            b"To: ",
            b"Cc:",
            b"A: b\n",
            b"a@b",
            b"c@d,",
            b"=?utf-8?q?=0a?=",
            b'"',
            b"\\",
            b"@",
        ),
        *(
            b"From x\n",
            b">From y\n",
            b"\n\nFrom z\n",
            b"Content-Type: multipart/mixed\n",
            b"[",
            b";",
        ),
        *(b"x" * 1000, b"\xc3\xa9", b"Received: z\n", b"a:b:c@d;", b"\n folded\n"),
    ]
)
CONTENTS = st.lists(PIECES, max_size=20).map(b"".join) | st.binary()


class Filter(Milter.Base):
    """Changes a little."""

    def header(self, field: str, value: str) -> int:
        return Milter.CONTINUE

    def body(self, chunk: bytes) -> int:
        return Milter.CONTINUE

    def eom(self) -> int:
        self.addheader("X", "v")
        self.chgheader("A", 1, "new")
        return Milter.CONTINUE


def through(mta: MTA, content: bytes) -> str:
    """What is shown of a message on its way through a filter."""
    result = mta.send(content, "a@b", ["c@d"])
    assert isinstance(result.message, bytes)
    shown = io.StringIO()
    Printer(shown).result("a message", result, table=True, trace=True)
    return shown.getvalue() + json.dumps(described("a message", result))


@pytest.fixture(scope="module", params=["postfix", "sendmail"])
def mta(request: pytest.FixtureRequest) -> Iterator[MTA]:
    with MTA(Filter, profile=request.param) as mta:
        yield mta


@settings(max_examples=300, deadline=None)
@given(content=CONTENTS)
def test_messages(mta: MTA, content: bytes) -> None:
    shown = through(mta, content)
    if b"\r" in content.replace(b"\r\n", b""):  # which Sendmail may refuse itself
        assert shown.startswith("a message: ")
    else:
        assert shown.startswith("a message: accepted\n")


@settings(max_examples=500, deadline=None)
@given(CONTENTS)
@example(b"From: " + b"(" * 5000)
@example(b"To: " + b'"' * 5000 + b"\nFrom: =?x?q?\xff?=")
def test_addresses(content: bytes) -> None:
    sender, rcpts = _addresses(content)
    assert len(sender) == 1
    assert rcpts
    for address in (*sender, *(rcpt[0] for rcpt in rcpts)):
        assert address
        assert not set(address) & set("\0\r\n <>")
        address.encode("utf-8", "surrogateescape")


@settings(max_examples=300, deadline=None)
@given(CONTENTS, st.booleans())
def test_mailboxes(content: bytes, is_mbox: bool) -> None:
    content = b"From x\n" + content if is_mbox else content
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "box"
        path.write_bytes(content)
        messages = [source.read() for source in sources_in(str(path))]
    assert messages
    if content.startswith(b"From "):
        assert sum(map(len, messages)) < len(content)
        assert len(messages) <= content.count(b"From ")
    else:
        assert messages == [content]


# --------------------------------------------------------------------------------- transcripts

LINES = st.sampled_from(
    [
        *("== a\n", "a: b\n", "# c\n", "> ", "< ", "eof\n", "raw ", "00", "0000000141", "M", "\\0"),
        *("\\x41", "\\{9}", "\\{99999999}", "\\{" + "9" * 20 + "}", "\\{" + "9" * 5000 + "}", "\\"),
        *(
            "helo ",
            "negotiate ",
            "    return ",
            "CONTINUE",
            "SKIP",
            " = ",
            "ok",
            "NULL",
            '"',
            '"a"',
        ),
        *(
            "0x1f",
            "-1",
            "[new] ",
            "[",
            "]",
            " ",
            "\n",
            "\r",
            "\xe9",
            "\udce9",
            "after: x\n",
            "9" * 5000,
        ),
    ]
)
TEXTS = st.lists(LINES, max_size=15).map("".join) | st.text()


def parsed(text: str) -> list[Transcript] | str:
    """Transcripts, or what is wrong with them."""
    try:
        return parse(text)
    except TranscriptError as error:
        return str(error)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(["", "== a\n"]), TEXTS)
@example("== a\n", "> M x\\{99999999999999999999}")
@example("== a\n", "> M x\\{4000000000}")
@example("== a\n", "negotiate NULL")
@example("== a\n", "> M " + "x\\{9999999}" * 9)
def test_transcripts(start: str, text: str) -> None:
    transcripts = parsed(start + text)
    if isinstance(transcripts, str):
        assert transcripts.startswith("line ")
        return
    assert parse(render(transcripts)) == transcripts
    for transcript in transcripts:
        transcript.events()
        _steps(transcript)


# -------------------------------------------------------------------------------------- growth


def calls(use: Callable[[], object]) -> int:
    """How many functions are called, those in C too."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        use()
    finally:
        sys.setprofile(None)
    return count


SHAPES: dict[str, Callable[[MTA, int], object]] = {
    "headers": lambda mta, times: through(mta, b"A: b\n" * times + b"\nx"),
    "folds": lambda mta, times: through(mta, b"A: b\n" + b" x\n" * times),
    "lines": lambda mta, times: through(mta, b"A: b\n\n" + b"\r\n" * times),
    "addresses": lambda _, times: _addresses(b"To: " + b"a@b, " * times),
    "comments": lambda _, times: _addresses(b"To: " + b"(a)" * times),
    "packets": lambda _, times: parse("== a\n" + "> M <a@b>\\0\n< c\n" * times),
    "callbacks": lambda _, times: parse("== a\n" + "helo\n< c\n" * times)[0].events(),
    "values": lambda _, times: parse("== a\nhelo" + ' "a"' * times),
}


@pytest.mark.parametrize("use", SHAPES.values(), ids=SHAPES)
def test_growth(mta: MTA, use: Callable[[MTA, int], object]) -> None:
    use(mta, 100)
    few, many = calls(partial(use, mta, 100)), calls(partial(use, mta, 1000))
    assert 0 < many <= 12 * few
