"""Every verdict at every step, as the SMTP client of a real MTA and the recipients see it."""

from contextlib import closing

import differences
import pytest
from differences import STEPS, TOLD_AT, refusal, refusal_with
from mta import RECEIVED, Mta, Reply
from running import Filter

ONE_HEADER = b"Subject: test\r\n\r\nThe body.\r\n"


def seen_until(step: str, *after: str) -> list[str]:
    """What a filter sees of a session with one recipient that ends for it at a step."""
    return [*STEPS[: STEPS.index(step) + 1], *after, "close"]


def seen(scripted: Filter) -> list[str]:
    """What it saw, once its connection is over."""
    scripted.wait("close")
    return [event["step"] for event in scripted.events()]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("verdict", ["REJECT", "TEMPFAIL"])
@pytest.mark.parametrize("lines", [[], ["not today"], ["one", "two, 100%% sure", "three"]])
def test_refusal(mta: Mta, scripted: Filter, step: str, verdict: str, lines: list[str]) -> None:
    code, status = ("550", "5.7.9") if verdict == "REJECT" else ("450", "4.7.9")
    reply: list[list[str]] = [["setreply", code, status, *lines]] if lines else []
    scripted.plan({step: [*reply, ["return", verdict]]})
    replies = mta.session("unix", ONE_HEADER)

    expected, told_at = refusal(mta, verdict, step), TOLD_AT[step]
    if lines and (step != "connect" or differences.of(mta, "text at connect")):
        texts = [f"{status} {line.replace('%%', '%')}" for line in lines]
        expected = refusal_with(mta, Reply(int(code), "\n".join(texts)), step)
    if step == "connect" and verdict == "REJECT":
        told_at, expected = "greeting", differences.of(mta, "greeting")
    assert replies[told_at] == expected
    before = list(replies)[: list(replies).index(told_at)]
    assert all(replies[name].code in (220, 250, 354) for name in before), replies
    # Refused at RCPT is one recipient; that it was the only one is for the MTA to say.
    after = {"data": differences.of(mta, "no recipients")} if step == "envrcpt" else {}
    assert {name: replies[name] for name in replies if name not in (*before, told_at)} == after
    assert seen(scripted) == seen_until(step, *(["abort"] if step == "envrcpt" else []))


@pytest.mark.parametrize("step", STEPS)
def test_accept(mta: Mta, scripted: Filter, step: str) -> None:
    """The message goes through and the filter sees no more of it."""
    scripted.plan({step: [["return", "ACCEPT"]]})
    delivered = mta.delivered(mta.submit("unix", ONE_HEADER))
    assert (delivered.headers, delivered.body) == ([RECEIVED, "Subject: test"], b"The body.\n")
    assert seen(scripted) == seen_until(step)


@pytest.mark.parametrize("step", STEPS[2:])
def test_discard(mta: Mta, scripted: Filter, step: str) -> None:
    """The client is told that all is well; nobody gets the message."""
    scripted.plan({step: [["return", "DISCARD"]]})
    id_ = mta.submit("unix", ONE_HEADER)
    assert mta.recipients(id_) == set()
    assert not mta.held(id_)
    assert seen(scripted) == seen_until(step, *(["abort"] if step == "envrcpt" else []))


@pytest.mark.parametrize("step", ["connect", "hello"])
def test_discard_before_a_message(mta: Mta, scripted: Filter, step: str) -> None:
    """There is nothing to discard yet: the message is delivered."""
    scripted.plan({step: [["return", "DISCARD"]]})
    id_ = mta.submit("unix", ONE_HEADER)
    assert mta.recipients(id_) == {"one@local.test"}
    last = differences.of(mta, "seen after DISCARD at connect") if step == "connect" else "eom"
    assert seen(scripted) == seen_until(last)


def test_one_of_three_recipients(mta: Mta, scripted: Filter) -> None:
    """A refusal at RCPT is for that recipient alone."""
    scripted.plan(
        {
            "envrcpt": [["setreply", "550", "5.1.1", "nobody here"], ["return", "REJECT"]],
            "envrcpt 2": [],
        }
    )
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<sender@example.test>")
        refused = refusal_with(mta, Reply(550, "5.1.1 nobody here"), "envrcpt")
        assert client.command("RCPT TO:<one@local.test>") == refused
        client.command("RSET")
        id_ = mta.queue_id(client.run(rcpts=["<one@local.test>", "<two@local.test>"])["."])
    assert mta.recipients(id_) == {"one@local.test", "two@local.test"}


@pytest.mark.parametrize("step", STEPS[2:])
def test_next_message_after_a_refusal(mta: Mta, scripted: Filter, step: str) -> None:
    scripted.plan({f"{step} 1": [["return", "TEMPFAIL"]]})
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        assert client.run()[TOLD_AT[step]] == refusal(mta, "TEMPFAIL", step)
        client.command("RSET")
        taken = client.run()
    assert mta.recipients(mta.queue_id(taken["."])) == {"one@local.test"}


def test_421_closes_the_session(mta: Mta, scripted: Filter) -> None:
    scripted.plan({"envrcpt": [["setreply", "421", "4.7.0", "go away"], ["return", "TEMPFAIL"]]})
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<sender@example.test>")
        assert client.command("RCPT TO:<one@local.test>") == Reply(421, "4.7.0 go away")
        assert client.sock.recv(1) == b""


def test_reply_text_of_the_other_class(mta: Mta, scripted: Filter) -> None:
    """A text of class 5 is no text for TEMPFAIL: the verdict counts."""
    scripted.plan({"envfrom": [["setreply", "550", "5.7.9", "never"], ["return", "TEMPFAIL"]]})
    assert mta.session("unix")["mail"] == refusal(mta, "TEMPFAIL", "envfrom")
