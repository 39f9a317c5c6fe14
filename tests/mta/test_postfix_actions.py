"""Every change that a filter can make, as a real Postfix delivers it."""

from contextlib import closing

import pytest
from postfix import MESSAGE, Postfix, queue_id
from running import Filter, Plan

RECEIVED = "Received: the private Postfix's own"


def headers(delivered: bytes) -> list[str]:
    """The header lines of a delivered message below what the delivery agent puts on top, folds
    joined by |, and Postfix's own Received as RECEIVED."""
    head = delivered.partition(b"\n\n")[0].decode("utf-8", "surrogateescape")
    lines = head.replace("\n ", "| ").replace("\n\t", "|\t").split("\n")
    assert [line.partition(":")[0] for line in lines[:3]] == [
        "Return-Path",
        "X-Original-To",
        "Delivered-To",
    ]
    return [RECEIVED if "by mx.local.test (Postfix)" in line else line for line in lines[3:]]


def body(delivered: bytes) -> bytes:
    """The body of a delivered message."""
    return delivered.partition(b"\n\n")[2]


SENT = ["Subject: test", "X-Two: first", "X-Two: second"]


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([["addheader", "X-New", "value"]], [RECEIVED, *SENT, "X-New: value"]),
        ([["addheader", "X-New", ""]], [RECEIVED, *SENT, "X-New: "]),
        ([["addheader", "X-New", "a\n\tb\n c"]], [RECEIVED, *SENT, "X-New: a|\tb| c"]),
        ([["addheader", "X-New", "café \udce9"]], [RECEIVED, *SENT, "X-New: café \udce9"]),
        ([["addheader", "X-New", "value", 0]], ["X-New: value", RECEIVED, *SENT]),
        ([["addheader", "X-New", "value", 1]], [RECEIVED, "X-New: value", *SENT]),
        (
            [["addheader", "X-New", "value", 2]],
            [RECEIVED, "Subject: test", "X-New: value", *SENT[1:]],
        ),
        ([["addheader", "X-New", "value", 99]], [RECEIVED, *SENT, "X-New: value"]),
        (
            [["addheader", "X-A", "1", 0], ["addheader", "X-B", "2", 0]],
            ["X-B: 2", "X-A: 1", RECEIVED, *SENT],
        ),
        (
            [["chgheader", "Subject", 1, "other"]],
            [RECEIVED, "Subject: other", *SENT[1:]],
        ),
        ([["chgheader", "X-Two", 2, "2nd"]], [RECEIVED, *SENT[:2], "X-Two: 2nd"]),
        # Index 0 means the first.
        ([["chgheader", "X-Two", 0, "1st"]], [RECEIVED, SENT[0], "X-Two: 1st", SENT[2]]),
        ([["chgheader", "Subject", 1, ""]], [RECEIVED, *SENT[1:]]),
        ([["chgheader", "Subject", 1, None]], [RECEIVED, *SENT[1:]]),
        (
            [["chgheader", "X-Two", 2, None], ["chgheader", "X-Two", 1, None]],
            [RECEIVED, "Subject: test"],
        ),
        # After a deletion Postfix counts the rest anew.
        (
            [["chgheader", "X-Two", 1, None], ["chgheader", "X-Two", 1, "left"]],
            [RECEIVED, "Subject: test", "X-Two: left"],
        ),
        ([["chgheader", "X-New", 1, "value"]], [RECEIVED, *SENT, "X-New: value"]),
    ],
)
def test_headers(
    postfix: Postfix, scripted: Filter, actions: list[list[object]], expected: list[str]
) -> None:
    scripted.plan({"eom": actions})
    delivered = postfix.delivered(postfix.submit("unix"), "one")
    assert headers(delivered) == expected
    assert body(delivered) == b"The body.\n"


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"New.\r\n"], b"New.\n"),
        ([b"One.\r\n", b"Tw", b"o.\r", b"\nThree.\r\n"], b"One.\nTwo.\nThree.\n"),
        ([b"".join(b"%06d\r\n" % n for n in range(20000))], None),
        ([b"%06d\r\n" % n for n in range(2000)], None),
        ([b"%09d 10 megabytes\r\n" * 400_000], None),
        (
            [b"8 bits: \xe9\xc3\xa9\xff\r\n", b".\r\n", b"..\r\n"],
            b"8 bits: \xe9\xc3\xa9\xff\n.\n..\n",
        ),
        ([b"no line end"], b"no line end\n"),
        (["text: é \udce9\r\n"], b"text: \xc3\xa9 \xe9\n"),
        ([b""], b""),
    ],
    ids=[
        "one",
        "split",
        "160 kB at once",
        "2000 chunks",
        "10 MB",
        "8 bits",
        "no end",
        "str",
        "empty",
    ],
)
def test_body(
    postfix: Postfix, scripted: Filter, chunks: list[bytes], expected: bytes | None
) -> None:
    plan: Plan = {"eom": [["replacebody", chunk] for chunk in chunks]}
    plan["eom"].append(["addheader", "X-After", "yes"])
    scripted.plan(plan)
    delivered = postfix.delivered(postfix.submit("unix"), "one")
    if expected is None:
        expected = b"".join(chunks).replace(b"\r\n", b"\n")
    assert body(delivered) == expected
    assert headers(delivered) == [RECEIVED, *SENT, "X-After: yes"]


def test_recipients(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan(
        {
            "eom": [
                ["addrcpt", "<three@local.test>"],
                ["addrcpt", "four@local.test"],
                ["delrcpt", "<one@local.test>"],
                ["addrcpt", "<three@local.test>"],
                ["delrcpt", "nobody@local.test"],
            ]
        }
    )
    id_ = postfix.submit("unix", rcpts=["<one@local.test>", "<two@local.test>"])
    assert postfix.recipients(id_) == {
        "two@local.test",
        "three@local.test",
        "four@local.test",
    }


def test_last_recipient_deleted(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({"eom": [["delrcpt", "<one@local.test>"]]})
    assert postfix.recipients(postfix.submit("unix")) == set()


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("<other@example.test>", b"<other@example.test>"),
        ("<>", b"<>"),
        ("bare@a.test", b"<bare@a.test>"),
    ],
)
def test_sender(postfix: Postfix, scripted: Filter, sender: str, expected: bytes) -> None:
    scripted.plan({"eom": [["chgfrom", sender]]})
    delivered = postfix.delivered(postfix.submit("unix"), "one")
    assert delivered.startswith(b"Return-Path: " + expected + b"\n")


def test_parameters_and_quarantine(postfix: Postfix, scripted: Filter) -> None:
    """Parameters show in the queue file of a message on hold."""
    scripted.plan(
        {
            "eom": [
                ["addrcpt", "<two@local.test>", "NOTIFY=NEVER ORCPT=rfc822;orig@local.test"],
                ["chgfrom", "<other@example.test>", "RET=HDRS ENVID=abc"],
                ["quarantine", "let a human look"],
            ]
        }
    )
    id_ = postfix.submit("unix")
    assert postfix.recipients(id_) == set()
    assert id_ in postfix.held()
    records = postfix.queue_file(id_)
    assert records["sender"][-1] == "other@example.test"
    assert records["recipient"] == ["one@local.test", "two@local.test"]
    attributes = records["named_attribute"]
    assert "envelope_id=abc" in attributes
    assert "ret_flags=2" in attributes  # headers only
    assert "dsn_orig_rcpt=rfc822;orig@local.test" in attributes
    assert "notify_flags=1" in attributes  # never


def test_progress(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({"eom": [["progress"], ["addheader", "X-New", "value"], ["progress"]]})
    delivered = postfix.delivered(postfix.submit("unix"), "one")
    assert headers(delivered) == [RECEIVED, *SENT, "X-New: value"]


def test_all_in_one(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan(
        {
            "eom": [
                ["chgheader", "X-Two", 2, None],
                ["addheader", "X-Top", "top", 0],
                ["addheader", "X-End", "end"],
                ["addrcpt", "<two@local.test>"],
                ["delrcpt", "<one@local.test>"],
                ["chgfrom", "<other@example.test>"],
                ["replacebody", b"New.\r\n"],
                ["return", "ACCEPT"],
            ]
        }
    )
    id_ = postfix.submit("unix")
    delivered = postfix.delivered(id_, "two")
    assert postfix.recipients(id_) == {"two@local.test"}
    assert headers(delivered) == ["X-Top: top", RECEIVED, *SENT[:2], "X-End: end"]
    assert delivered.startswith(b"Return-Path: <other@example.test>\n")
    assert body(delivered) == b"New.\n"


def test_two_messages_with_different_edits(postfix: Postfix, scripted: Filter) -> None:
    """On one connection nothing of the first message shows in the others."""
    scripted.plan(
        {
            "eom 1": [
                ["addheader", "X-Message", "1"],
                ["addrcpt", "<three@local.test>"],
                ["replacebody", b"First.\r\n"],
                ["chgfrom", "<first@example.test>"],
            ],
            "eom 2": [["chgheader", "Subject", 1, "2"], ["delrcpt", "<two@local.test>"]],
        }
    )
    rcpts = ["<one@local.test>", "<two@local.test>"]
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        first, second, third = (
            queue_id(client.run(MESSAGE, "<sender@example.test>", rcpts)["."]) for _ in range(3)
        )
    delivered = postfix.delivered(first, "three")
    assert headers(delivered) == [RECEIVED, *SENT, "X-Message: 1"]
    assert body(delivered) == b"First.\n"
    assert delivered.startswith(b"Return-Path: <first@example.test>\n")
    assert postfix.recipients(first) == {"one@local.test", "two@local.test", "three@local.test"}

    delivered = postfix.delivered(second, "one")
    assert headers(delivered) == [RECEIVED, "Subject: 2", *SENT[1:]]
    assert body(delivered) == b"The body.\n"
    assert delivered.startswith(b"Return-Path: <sender@example.test>\n")
    assert postfix.recipients(second) == {"one@local.test"}

    delivered = postfix.delivered(third, "two")
    assert headers(delivered) == [RECEIVED, *SENT]
    assert postfix.recipients(third) == {"one@local.test", "two@local.test"}


def test_changes_of_a_refused_message(postfix: Postfix, scripted: Filter) -> None:
    """Nor of one that was changed and then refused."""
    changes = [["addheader", "X-Message", "1"], ["addrcpt", "<three@local.test>"]]
    scripted.plan({"eom 1": [*changes, ["return", "REJECT"]]})
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        refused = client.run(MESSAGE, "<sender@example.test>", ["<one@local.test>"])
        assert str(refused["."]) == "550 5.7.1 Command rejected"
        taken = client.run(MESSAGE, "<sender@example.test>", ["<one@local.test>"])
    id_ = queue_id(taken["."])
    assert headers(postfix.delivered(id_, "one")) == [RECEIVED, *SENT]
    assert postfix.recipients(id_) == {"one@local.test"}


ACTIONS: list[list[object]] = [
    ["addheader", "X-New", "value"],
    ["addheader", "X-New", "value", 0],
    ["chgheader", "Subject", 1, "other"],
    ["addrcpt", "<two@local.test>"],
    ["delrcpt", "<one@local.test>"],
    ["chgfrom", "<other@example.test>"],
    ["replacebody", b"New.\r\n"],
    ["quarantine", "why"],
]


@pytest.mark.parametrize("step", ["connect", "hello", "envfrom", "envrcpt", "data", "eoh", "body"])
def test_changes_at_the_wrong_step(postfix: Postfix, scripted: Filter, step: str) -> None:
    """Before the end of the message each raises, and nothing reaches the MTA."""
    scripted.plan({step: [["refused", *action] for action in ACTIONS]})
    id_ = postfix.submit("unix")
    refusals = [event for event in scripted.events() if "refused" in event]
    assert [event["refused"] for event in refusals] == [action[0] for action in ACTIONS]
    assert all("error" in event["kinds"] for event in refusals), refusals
    delivered = postfix.delivered(id_, "one")
    assert headers(delivered) == [RECEIVED, *SENT]
    assert body(delivered) == b"The body.\n"


def test_header_that_would_start_another(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan(
        {
            "eom": [
                ["refused", "addheader", "X-New", "value\nX-Evil: yes"],
                ["refused", "addheader", "X-New", "value\r\nX-Evil: yes"],
                ["refused", "chgheader", "Subject", 1, "value\n\nbody"],
                ["refused", "addheader", "", "value"],
                ["refused", "addheader", "X-New", None],
                ["addheader", "X-Good", "value"],
            ]
        }
    )
    delivered = postfix.delivered(postfix.submit("unix"), "one")
    assert headers(delivered) == [RECEIVED, *SENT, "X-Good: value"]
    assert body(delivered) == b"The body.\n"
    refusals = [event["kinds"] for event in scripted.events() if "refused" in event]
    assert len(refusals) == 5
    assert all("Exception" in kinds for kinds in refusals), refusals
