"""A filter that is stopped and started again, several times, under full load: every message has
the outcome that the filter gave it, or the MTA's default action; none is lost, delivered twice,
unfiltered, or half changed."""

import hashlib
import itertools
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest
from differences import refusal
from mta import Client, Mta, Reply, wait_for
from postfix import Postfix
from running import Filter
from test_stopped import begin

CLIENTS = 8
RESTARTS = 6
DECISIONS = 40  # of each filter, before it is stopped
RULES = ("accept", "continue", "reject", "tempfail", "discard")
TAKEN = ("accept", "continue")


@pytest.fixture(scope="session")
def mta(postfix: Postfix) -> Postfix:
    """Over this MTA alone: every message in its box is looked at."""
    return postfix


class Sent(NamedTuple):
    """A message that was sent, and the reply that decided."""

    rule: str
    body: bytes
    reply: Reply

    @property
    def digest(self) -> str:
        """What the filter finds if it sees the whole body."""
        return hashlib.sha256(self.body).hexdigest()


class Load:
    """SMTP clients that send one message after the other, each with a number of its own."""

    def __init__(self, mta: Mta) -> None:
        self.mta = mta
        self.numbers = itertools.count()
        self.sent: dict[int, Sent] = {}
        self.enough = threading.Event()
        self.errors: list[BaseException] = []
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        # What the MTA says while it has no filter.
        self.defaults = [refusal(mta, "TEMPFAIL", step) for step in ("connect", "eom")]

    def __enter__(self) -> "Load":
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        for thread in self.threads:
            thread.join()

    def _run(self) -> None:
        try:
            while not self.enough.is_set():
                with closing(self.mta.client("unix")) as client:
                    client.command("EHLO client.test")
                    # A connection that has lost its filter gets no other one.
                    while self.send(client) not in self.defaults and not self.enough.is_set():
                        pass
        except BaseException as error:
            self.errors.append(error)

    def send(self, client: Client, *, begun: bool = False) -> Reply:
        """Sends a message, or the rest of one whose recipient was taken."""
        number = next(self.numbers)
        rule = RULES[number % len(RULES)]
        lines = random.Random(number).randrange(1000, 4000)
        body = f"This is line x of {number}.\r\n".encode() * lines
        head = f"X-Number: {number}\r\nX-Rule: {rule}\r\nSubject: sent\r\n\r\n".encode()
        if begun:
            reply = client.command("DATA")
            reply = client.content(head + body) if reply.code == 354 else reply
        else:
            replies = client.run(head + body).values()
            reply = next((each for each in replies if each.code not in (250, 354)), [*replies][-1])
        self.sent[number] = Sent(rule, body, reply)
        return reply

    def refused(self) -> int:
        """How many messages had the default action so far."""
        return sum(each.reply in self.defaults for each in list(self.sent.values()))

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        """Waits for a condition, while the clients go on."""
        wait_for(what, lambda: self.errors or condition())
        assert not self.errors


def decided(folder: Path) -> list[tuple[int, str]]:
    """What a filter has decided so far, in order: numbers and rules."""
    words = [line.split() for line in (folder / "decided").read_text().splitlines()]
    return [(int(number), rule) for number, rule in words]


def check(mta: Postfix, sent: dict[int, Sent], rules: dict[int, str], load: Load) -> set[str]:
    """That each client was told what was decided. Returns the ids of what must be delivered."""
    ids: dict[str, Sent] = {}
    for number, message in sent.items():
        told = {
            None: load.defaults,
            "reject": [Reply(554, f"5.7.1 refused {message.digest}")],
            "tempfail": [Reply(452, f"4.7.9 not now {message.digest}")],
        }
        rule = rules.get(number)
        if rule in told:
            assert message.reply in told[rule], number
        else:
            id_ = mta.queue_id(message.reply)
            if rule in TAKEN:
                ids[id_] = message
    for id_, message in ids.items():
        delivered = mta.delivered(id_)
        changed = [line for line in delivered.headers if line.startswith(("Subject:", "X-Digest:"))]
        assert changed == ["Subject: filtered", f"X-Digest: {message.digest}"]
        assert delivered.body == f"{message.digest}\n".encode() * (len(message.body) // 50)
    return set(ids)


@pytest.mark.parametrize("overlap", [False, True], ids=["one after the other", "overlapping"])
def test_restarts_under_load(mta: Postfix, tmp_path: Path, overlap: bool) -> None:
    """`overlap`: the next filter starts while the one before finishes its messages."""
    before = set(mta.box())
    filters: list[Filter] = []
    with ExitStack() as stack, Load(mta) as load:
        for number in range(RESTARTS):
            folder = tmp_path / str(number)
            it = stack.enter_context(Filter("ruled.py", f"unix:{mta.one}", folder))
            filters.append(it)
            load.wait("decisions", lambda: len(decided(folder)) >= DECISIONS)  # noqa: B023
            with closing(begin(mta, "unix")) as client:
                it.process.send_signal(signal.SIGTERM)
                wait_for("the socket to go", lambda: not mta.one.exists())
                refused = load.refused()
                if not overlap:
                    load.wait("a refusal", lambda: load.refused() > refused)  # noqa: B023
                assert load.send(client, begun=True) not in load.defaults
            if not overlap:
                assert it.process.wait(60) == 0
        for it in filters:
            assert it.process.wait(60) == 0
            assert it.stderr() == ""

    assert not load.errors
    decisions = [decision for it in filters for decision in decided(it.folder)]
    rules = dict(decisions)
    assert len(rules) == len(decisions)
    assert rules.items() <= {number: sent.rule for number, sent in load.sent.items()}.items()
    assert Counter(rules.values()).keys() == set(RULES)
    wanted = check(mta, load.sent, rules, load)
    assert mta.recipients(next(iter(wanted))) == {"one@local.test"}  # waits for empty queues
    assert {id_ for id_, _ in set(mta.box()) - before} == wanted
