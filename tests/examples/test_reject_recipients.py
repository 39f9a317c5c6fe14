"""examples/reject_recipients.py."""

import logging
import os
from pathlib import Path

import pytest
from Milter.testing import MTA
from reject_recipients import RejectRecipients, Rules, read_rules

MESSAGE = b"Subject: hello\n\nhi\n"
RULES = """
# comment
ann@example.org  550 5.1.1  Ann has left: 100%
@example.net     451 4.2.0  Later
bob@example.net  550 5.7.1  Not Bob
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules"
    path.write_text(RULES)
    return path


@pytest.fixture
def mta(file: Path):  # type: ignore[no-untyped-def]
    class Filter(RejectRecipients):
        rules = Rules(file)

    with MTA(Filter) as made:
        yield made


def reply_to(mta: MTA, rcpt: str) -> str:
    [result] = mta.send(MESSAGE, rcpts=[rcpt]).recipients
    return str(result.reply) if result.reply else str(result.verdict)


@pytest.mark.parametrize(
    ("rcpt", "reply"),
    [
        ("eve@example.org", "accepted"),
        ("ann@example.org", "550 5.1.1 Ann has left: 100%"),
        ("ANN@Example.ORG", "550 5.1.1 Ann has left: 100%"),
        ('"ann"@example.org', "550 5.1.1 Ann has left: 100%"),
        ("@relay.example.com:ann@example.org", "550 5.1.1 Ann has left: 100%"),
        ("ann", "accepted"),
        ("joanne@example.net", "451 4.2.0 Later"),
        ("bob@example.net", "550 5.7.1 Not Bob"),
        ("bob@sub.example.net", "accepted"),
        ("a\udce9@example.net", "451 4.2.0 Later"),
    ],
)
def test_a_recipient(mta: MTA, rcpt: str, reply: str) -> None:
    assert reply_to(mta, rcpt) == reply


def test_recipients_have_replies_of_their_own(mta: MTA) -> None:
    rcpts = ["ann@example.org", "eve@example.org", "joe@example.net"]
    result = mta.send(MESSAGE, rcpts=rcpts)
    assert [each.verdict for each in result.recipients] == ["rejected", "accepted", "tempfailed"]
    assert result.envelope.rcpts == ("eve@example.org",)


def test_a_changed_file_counts_at_once(mta: MTA, file: Path) -> None:
    assert reply_to(mta, "eve@example.org") == "accepted"
    file.write_text("eve@example.org 550 5.1.1 Eve too\n")
    assert reply_to(mta, "eve@example.org") == "550 5.1.1 Eve too"
    assert reply_to(mta, "ann@example.org") == "accepted"
    new = file.with_name("new")  # as careful programs replace a file
    new.write_text("ann@example.org 550 5.1.1 Ann again\n")
    os.replace(new, file)
    assert reply_to(mta, "ann@example.org") == "550 5.1.1 Ann again"


@pytest.mark.parametrize("wrong", ["ann@example.org 550 4.1.1 x", None])
def test_a_wrong_file_changes_nothing(
    mta: MTA, file: Path, wrong: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if wrong is None:
        file.unlink()
    else:
        file.write_text(wrong)
    for _ in range(2):
        assert reply_to(mta, "ann@example.org").startswith("550")
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == 1  # once, not at each recipient
    assert "the rules from before stay" in errors[0].getMessage()
    file.write_text("")
    assert reply_to(mta, "ann@example.org") == "accepted"


@pytest.mark.parametrize(
    "line",
    [
        "ann@example.org",
        "ann@example.org Ann has left",
        "ann 550 5.1.1 x",
        "ann@example.org 250 2.0.0 x",
        "ann@example.org 550 4.1.1 x",
        "ann@example.org 560 5.1.1 x",
        "ann@example.org 550 5.1 x",
        "ann@example.org 550 5.1.1",
        "ann@example.org 550 5.1.1 caf\xe9",
        "ann@example.org 550 5.1.1 " + 401 * "x",
    ],
)
def test_a_line_that_is_none(tmp_path: Path, line: str) -> None:
    file = tmp_path / "rules"
    file.write_text("\n" + line + "\n")
    with pytest.raises(ValueError, match="rules, line 2 is not: ADDRESS 550"):
        Rules(file)


def test_the_file_beside_it_is_right() -> None:
    assert read_rules(RejectRecipients.rules.path).keys() == {
        "intern@example.org", "full@example.org", "@old.example.org",
    }  # fmt: skip
