"""The MTA's side of the soak test: threads that do well and badly by turns, and check all answers.

Usage: peers.py SPEC SECONDS SEED. Prints what it did as one JSON object; its status is 1 if a
filter did anything wrong. `SCENARIOS` lists what can happen to a connection.
"""

import json
import random
import socket
import sys
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import NamedTuple

import plan
from Milter import _wire
from Milter.testing import (
    MTA,
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
    ReplaceBody,
    Result,
    Session,
)
from Milter.testing import spec as specs

THREADS = 10
TIMEOUT = 120.0  # seconds for any one answer; only what hangs reaches it
BODY = b"A line of the body, which goes on until here.\r\n" * 100
BIG_BODY = b"x" * 1022 + b"\r\n"
HUGE = threading.Semaphore(2)  # how many threads may hold many megabytes
NOT_ALL = _wire.ALL_ACTIONS & ~plan.NO_REPLY_WITHOUT

# What becomes of a message by the word of its plan; by any other it is accepted, at its end.
OUTCOMES = {
    "accept": "accepted",
    "reject": "rejected",
    "reply": "rejected",
    "tempfail": "tempfailed",
    "raise": "tempfailed",
    "discard": "discarded",
    "changes": "quarantined",
}
CHANGES = (
    AddHeader("X-Folded", "one\n two"),
    InsertHeader(1, "X-First", "yes"),
    ChangeHeader(1, "Subject", "changed"),
    ChangeSender("<changed@soak.test>"),
    AddRecipient("<added@soak.test>"),
    DeleteRecipient("<rcpt@soak.test>"),
    ReplaceBody(b"replaced\r\n"),
    Quarantine("as planned"),
)
WAITS = (*plan.WAITS, plan.BLOCK)
ANYWHERE = ("accept", "reject", "reply", "tempfail", "raise", *WAITS)
PLANS = [
    *((step, word) for step in plan.STEPS[2:] for word in ANYWHERE),
    *((step, "discard") for step in plan.STEPS[2:]),
    ("header", "skip"),
    ("body", "skip"),
    *(("eom", word) for word in ("changes", "progress") for _ in range(3)),
    *[("eom", "")] * 20,
]


class Peer:
    """One thread: makes connections, one after the other."""

    def __init__(self, spec: str, seed: int) -> None:
        self.spec = spec
        self.any = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def mta(self, version: int = 6, actions: int = _wire.ALL_ACTIONS) -> MTA:
        """An MTA at the filter's socket."""
        return MTA(self.spec, timeout=TIMEOUT, version=version, actions=actions)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return specs.connect(self.spec, TIMEOUT)

    def message(self, body: bytes = BODY) -> bytes:
        """A message that differs from others."""
        headers = "".join(f"X-{i}: {self.any.random()}\r\n" for i in range(self.any.randrange(20)))
        return f"Subject: one\r\n{headers}\r\n".encode() + body[self.any.randrange(40) :]

    def send(self, session: Session, step: str, word: str, body: bytes = BODY) -> None:
        """Sends a message with a plan (of whichever text), and checks what became of it."""
        result = session.send(self.message(body), f"soak-{step}-{word}@soak.test", "rcpt@soak.test")
        check(result, step, word)
        self.counts["messages"] += 1
        self.counts["waits"] += word in WAITS
        self.counts[str(result.verdict)] += 1


def check(result: Result, step: str, word: str) -> None:
    """That a message had the outcome and the changes that were planned, and was seen whole."""
    wanted = (OUTCOMES.get(word, "accepted"), step if word in OUTCOMES else "eom")
    got = (result.verdict, result.step)
    assert got == wanted, f"{step}-{word}: {got}, not {wanted}\n" + "\n".join(result.trace[-20:])
    if word == "reply" and step != "connect":  # there the MTA has words of its own
        assert result.reply, result
        assert result.reply.code == int(plan.TEXT[0]), result
        assert result.reply.enhanced == plan.TEXT[1], result
    if result.step != "eom" or word == "raise":
        return
    told, *changes = result.changes
    assert isinstance(told, AddHeader), result.changes
    wanted_changes = {"changes": CHANGES, "big": (ReplaceBody(plan.BIG),)}.get(word, ())
    assert tuple(changes) == wanted_changes, f"{step}-{word}: wrong changes"
    if word == "skip":
        return
    octets, checksum = 0, 1
    parts = [part for header in result.original.wire_headers() for part in header]
    for part in (*parts, *result.original.wire_body(1 << 16)):
        octets += len(part)
        checksum = zlib.adler32(part, checksum)
    assert told.value == f"{octets} {checksum:08x}", f"not seen whole: {told.value}"


# ----------------------------------------------------------------------------------- scenarios


def ordinary(peer: Peer) -> None:
    """Up to five messages on a connection, each with a plan."""
    version = peer.any.choice((6, 6, 6, 4))
    with peer.mta(version=version).session() as session:
        for _ in range(peer.any.randint(1, 5)):
            step, word = peer.any.choice(PLANS)
            if word != "skip" or version == 6:
                peer.send(session, step, word)


def decided_early(peer: Peer) -> None:
    """A plan for the client or its HELO, which decides for the whole connection."""
    step, word = peer.any.choice(plan.STEPS[:2]), peer.any.choice(ANYWHERE)
    name = f"soak-{step}-{word}.test"
    client, helo = (name, "host") if step == "connect" else ("host", name)
    with peer.mta().session(f"{client}[127.0.0.1]", helo) as session:
        assert (session.held is None) == (word in WAITS), session.held
        peer.send(session, *((step, word) if session.held else ("eom", "")))


def no_replies(peer: Peer) -> None:
    """Messages of which only the end is answered."""
    with peer.mta(actions=NOT_ALL).session() as session:
        for _ in range(peer.any.randint(1, 10)):
            peer.send(session, "eom", peer.any.choice(("", "reject", "reply", "raise", "accept")))


def old_version(peer: Peer) -> None:
    """An MTA of another age."""
    with peer.mta(version=2, actions=0x3F).session() as session:
        peer.send(session, "eom", peer.any.choice(("", "reject", "reply", "progress")))


def begin(peer: Peer, session: Session) -> None:
    """Goes some steps into a message."""
    steps: list[Callable[[], object]] = [
        lambda: session.mail("one@soak.test"),
        *[lambda: session.rcpt("rcpt@soak.test")] * 2,
        session.data,
        *[lambda: session.header(b"X-One", b"a value")] * 3,
        session.eoh,
        *[lambda: session.body(BODY)] * 3,
    ]
    for step in steps[: peer.any.randint(1, len(steps))]:
        step()


def aborted(peer: Peer) -> None:
    """Messages that are taken back, and then one that is not."""
    with peer.mta().session() as session:
        for _ in range(peer.any.randint(1, 3)):
            begin(peer, session)
            session.abort()
            peer.counts["aborts"] += 1
        peer.send(session, "eom", "")


def vanishing(peer: Peer) -> None:
    """A peer that is gone, in any state: also while a callback runs, or writes much."""
    mta = peer.mta()
    session = mta.open()
    for step in (session.negotiate, session.connect, lambda: session.helo("host")):
        if peer.any.random() < 0.1:
            break
        step()
    else:
        kind = peer.any.randrange(4)
        if kind == 0:
            begin(peer, session)
        elif kind == 1:
            where = peer.any.choice(("mail", "rcpt", "data"))
            mail = encode(b"M", [f"<soak-{where}-{plan.BLOCK}@soak.test>".encode()])
            session.send_raw(mail + b"".join(PACKETS[4:6]))
        elif kind == 2:
            word = peer.any.choice(("big", plan.BLOCK, "changes"))
            session.mail(f"soak-eom-{word}@soak.test")
            session.rcpt("rcpt@soak.test")
            session.send_packet(b"E", b"")
            if peer.any.random() < 0.5:
                session.read_packet()
        else:
            session.send_raw(b"\0\0\xff\xffBonly a part of a packet"[: peer.any.randint(1, 20)])
    session.vanish()
    peer.counts["vanished"] += 1


encode = partial(_wire.encode, _wire.TO_FILTER)


PACKETS = [
    encode(b"O", 6, _wire.ALL_ACTIONS, _wire.ALL_PROTOCOL),
    encode(b"C", b"host", b"4", 1234, b"127.0.0.1"),
    encode(b"H", b"host"),
    encode(b"M", [b"<one@soak.test>"]),
    encode(b"R", [b"<rcpt@soak.test>"]),
    encode(b"T"),
    encode(b"L", b"Subject", b"one"),
    encode(b"N"),
    encode(b"B", b"body\r\n"),
    encode(b"E", b""),
]
ANSWERS = b"Occccccccc"


def hear(connection: socket.socket, letters: bytes) -> None:
    """Reads packets, which must be these; changes are passed over."""
    decoder = _wire.Decoder(_wire.TO_MTA)
    for letter in letters:
        while True:
            packet = decoder.next()
            while packet is None:
                data = connection.recv(65536)
                assert data, f"closed, awaiting {letter:c}"
                decoder.feed(data)
                packet = decoder.next()
            if packet[0] != b"h":
                break
        assert packet[0][0] == letter, f"{packet[0]!r}, not {letter:c}"
    assert not decoder.pending, "more bytes than answers"


def await_close(connection: socket.socket) -> None:
    """Reads until the filter closes."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass


def slow(peer: Peer) -> None:
    """A message a few bytes at a time; not a second goes by without one."""
    data = b"".join(PACKETS)
    with closing(peer.connect()) as connection:
        for at in range(0, len(data), 7):
            connection.sendall(data[at : at + 7])
            time.sleep(peer.any.random() * 0.2)
        hear(connection, ANSWERS)
    peer.counts["messages"] += 1


def at_once(peer: Peer) -> None:
    """Everything in one write, and then the end: all is answered all the same."""
    with closing(peer.connect()) as connection:
        connection.sendall(b"".join(PACKETS))
        connection.shutdown(socket.SHUT_WR)
        hear(connection, ANSWERS)
        assert connection.recv(1) == b"", "more bytes than answers"
    peer.counts["messages"] += 1


def garbage(peer: Peer) -> None:
    """What is no packet, or out of order: the filter closes, and says nothing wrong before."""
    known = peer.any.randrange(len(PACKETS))
    bad = peer.any.choice(
        (
            encode(b"O", 6, 0, 0)[:9] + b"\xff" * 100,
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\0",
            b"\x7f\xff\xff\xff",
            b"\0\0\0\1?",
            encode(b"O", 1, 0, 0) if not known else encode(b"C", b"host", b"4", 1, b"1.2.3.4"),
            peer.any.randbytes(50),
        )
    )
    with closing(peer.connect()) as connection:
        connection.sendall(b"".join(PACKETS[:known]))
        hear(connection, ANSWERS[:known])
        connection.sendall(bad)
        connection.shutdown(socket.SHUT_WR)
        await_close(connection)
    peer.counts["garbage"] += 1


def burst(peer: Peer) -> None:
    """Many callbacks that wait or block at once, each of which needs a thread."""
    mail = encode(b"M", [f"<soak-mail-{peer.any.choice(WAITS)}@soak.test>".encode()])
    connections = [peer.connect() for _ in range(30)]
    try:
        for each in connections:
            each.sendall(b"".join(PACKETS[:3]) + mail)
        for each in connections:
            hear(each, b"Occc")
        for each in connections:
            each.sendall(b"".join(PACKETS[4:]))
        for each in connections:
            hear(each, ANSWERS[4:])
            peer.counts["messages"] += 1
    finally:
        for each in connections:
            each.close()
    peer.counts["bursts"] += 1


def big_body(peer: Peer) -> None:
    """A body of 25 MB."""
    with HUGE, peer.mta().session() as session:
        peer.send(session, "eom", "", BIG_BODY * 25_000)
        peer.counts["big bodies"] += 1


def big_replacement(peer: Peer) -> None:
    """A new body of 50 MiB, which must come whole; sometimes it is not read for a while."""
    with HUGE, peer.mta().session() as session:
        if peer.any.random() < 0.5:
            peer.send(session, "eom", "big")
        else:
            session.mail("soak-eom-big@soak.test")
            session.rcpt("rcpt@soak.test")
            session.send_packet(b"E", b"")
            time.sleep(peer.any.random() * 3)
            told, first = session.read_packet(), session.read_packet()
            octets, packet = 0, first
            while packet[0] == b"b":
                octets += len(packet[1])
                packet = session.read_packet()
            assert (told[0], octets, packet[0]) == (b"h", len(plan.BIG), b"c")
            peer.counts["messages"] += 1
        peer.counts["big replacements"] += 1


def staying(peer: Peer) -> None:
    """A connection that is quiet for some seconds, in any state, and then goes on."""
    with peer.mta().session() as session:
        if peer.any.random() < 0.5:
            begin(peer, session)
        time.sleep(peer.any.random() * 5)
        session.abort()
        peer.send(session, "eom", "")


class Scenario(NamedTuple):
    """Something that happens to a connection, and how often beside the others."""

    run: Callable[[Peer], None]
    weight: float


SCENARIOS = (
    Scenario(ordinary, 45),
    Scenario(decided_early, 8),
    Scenario(no_replies, 10),
    Scenario(old_version, 3),
    Scenario(aborted, 10),
    Scenario(vanishing, 15),
    Scenario(slow, 1),
    Scenario(at_once, 10),
    Scenario(garbage, 10),
    Scenario(burst, 1),
    Scenario(big_body, 0.2),
    Scenario(big_replacement, 0.3),
    Scenario(staying, 1),
)


def live(peer: Peer, until: float, errors: list[str]) -> None:
    """Goes on until the time is over."""
    weights = [scenario.weight for scenario in SCENARIOS]
    while time.monotonic() < until and not errors:
        scenario = peer.any.choices(SCENARIOS, weights)[0]
        peer.counts[f"scenario {scenario.run.__name__}"] += 1
        try:
            scenario.run(peer)
        except Exception:  # whatever it is, it is told
            errors.append(f"{scenario.run.__name__}: {traceback.format_exc()}")


def main() -> int:
    spec, seconds, seed = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    until = time.monotonic() + seconds
    errors: list[str] = []
    peers = [Peer(spec, seed * 1000 + number) for number in range(THREADS)]
    threads = [threading.Thread(target=live, args=(peer, until, errors)) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = sum((peer.counts for peer in peers), Counter[str]())
    print(json.dumps({"counts": counts, "errors": errors}))
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
