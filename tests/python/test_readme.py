"""The README's filter does what the README says."""

import re
from collections.abc import Iterator
from pathlib import Path

import Milter
import pytest
from Milter.testing import MTA, Verdict

README = Path(__file__).parents[2] / "README.md"
MESSAGE = b"From: a@example.net\r\nSubject: hello\r\n\r\n%s\r\n"


@pytest.fixture
def mta(tmp_path: Path) -> Iterator[MTA]:
    """An MTA whose filter is the one in the README."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 1
    names: dict[str, type[Milter.Base]] = {"__name__": "readme"}  # type: ignore[dict-item]
    exec(compile(blocks[0], str(README), "exec"), names)
    socket = f"unix:{tmp_path}/socket"
    with Milter.Server(names["Filter"], socket), MTA(socket) as each:
        yield each


def test_an_ordinary_message_is_marked(mta: MTA) -> None:
    result = mta.send(MESSAGE % b"text")
    assert result.verdict is Verdict.ACCEPTED
    assert b"\nX-Checked: mta.example.org" in result.message.replace(b"\r\n", b"\n")


def test_a_recipient_is_rejected(mta: MTA) -> None:
    result = mta.send(MESSAGE % b"text", rcpts=["intern@example.org"])
    assert result.verdict is Verdict.REJECTED
    assert result.reply is not None
    assert result.reply.code == 550


def test_a_request_for_a_password_is_held(mta: MTA) -> None:
    result = mta.send(MESSAGE % b"send your password")
    assert result.verdict is Verdict.QUARANTINED
