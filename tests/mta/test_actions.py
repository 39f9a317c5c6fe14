"""Every change that a filter can make, as a real MTA delivers it."""

from contextlib import closing

import differences
import pytest
from mta import RECEIVED, Mta
from running import Filter, Plan

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
        ([["chgheader", "X-New", 1, "value"]], [RECEIVED, *SENT, "X-New: value"]),
    ],
)
def test_headers(
    mta: Mta, scripted: Filter, actions: list[list[object]], expected: list[str]
) -> None:
    scripted.plan({"eom": actions})
    delivered = mta.delivered(mta.submit("unix"))
    assert delivered.headers == expected
    assert delivered.body == b"The body.\n"


def test_insert_below_a_header(mta: Mta, scripted: Filter) -> None:
    """The index counts the MTA's own headers too."""
    index = differences.of(mta, "below Subject")
    scripted.plan({"eom": [["addheader", "X-New", "value", index]]})
    delivered = mta.delivered(mta.submit("unix"))
    assert delivered.headers == [RECEIVED, "Subject: test", "X-New: value", *SENT[1:]]


def test_index_after_a_deletion(mta: Mta, scripted: Filter) -> None:
    scripted.plan({"eom": [["chgheader", "X-Two", 1, None], ["chgheader", "X-Two", 1, "left"]]})
    delivered = mta.delivered(mta.submit("unix"))
    assert delivered.headers == [RECEIVED, *differences.of(mta, "index after a deletion")]


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
        "str",
        "empty",
    ],
)
def test_body(mta: Mta, scripted: Filter, chunks: list[bytes], expected: bytes | None) -> None:
    plan: Plan = {"eom": [["replacebody", chunk] for chunk in chunks]}
    plan["eom"].append(["addheader", "X-After", "yes"])
    scripted.plan(plan)
    delivered = mta.delivered(mta.submit("unix"))
    if expected is None:
        expected = b"".join(chunks).replace(b"\r\n", b"\n")
    assert delivered.body == expected
    assert delivered.headers == [RECEIVED, *SENT, "X-After: yes"]


def test_body_without_line_end(mta: Mta, scripted: Filter) -> None:
    scripted.plan({"eom": [["replacebody", b"no line end"]]})
    delivered = mta.delivered(mta.submit("unix"))
    assert delivered.body == differences.of(mta, "no line end")


def test_recipients(mta: Mta, scripted: Filter) -> None:
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
    id_ = mta.submit("unix", rcpts=["<one@local.test>", "<two@local.test>"])
    assert mta.recipients(id_) == {
        "two@local.test",
        "three@local.test",
        "four@local.test",
    }


def test_last_recipient_deleted(mta: Mta, scripted: Filter) -> None:
    scripted.plan({"eom": [["delrcpt", "<one@local.test>"]]})
    assert mta.recipients(mta.submit("unix")) == set()


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("<other@example.test>", "<other@example.test>"),
        ("<>", "<>"),
        ("bare@a.test", None),
    ],
)
def test_sender(mta: Mta, scripted: Filter, sender: str, expected: str | None) -> None:
    scripted.plan({"eom": [["chgfrom", sender]]})
    delivered = mta.delivered(mta.submit("unix"))
    assert delivered.sender == (expected or differences.of(mta, "bare sender"))


def test_quarantine(mta: Mta, scripted: Filter) -> None:
    """The message is kept and nobody gets it."""
    scripted.plan({"eom": [["quarantine", "let a human look"]]})
    id_ = mta.submit("unix")
    assert mta.recipients(id_) == set()
    assert mta.held(id_)


def test_progress(mta: Mta, scripted: Filter) -> None:
    scripted.plan({"eom": [["progress"], ["addheader", "X-New", "value"], ["progress"]]})
    delivered = mta.delivered(mta.submit("unix"))
    assert delivered.headers == [RECEIVED, *SENT, "X-New: value"]


def test_all_in_one(mta: Mta, scripted: Filter) -> None:
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
    id_ = mta.submit("unix")
    delivered = mta.delivered(id_, "two")
    assert mta.recipients(id_) == {"two@local.test"}
    assert delivered.headers == ["X-Top: top", RECEIVED, *SENT[:2], "X-End: end"]
    assert delivered.sender == "<other@example.test>"
    assert delivered.body == b"New.\n"


def test_two_messages_with_different_edits(mta: Mta, scripted: Filter) -> None:
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
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        first, second, third = (mta.queue_id(client.run(rcpts=rcpts)["."]) for _ in range(3))
    delivered = mta.delivered(first, "three")
    assert delivered.headers == [RECEIVED, *SENT, "X-Message: 1"]
    assert delivered.body == b"First.\n"
    assert delivered.sender == "<first@example.test>"
    assert mta.recipients(first) == {"one@local.test", "two@local.test", "three@local.test"}

    delivered = mta.delivered(second)
    assert delivered.headers == [RECEIVED, "Subject: 2", *SENT[1:]]
    assert delivered.body == b"The body.\n"
    assert delivered.sender == "<sender@example.test>"
    assert mta.recipients(second) == {"one@local.test"}

    delivered = mta.delivered(third, "two")
    assert delivered.headers == [RECEIVED, *SENT]
    assert mta.recipients(third) == {"one@local.test", "two@local.test"}


def test_changes_of_a_refused_message(mta: Mta, scripted: Filter) -> None:
    """Nor of one that was changed and then refused."""
    changes = [["addheader", "X-Message", "1"], ["addrcpt", "<three@local.test>"]]
    scripted.plan({"eom 1": [*changes, ["return", "REJECT"]]})
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        assert client.run()["."] == differences.refusal(mta, "REJECT", "eom")
        taken = client.run()
    id_ = mta.queue_id(taken["."])
    assert mta.delivered(id_).headers == [RECEIVED, *SENT]
    assert mta.recipients(id_) == {"one@local.test"}


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
def test_changes_at_the_wrong_step(mta: Mta, scripted: Filter, step: str) -> None:
    """Before the end of the message each raises, and nothing reaches the MTA."""
    scripted.plan({step: [["refused", *action] for action in ACTIONS]})
    id_ = mta.submit("unix")
    refusals = [event for event in scripted.events() if "refused" in event]
    assert [event["refused"] for event in refusals] == [action[0] for action in ACTIONS]
    assert all("error" in event["kinds"] for event in refusals), refusals
    delivered = mta.delivered(id_)
    assert delivered.headers == [RECEIVED, *SENT]
    assert delivered.body == b"The body.\n"


def test_header_that_would_start_another(mta: Mta, scripted: Filter) -> None:
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
    delivered = mta.delivered(mta.submit("unix"))
    assert delivered.headers == [RECEIVED, *SENT, "X-Good: value"]
    assert delivered.body == b"The body.\n"
    refusals = [event["kinds"] for event in scripted.events() if "refused" in event]
    assert len(refusals) == 5
    assert all("Exception" in kinds for kinds in refusals), refusals
