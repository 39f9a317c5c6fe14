"""Filters that are stopped or killed in mid-message: no mail may be lost."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from postfix import MESSAGE, Client, Postfix, Reply, queue_id, wait_for
from running import Filter
from test_postfix_verdicts import PLAIN

TAGGED = b"\nX-Seen: yes\n"
TAG: list[list[object]] = [["addheader", "X-Seen", "yes"]]


def begin(postfix: Postfix, service: str) -> Client:
    """A client in mid-message: its recipient was taken."""
    client = postfix.client(service)
    client.command("EHLO client.test")
    client.command("MAIL FROM:<sender@example.test>")
    assert client.command("RCPT TO:<one@local.test>").code == 250
    return client


def finish(client: Client) -> Reply:
    """The rest of its message. Returns the reply of the refusing command or of the last one."""
    reply = client.command("DATA")
    return client.content(MESSAGE) if reply.code == 354 else reply


# What Postfix does without the filter, by its setting milter_default_action.
DEFAULTS = {
    "unix": PLAIN["TEMPFAIL"],
    "reject": Reply(550, "5.5.0 Service unavailable"),
    "accept": None,
    "quarantine": None,
}


def check_default(postfix: Postfix, service: str, reply: Reply) -> None:
    """That a message without its filter was treated as the setting says."""
    if refusal := DEFAULTS[service]:
        assert reply == refusal
    elif service == "accept":
        assert TAGGED not in postfix.delivered(queue_id(reply), "one")
    else:
        assert postfix.recipients(queue_id(reply)) == set()
        assert queue_id(reply) in postfix.held()


@pytest.mark.parametrize("step", ["envrcpt", "data", "header", "eom"])
@pytest.mark.parametrize("service", DEFAULTS)
def test_killed_in_a_callback(postfix: Postfix, folder: Path, service: str, step: str) -> None:
    """The MTA's default action; then, with the filter back on its stale socket, all is well."""
    with Filter("scripted.py", f"unix:{postfix.one}", folder) as it, ThreadPoolExecutor(1) as pool:
        it.plan({step: [["wait", "never"]]})
        session = pool.submit(postfix.session, service)
        it.wait(step)
        it.stop(signal.SIGKILL)
        replies = session.result()
    # The reply that tells of a refusal, or the last one.
    refused = [reply for reply in replies.values() if reply.code not in (220, 250, 354)]
    check_default(postfix, service, [*refused, *replies.values()][0 if refused else -1])

    with Filter("scripted.py", f"unix:{postfix.one}", folder) as it:
        it.plan({"eom": TAG})
        assert TAGGED in postfix.delivered(postfix.submit(service), "one")


@pytest.mark.parametrize("service", DEFAULTS)
def test_killed_between_steps(postfix: Postfix, folder: Path, service: str) -> None:
    with (
        Filter("scripted.py", f"unix:{postfix.one}", folder) as it,
        closing(begin(postfix, service)) as client,
    ):
        it.stop(signal.SIGKILL)
        check_default(postfix, service, finish(client))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_stopped_in_mid_message(postfix: Postfix, folder: Path, number: signal.Signals) -> None:
    """It finishes the message, takes no new connection, and ends."""
    with Filter("scripted.py", f"unix:{postfix.one}", folder) as it:
        it.plan({"eom": TAG})
        with closing(begin(postfix, "unix")) as client:
            it.process.send_signal(number)
            wait_for("the socket to close", lambda: not it.answers())
            assert postfix.session("unix")["mail"] == PLAIN["TEMPFAIL"]
            assert TAGGED in postfix.delivered(queue_id(finish(client)), "one")
        assert it.process.wait(20) == 0
        assert it.stderr() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_stopped_in_a_callback(postfix: Postfix, folder: Path, number: signal.Signals) -> None:
    """The callback's changes and verdict still count."""
    with Filter("scripted.py", f"unix:{postfix.one}", folder) as it, ThreadPoolExecutor(1) as pool:
        it.plan({"eom": [["wait", "go"], *TAG]})
        session = pool.submit(postfix.session, "unix")
        it.wait("eom")
        it.process.send_signal(number)
        wait_for("the socket to close", lambda: not it.answers())
        (folder / "go").touch()
        assert TAGGED in postfix.delivered(queue_id(session.result()["."]), "one")
        assert it.process.wait(20) == 0
        assert it.stderr() == ""


def test_aborted_in_mid_message(postfix: Postfix, folder: Path) -> None:
    """SIGINT ends it at once: the client is told to come again."""
    with (
        Filter("scripted.py", f"unix:{postfix.one}", folder) as it,
        closing(begin(postfix, "unix")) as client,
    ):
        it.process.send_signal(signal.SIGINT)
        it.process.wait(20)
        assert finish(client) == PLAIN["TEMPFAIL"]
        assert [event["step"] for event in it.events()][-2:] == ["abort", "close"]


def test_no_filter(postfix: Postfix) -> None:
    """Where nobody listens Postfix says so: what the other tests see is the filter's work."""
    assert postfix.session("inet")["mail"] == PLAIN["TEMPFAIL"]
