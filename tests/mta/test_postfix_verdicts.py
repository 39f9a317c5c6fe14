"""Every verdict at every step, as the SMTP client of a real Postfix and the recipients see it."""

from contextlib import closing

import pytest
from postfix import MESSAGE, Postfix, Reply, queue_id
from running import Filter

# The filter's steps in order, and the SMTP command whose reply tells the client of a refusal
# there. Postfix answers HELO in any case and refuses later.
TOLD_AT = {
    "connect": "mail",
    "hello": "mail",
    "envfrom": "mail",
    "envrcpt": "rcpt",
    "data": "data",
    "header": ".",
    "eoh": ".",
    "body": ".",
    "eom": ".",
}
STEPS = list(TOLD_AT)
ONE_HEADER = b"Subject: test\r\n\r\nThe body.\r\n"
PLAIN = {
    "REJECT": Reply(550, "5.7.1 Command rejected"),
    "TEMPFAIL": Reply(451, "4.7.1 Service unavailable - try again later"),
}
NO_SERVICE = Reply(554, "mx.local.test ESMTP not accepting connections")


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
def test_refusal(
    postfix: Postfix, scripted: Filter, step: str, verdict: str, lines: list[str]
) -> None:
    code, status = ("550", "5.7.9") if verdict == "REJECT" else ("450", "4.7.9")
    reply: list[list[str]] = [["setreply", code, status, *lines]] if lines else []
    scripted.plan({step: [*reply, ["return", verdict]]})
    replies = postfix.session("unix", ONE_HEADER)

    expected = PLAIN[verdict]
    if lines:
        texts = [f"{status} {line.replace('%%', '%')}" for line in lines]
        expected = Reply(int(code), "\n".join(texts))
    told_at = TOLD_AT[step]
    if step == "connect" and verdict == "REJECT":
        told_at, expected = "greeting", NO_SERVICE
    assert replies[told_at] == expected
    before = list(replies)[: list(replies).index(told_at)]
    assert all(replies[name].code in (220, 250, 354) for name in before), replies
    # Refused at RCPT is one recipient; that it was the only one is for Postfix to say.
    after = {"data": Reply(554, "5.5.1 Error: no valid recipients")} if step == "envrcpt" else {}
    assert {name: replies[name] for name in replies if name not in (*before, told_at)} == after
    assert seen(scripted) == seen_until(step, *(["abort"] if step == "envrcpt" else []))


@pytest.mark.parametrize("step", STEPS)
def test_accept(postfix: Postfix, scripted: Filter, step: str) -> None:
    """The message goes through and the filter sees no more of it."""
    scripted.plan({step: [["return", "ACCEPT"]]})
    id_ = postfix.submit("unix", ONE_HEADER)
    assert postfix.delivered(id_, "one").endswith(b"\nSubject: test\n\nThe body.\n")
    assert seen(scripted) == seen_until(step)


@pytest.mark.parametrize("step", STEPS[2:])
def test_discard(postfix: Postfix, scripted: Filter, step: str) -> None:
    """The client is told that all is well; nobody gets the message."""
    scripted.plan({step: [["return", "DISCARD"]]})
    id_ = postfix.submit("unix", ONE_HEADER)
    assert postfix.recipients(id_) == set()
    assert id_ not in postfix.held()
    assert seen(scripted) == seen_until(step, *(["abort"] if step == "envrcpt" else []))


@pytest.mark.parametrize("step", ["connect", "hello"])
def test_discard_before_a_message(postfix: Postfix, scripted: Filter, step: str) -> None:
    """Postfix refuses to discard there and goes on."""
    scripted.plan({step: [["return", "DISCARD"]]})
    id_ = postfix.submit("unix", ONE_HEADER)
    assert postfix.recipients(id_) == {"one@local.test"}
    assert seen(scripted) == seen_until("eom")


def test_one_of_three_recipients(postfix: Postfix, scripted: Filter) -> None:
    """A refusal at RCPT is for that recipient alone."""
    scripted.plan(
        {
            "envrcpt": [["setreply", "550", "5.1.1", "nobody here"], ["return", "REJECT"]],
            "envrcpt 2": [],
        }
    )
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<sender@example.test>")
        assert client.command("RCPT TO:<one@local.test>") == Reply(550, "5.1.1 nobody here")
        client.command("RSET")
        rcpts = ["<one@local.test>", "<two@local.test>"]
        id_ = queue_id(client.run(MESSAGE, "<sender@example.test>", rcpts)["."])
    assert postfix.recipients(id_) == {"one@local.test", "two@local.test"}


@pytest.mark.parametrize("step", STEPS[2:])
def test_next_message_after_a_refusal(postfix: Postfix, scripted: Filter, step: str) -> None:
    scripted.plan({f"{step} 1": [["return", "TEMPFAIL"]]})
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        refused = client.run(MESSAGE, "<sender@example.test>", ["<one@local.test>"])
        assert refused[TOLD_AT[step]] == PLAIN["TEMPFAIL"]
        client.command("RSET")
        taken = client.run(MESSAGE, "<sender@example.test>", ["<one@local.test>"])
    assert postfix.recipients(queue_id(taken["."])) == {"one@local.test"}


def test_421_closes_the_session(postfix: Postfix, scripted: Filter) -> None:
    scripted.plan({"envrcpt": [["setreply", "421", "4.7.0", "go away"], ["return", "TEMPFAIL"]]})
    with closing(postfix.client("unix")) as client:
        client.command("EHLO client.test")
        client.command("MAIL FROM:<sender@example.test>")
        assert client.command("RCPT TO:<one@local.test>") == Reply(421, "4.7.0 go away")
        assert client.sock.recv(1) == b""


def test_reply_text_of_the_other_class(postfix: Postfix, scripted: Filter) -> None:
    """A text of class 5 is no text for TEMPFAIL: the verdict counts."""
    scripted.plan({"envfrom": [["setreply", "550", "5.7.9", "never"], ["return", "TEMPFAIL"]]})
    assert postfix.session("unix")["mail"] == PLAIN["TEMPFAIL"]
