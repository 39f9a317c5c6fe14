"""The real MTAs as judges of what Milter.testing makes of messages and of edits: the same filter
edits the same odd messages behind both, and message and envelope must come out alike. What is
combined is random, but the same each time."""

import random
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import Milter
import pytest
from Milter.testing import MTA, Result
from mta import Mta, wait_for
from postfix import DELIVERY, ID, Postfix
from sendmail import OWN_RECEIVED, Sendmail

SEED = 3  # another one gives other combinations
COMBINATIONS = 60  # for each MTA, each way of treating leading spaces

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
    b"Return-Path: <x@y>\r\nReceived: one\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n"
    b"From: a@b.test\r\nTo: b@c.test\r\nBcc: d@e.test\r\nMessage-Id: <m@x>\r\nFull-Name: z\r\n"
    b"X-Last: 1\r\n\r\nb\r\n",
    b"From someone Thu Jan 1 00:00:00 1970\r\nSubject: x\r\n\r\nFrom here\r\n",
    b"Subject: a\0b\r\nX\0Y: 1\r\nX-Two: 1\r\n\r\nbo\0dy \xff\r\n",
    b"Resent-From: q@r.test\r\nContent-Length: 4\r\nResent-Bcc: <s@t.test>\r\nX-Two: a\t\r\n"
    b"X Y: no header\r\n\r\nb\r\n",
)
NAMES = ("Subject", "X-Two", "x-two", "X-New", "Received", "Date", "From", "Message-Id")
ADDED = ("v", "a\n b", "", "  sp", "x\n\ty")
INSERTED = ("v", "a\n b", "")
CHANGED = ("", "c", "c\n d")
BODIES = (b"x\r\ny\r\n", b"lone\rcr\nlf", b"", b"no end", b"a\r\r\nb", b"\r\n\r\n", b"nul\0\r\n")
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
        return "addheader", name, choose.choice(INSERTED), choose.randint(0, 14)
    return "chgheader", name, choose.randint(0, 4), choose.choice(CHANGED)


def rcpt_edit(choose: random.Random) -> Edit:
    if choose.random() < 0.6:
        return "addrcpt", choose.choice(NEW_RCPTS), *choose.choice(((), (), ("NOTIFY=NEVER",)))
    return "delrcpt", choose.choice(OLD_RCPTS)


def some_edits(choose: random.Random) -> list[Edit]:
    """What the filter does to one message."""
    edits = [header_edit(choose) for _ in range(choose.randint(0, 5))]
    if choose.random() < 0.3:
        edits.append(("replacebody", choose.choice(BODIES)))
    if choose.random() < 0.2:
        edits.append(("chgfrom", choose.choice(SENDERS)))
    edits += [rcpt_edit(choose) for _ in range(choose.randint(0, 4))]
    if choose.random() < 0.1:
        edits.append(("quarantine", "why"))
    return edits


class Outcome(NamedTuple):
    """What comes out: each recipient once for every copy, the senders and texts that they get, and
    whether the message is kept back."""

    rcpts: list[str]
    senders: set[str]
    texts: set[bytes]
    held: bool


class Case(NamedTuple):
    """One combination, and what becomes of it."""

    message: bytes
    edits: list[Edit]
    expected: Outcome  # by the MTA
    actual: Outcome  # by Milter.testing


def by_ours(result: Result) -> Outcome:
    """What Milter.testing says."""
    sender, rcpts = f"<{result.envelope.sender}>", sorted(result.envelope.rcpts)
    held = result.verdict == "quarantined"
    if not rcpts:
        return Outcome([], set(), set(), held)
    return Outcome(rcpts, {sender}, {result.message.replace(b"\r\n", b"\n")}, held)


# ------------------------------------------------------------------------------------- Postfix


def own_received(text: bytes) -> tuple[int, int]:
    """Where Postfix's own Received stands: filters may insert others above it."""
    found = ID.search(text)
    assert found, text
    end = re.compile(rb"\n(?![ \t])").search(text, found.end())
    assert end, text
    return text.rindex(b"Received: from ", 0, found.start()), end.end()


def queued_files(postfix: Mta, *queues: str) -> Iterator[str]:
    """The messages in some of Postfix's queues, by id."""
    for queue in queues:
        for path in (postfix.folder / "queue" / queue).rglob("*"):
            if path.is_file():
                yield path.name


def by_postfix(postfix: Mta, ids: list[str]) -> dict[str, Outcome]:
    """What it delivers, by queue id; those in quarantine after they were let go."""
    held = set(queued_files(postfix, "hold"))
    for command in (["postsuper", "-H", "ALL"], ["postqueue", "-f"]):
        program = [f"/usr/sbin/{command[0]}", "-c", str(postfix.folder / "etc"), *command[1:]]
        subprocess.run(program, check=True, capture_output=True)
    waiting = ("incoming", "active", "deferred", "hold")
    wait_for("empty queues", lambda: not any(queued_files(postfix, *waiting)))
    found = {id_: Outcome([], set(), set(), id_ in held) for id_ in ids}
    for path in (postfix.folder / "maildir" / "box" / "new").iterdir():
        delivered = path.read_bytes()
        id_, top = ID.search(delivered), DELIVERY.match(delivered)
        assert id_, delivered
        assert top, delivered
        text = delivered[top.end() :]
        start, end = own_received(text)
        outcome = found[id_[1].decode()]
        outcome.rcpts.append(top[2].decode())
        outcome.rcpts.sort()
        outcome.senders.add(top[1].decode())
        outcome.texts.add(text[:start] + text[end:])
    return found


# ------------------------------------------------------------------------------------ Sendmail

# Headers that Sendmail adds where the message has none, with the values that it gives them.
OWN = re.compile(
    r"\?P\?Return-Path: <\udc81g>|\?D\?(Resent-)?Date: \w{3}, \d+ \w{3} 20\d\d .*|"
    r"\?F\?(Resent-)?From: (sender|other|plain)@example\.test|\?F\?(Resent-)?From: MAILER-DAEMON|"
    r"\?M\?(Resent-)?Message-Id: <\w+\.\w+@mx\.local\.test>"
)


def by_sendmail(sendmail: Mta, ids: list[str]) -> dict[str, Outcome]:
    """What it queues, by queue id."""
    assert isinstance(sendmail, Sendmail)
    found = {}
    for id_ in ids:
        records = sendmail.queue_file(id_)
        if not records:
            found[id_] = Outcome([], set(), set(), held=False)
            continue
        headers = [line for line in records["H"] if not OWN.fullmatch(line)]
        own = [line for line in headers if OWN_RECEIVED.match(line.removeprefix("??"))]
        assert len(own) == 1, headers
        headers.remove(own[0])
        head = "\n".join(line.split("?", 2)[2].replace("|", "\n") for line in headers)
        head = head and head + "\n"
        body = (sendmail.queue / f"df{id_}").read_bytes()
        rcpts = sorted(line.partition(":")[2].strip("<>") for line in records.get("R", []))
        sender = f"<{records['S'][0].strip('<>')}>"
        text = head.encode("utf-8", "surrogateescape") + b"\n" + body
        found[id_] = Outcome(rcpts, {sender}, {text}, sendmail.held(id_))
    return found


JUDGES: dict[str, tuple[type[Mta], Callable[[Mta, list[str]], dict[str, Outcome]]]] = {
    "postfix": (Postfix, by_postfix),
    "sendmail": (Sendmail, by_sendmail),
}


@pytest.fixture(
    scope="module",
    params=[(mta, spaces) for mta in JUDGES for spaces in ("the MTA's", "the filter's")],
    ids=lambda param: f"{param[0]}, spaces are {param[1]}",
)
def cases(request: pytest.FixtureRequest) -> list[Case]:
    """All combinations, sent through both; through an MTA of their own, because some recipients
    get two copies, which would confuse other tests."""
    name, spaces = request.param
    kind, judged = JUDGES[name]
    if why := kind.missing():
        pytest.skip(why)
    edits: list[Edit] = []

    class Editing(Milter.Base):
        """Makes the edits of the moment."""

        @classmethod
        def protocol_mask(cls) -> int:
            """What it does not ask for: not even to get and give values with their space."""
            mask: int = super().protocol_mask()
            return mask if spaces == "the MTA's" else mask & ~Milter.P_HDR_LEADSPC

        def eom(self) -> int:
            for name, *arguments in edits:
                getattr(self, name)(*arguments)
            return Milter.CONTINUE

    choose = random.Random(SEED)
    sent: list[tuple[str, bytes, list[Edit], Outcome]] = []
    with (
        kind() as mta,
        Milter.Server(Editing, f"unix:{mta.one}", mode=0o666) as server,
        MTA(server, profile=name) as ours,
    ):
        for _ in range(COMBINATIONS):
            edits[:] = some_edits(choose)
            message = choose.choice(MESSAGES)
            rcpts = [f"<{rcpt}>" for rcpt in RCPTS]
            id_ = mta.submit("unix", message, "<sender@example.test>", rcpts)
            result = ours.send(message, "sender@example.test", RCPTS)
            sent.append((id_, message, edits.copy(), by_ours(result)))
        assert ours.current
        assert ours.current.negotiated
        asked = ours.current.negotiated.protocol & Milter.P_HDR_LEADSPC
        assert bool(asked) == (spaces == "the filter's")
        expected = judged(mta, [id_ for id_, *_ in sent])
    return [Case(message, made, expected[id_], ours) for id_, message, made, ours in sent]


@pytest.mark.parametrize("number", range(COMBINATIONS))
def test_they_agree(cases: list[Case], number: int) -> None:
    case = cases[number]
    assert case.actual == case.expected, (case.message, case.edits)


def test_the_combinations_are_worth_it(cases: list[Case]) -> None:
    """Every action and message is among them, and a message for nobody."""
    assert {name for case in cases for name, *_ in case.edits} == {
        *("addheader", "chgheader", "replacebody", "chgfrom", "addrcpt", "delrcpt", "quarantine"),
    }
    assert {case.message for case in cases} == set(MESSAGES)
    assert any(not case.actual.rcpts for case in cases)
