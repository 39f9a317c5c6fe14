"""The real MTAs as judges of what Milter.testing makes of answers, also of those that break the
protocol: the same bytes answered at each step, the same packets and replies must come of them."""

from contextlib import closing
from dataclasses import replace

import pytest
from Milter.testing import MTA, Result
from Milter.testing.mta import PROFILES
from mta import HOSTNAME, Mta, Reply
from postfix import MAIN_CF
from raw import Packet, RawFilter, options, packets

STEPS = {
    "connect": b"C",
    "helo": b"H",
    "mail": b"M",
    "rcpt": b"R",
    "data": b"T",
    "header": b"L",
    "eoh": b"N",
    "body": b"B",
    "eom": b"E",
}
ANSWERS: dict[str, bytes | None] = {
    "reject": packets(b"r"),
    "tempfail": packets(b"t"),
    "discard": packets(b"d"),
    "accept": packets(b"a"),
    "skip": packets(b"s"),
    "shutdown": packets(b"4"),
    "550": packets(b"y550 5.7.9 no\0"),
    "450 of two lines": packets(b"y450-4.7.9 not\r\n450 4.7.9 now\0"),
    "421": packets(b"y421 4.7.0 go\0"),
    "class of the enhanced code": packets(b"y550 4.7.1 x\0"),
    "250": packets(b"y250 fine\0"),
    "single %": packets(b"y550 5.7.1 100% of\0"),
    "unknown": packets(b"Z"),
    "change": packets(b"hX-A\0v\0", b"c"),
    "progress": packets(b"p", b"c"),
    "data behind CONTINUE": packets(b"cx"),
    "end": None,
}
CONTINUE = packets(b"c")
# What takes more than one answer, or is none to a step.
MORE: dict[str, dict[bytes, bytes | None]] = {
    "two answers to EOM": {b"E": packets(b"c", b"t")},
    "version 7": {b"O": options(version=7)},
    "version 1": {b"O": options(version=1)},
    "actions not offered": {b"O": options(actions=0x3FF)},
    "protocol options not offered": {b"O": options(protocol=1 << 25)},
    "macros for stage 9": {b"O": options(lists=b"\0\0\0\x09i\0")},
    "macros for MAIL": {b"O": options(lists=b"\0\0\0\2{mail_addr}, i\0")},
    "macros for EOM alone": {b"O": options(lists=b"\0\0\0\5i\0")},
    "macros for EOH alone": {b"O": options(lists=b"\0\0\0\6i\0")},
    "macros for EOM and EOH": {b"O": options(lists=b"\0\0\0\5i j\0\0\0\0\6\0")},
    "no macros for RCPT": {b"O": options(lists=b"\0\0\0\3\0")},
    "CONTINUE to the options": {b"O": packets(b"c")},
    "end at the options": {b"O": None},
    "no answers": {b"O": options(protocol=0xFF080), **dict.fromkeys(STEPS.values(), b""),
                   b"E": CONTINUE},
    "no answers, and REJECT": {b"O": options(protocol=0xFF080),
                               **dict.fromkeys(STEPS.values(), b""), b"E": packets(b"r")},
    "nothing but EOM": {b"O": options(protocol=0x37F)},
    "leading spaces": {b"O": options(protocol=0x100000)},
    "header not negotiated": {b"O": options(actions=0), b"E": packets(b"hX-A\0v\0", b"c")},
    "body not negotiated": {b"O": options(actions=1), b"E": packets(b"bnew\r\n", b"c")},
    "body in two parts": {b"E": packets(b"bone\r\n", b"hX-A\0v\0", b"btwo\r\n", b"c")},
    "header without a name": {b"E": packets(b"h\0v\0", b"c")},
    "header with data behind it": {b"E": packets(b"hX-A\0v\0w\0", b"c")},
}  # fmt: skip
MESSAGE = b"Subject: test\r\nX-Two: a\r\n\r\nThe body.\r\n"
# Messages that are hardly mail: what filters get to see of them.
ODD = {
    "no line": b"\r\n",
    "CR alone": b"Subject: a\rb\r\n\r\nbo\rdy\r\r\nx\r\n",
    "CR at the end": b"Subject: a\r\n\r\nx\r",
    "NUL": b"Subject: a\0b\r\nX\0Y: 1\r\n\r\nbo\0dy\r\n",
    "8 bits": b"Subject: caf\xe9\r\nX-\xe9: 1\r\n\r\n\xff\r\n",
    "every byte": bytes(set(range(256)) - {10, 13}) + b"\r\n",
    "a mailbox's": b"From someone Thu Jan 1 00:00:00 1970\r\nSubject: x\r\n\r\nb\r\n",
    "quoted in a mailbox": b">From someone Thu Jan 1 00:00:00 1970\r\nSubject: x\r\n\r\nb\r\n",
    "From later": b"Subject: x\r\nFrom someone Thu Jan 1 00:00:00 1970\r\nX: 1\r\n\r\nb\r\n",
    "a header of 40 kB": b"X: " + b"h" * 40000 + b"\r\nY: 1\r\n\r\nb\r\n",
    "a header of 200 kB": b"X: " + b"h" * 200000 + b"\r\nY: 1\r\n\r\nb\r\n",
    "200 kB in folds": b"X: a\r\n" + b" %s\r\n" % (b"h" * 97) * 2000 + b"Y: 1\r\n\r\nb\r\n",
    "headers of 32 kB": b"".join(b"X-%03d: %s\r\n" % (n, b"v" * 93) for n in range(327)) + b"\r\n",
    "headers of 33 kB": b"".join(b"X-%03d: %s\r\n" % (n, b"v" * 93) for n in range(330)) + b"\r\n",
    "1000 headers": b"".join(b"X-%d: y\r\n" % n for n in range(1000)) + b"\r\nb\r\n",
    "two chunks and a CR": b"X: 1\r\n\r\n" + b"b" * 65534 + b"\r\n" + b"c" * 65533 + b"\r\nd\r\n",
    "long lines": b"X: 1\r\n\r\n" + b"b" * 5000 + b"\r\n" * 3,
}
SENDER, RCPTS = "sender@example.test", ("one@local.test", "two@local.test")


def seen(packet: Packet) -> Packet:
    """A packet without what differs from one connection to the next."""
    command, *fields = packet
    if command == b"D":  # the macros' values are the configuration's
        stage, strings = fields
        return (command, stage, *strings.split(b"\0")[:-1:2])
    return (command, *fields[:2], *fields[3:]) if command == b"C" else packet


def profile_of(mta: Mta):  # type: ignore[no-untyped-def]
    """The profile, for how the tests' MTA is configured."""
    profile = PROFILES[mta.name]
    if mta.name == "sendmail":
        return profile
    [names] = [line.split(" = ")[1] for line in MAIN_CF.splitlines() if "connect_macros" in line]
    connect = tuple(names.replace("{{", "{").replace("}}", "}").split())
    return replace(profile, macros={**profile.macros, "connect": connect})


def refusal(replies: dict[str, Reply]) -> Reply | None:
    """The first reply that says no."""
    return next((reply for reply in replies.values() if reply.code >= 400), None)


def by_the_mta(mta: Mta, service: str, message: bytes) -> list[Reply | None]:
    """Two messages in one SMTP session, if it lasts so long; what is refused."""
    with closing(mta.client(service)) as client:
        replies = {"greeting": client.greeting}
        if client.greeting.code == 220:
            replies["helo"] = client.command("EHLO client.test")
        said = [refusal(replies)] * 2
        if not said[0]:
            for number in range(2):
                replies = client.run(message, f"<{SENDER}>", [f"<{rcpt}>" for rcpt in RCPTS])
                said[number] = refusal(replies)
                if (no := said[number]) and no.code == 421:
                    return said
                if number == 0:
                    client.command("RSET")
        client.command("QUIT")
    return said


def by_ours(mta: Mta, action: str, message: bytes) -> list[Reply | None]:
    """The same by Milter.testing."""
    client = "localhost[127.0.0.1]" if mta.name == "sendmail" else "unknown[127.0.0.1]"
    ours = MTA(
        mta.one, profile=profile_of(mta), hostname=HOSTNAME, strict=False, default_action=action
    )
    with ours.session(client, "client.test") as session:
        return [told(session.send(message, SENDER, RCPTS)) for _ in range(2)]


def told(result: Result) -> Reply | None:
    """What the client is told first, if it is no good news."""
    reply = next((each.reply for each in result.recipients if each.reply), result.reply)
    if reply is None:
        return None
    return Reply(reply.code, "\n".join(line[4:] for line in str(reply).split("\n")))


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("step", STEPS)
def test_answer(mta: Mta, step: str, answer: str) -> None:
    judge(mta, {STEPS[step]: ANSWERS[answer]})


@pytest.mark.parametrize("case", MORE)
def test_more(mta: Mta, case: str) -> None:
    judge(mta, MORE[case])


@pytest.mark.parametrize("case", ODD)
def test_message(mta: Mta, case: str) -> None:
    judge(mta, {}, ODD[case])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("action", ["accept", "reject", "more"])
def test_default_action(mta: Mta, action: str, step: str) -> None:
    service = mta.without if action == "more" else action
    judge(mta, {STEPS[step]: None}, service=service)


def judge(
    mta: Mta,
    answers: dict[bytes, bytes | None],
    message: bytes = MESSAGE,
    service: str = "unix",
) -> None:
    """Compares what both make of a message and answers. The service's name is that of what is done
    with mail where the MTA gives up on the filter."""
    with RawFilter(mta.one, answers) as theirs:
        expected = by_the_mta(mta, service, message)
        theirs.wait()
    with RawFilter(mta.one, answers) as ours:
        actual = by_ours(mta, "tempfail" if service == "unix" else service, message)
        ours.wait()
    assert [*map(seen, ours.seen)] == [*map(seen, theirs.seen)]
    if expected[0] and expected[0].code == 421:  # it has hung up
        expected[1] = expected[0]
    assert actual == expected
