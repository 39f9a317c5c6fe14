"""Postfix as the judge of Milter.testing: the same filter edits the same odd messages behind both,
and message and envelope must come out alike. What is combined is random, but the same each time."""

import random
import re
from typing import Any, NamedTuple

import Milter
import pytest
from Milter.testing import MTA, Result
from mta import wait_for
from postfix import DELIVERY, ID, Postfix

SEED = 3  # another one gives other combinations
COMBINATIONS = 50

MESSAGES = (
    b"Subject: test\r\nX-Two: first\r\nX-Two: second\r\n\r\nThe body.\r\n",
    b"Received: from x by y\r\nSubject: test\r\n folded\r\nReceived: two\r\nX-Two:nospace\r\n\r\n"
    b"Body\r\n\r\n",
    b"X-Two:   many\r\nx-two : odd\r\n\r\n",
    b"X-Two:\r\nX-Two: \r\n \r\nSubject: x\r\n\r\n\r\nlate\r\n",
    b"Subject: only header\r\n",
    b"no header at all\r\nX: 1\r\n",
    b"Subject: a\r\ntext without blank\r\n\r\nmore\r\n",
    b"\r\nbody only\r\n",
)
NAMES = ("Subject", "X-Two", "x-two", "X-New", "Received", "Cc")
ADDED = ("v", "a\n b", "", "  sp", "x\n\ty")
INSERTED = ("v", "a\n b", "")
CHANGED = ("", "c", "c\n d")
BODIES = (b"x\r\ny\r\n", b"lone\rcr\nlf", b"", b"no end", b"a\r\r\nb", b"\r\n\r\n")
NEW_RCPTS = ("<one@local.test>", "<three@local.test>", "<Three@local.test>", "three@LOCAL.test")
OLD_RCPTS = ("<one@local.test>", "<ONE@local.test>", "two@local.test", "three@local.test")
SENDERS = ("<other@example.test>", "plain@example.test", "<>")
RCPTS = ("one@local.test", "two@local.test")

Edit = tuple[Any, ...]  # the name of an action, and its arguments


def header_edit(choose: random.Random) -> Edit:
    name = choose.choice(NAMES)
    kind = choose.random()
    if kind < 0.25:
        return "addheader", name, choose.choice(ADDED)
    if kind < 0.55:
        return "addheader", name, choose.choice(INSERTED), choose.randint(0, 6)
    return "chgheader", name, choose.randint(0, 4), choose.choice(CHANGED)


def rcpt_edit(choose: random.Random) -> Edit:
    if choose.random() < 0.6:
        return "addrcpt", choose.choice(NEW_RCPTS)
    return "delrcpt", choose.choice(OLD_RCPTS)


def some_edits(choose: random.Random) -> list[Edit]:
    """What the filter does to one message."""
    edits = [header_edit(choose) for _ in range(choose.randint(1, 5))]
    if choose.random() < 0.3:
        edits.append(("replacebody", choose.choice(BODIES)))
    if choose.random() < 0.2:
        edits.append(("chgfrom", choose.choice(SENDERS)))
    edits += [rcpt_edit(choose) for _ in range(choose.randint(0, 4))]
    return edits


class Outcome(NamedTuple):
    """What comes out: each recipient once for every copy, the senders and texts that they get."""

    rcpts: list[str]
    senders: set[str]
    texts: set[bytes]


class Case(NamedTuple):
    """One combination, and what becomes of it."""

    message: bytes
    edits: list[Edit]
    expected: Outcome  # by Milter.testing
    delivered: Outcome  # by Postfix


def expectation(result: Result) -> Outcome:
    """What Milter.testing says."""
    sender, rcpts = f"<{result.envelope.sender}>", sorted(result.envelope.rcpts)
    text = result.message.replace(b"\r\n", b"\n")
    return Outcome(rcpts, {sender}, {text}) if rcpts else Outcome([], set(), set())


def own_received(text: bytes) -> tuple[int, int]:
    """Where Postfix's own Received stands: filters may insert others above it."""
    found = ID.search(text)
    assert found, text
    end = re.compile(rb"\n(?![ \t])").search(text, found.end())
    assert end, text
    return text.rindex(b"Received: from ", 0, found.start()), end.end()


def deliveries(postfix: Postfix) -> dict[str, Outcome]:
    """What Postfix delivered, by queue id."""
    found: dict[str, Outcome] = {}
    for path in (postfix.folder / "maildir" / "box" / "new").iterdir():
        delivered = path.read_bytes()
        id_, top = ID.search(delivered), DELIVERY.match(delivered)
        assert id_, delivered
        assert top, delivered
        text = delivered[top.end() :]
        start, end = own_received(text)
        outcome = found.setdefault(id_[1].decode(), Outcome([], set(), set()))
        outcome.rcpts.append(top[2].decode())
        outcome.senders.add(top[1].decode())
        outcome.texts.add(text[:start] + text[end:])
    for outcome in found.values():
        outcome.rcpts.sort()
    return found


def is_settled(postfix: Postfix) -> bool:
    """Whether no message is on its way."""
    queues = [postfix.folder / "queue" / name for name in ("incoming", "active", "deferred")]
    return not any(path.is_file() for queue in queues for path in queue.rglob("*"))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """All combinations, sent through both; through a Postfix of their own, because some recipients
    get two copies, which would confuse other tests."""
    if why := Postfix.missing():
        pytest.skip(why)
    edits: list[Edit] = []

    class Editing(Milter.Base):
        """Makes the edits of the moment."""

        def eom(self) -> int:
            for name, *arguments in edits:
                getattr(self, name)(*arguments)
            return Milter.CONTINUE

    choose = random.Random(SEED)
    sent: list[tuple[str, bytes, list[Edit], Outcome]] = []
    with (
        Postfix() as postfix,
        Milter.Server(Editing, f"unix:{postfix.one}", mode=0o666) as server,
        MTA(str(server.address)) as ours,
    ):
        for _ in range(COMBINATIONS):
            edits[:] = some_edits(choose)
            message = choose.choice(MESSAGES)
            rcpts = [f"<{rcpt}>" for rcpt in RCPTS]
            id_ = postfix.submit("unix", message, "<sender@example.test>", rcpts)
            result = ours.send(message, "sender@example.test", RCPTS)
            sent.append((id_, message, edits.copy(), expectation(result)))
        wait_for("empty queues", lambda: is_settled(postfix))
        delivered = deliveries(postfix)
    nothing = Outcome([], set(), set())
    return [Case(*rest, delivered.get(id_, nothing)) for id_, *rest in sent]


@pytest.mark.parametrize("number", range(COMBINATIONS))
def test_they_agree(cases: list[Case], number: int) -> None:
    case = cases[number]
    assert case.delivered == case.expected, (case.message, case.edits)


def test_the_combinations_are_worth_it(cases: list[Case]) -> None:
    """Every action and message is among them, recipients with two copies, a message for nobody."""
    assert {name for case in cases for name, *_ in case.edits} == {
        *("addheader", "chgheader", "replacebody", "chgfrom", "addrcpt", "delrcpt"),
    }
    assert {case.message for case in cases} == set(MESSAGES)
    assert any(not case.expected.rcpts for case in cases)
    assert any(len(case.expected.rcpts) > len(set(case.expected.rcpts)) for case in cases)
