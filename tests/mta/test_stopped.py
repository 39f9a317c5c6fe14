"""Filters that are stopped or killed in mid-message: no mail may be lost."""

import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import differences
import pytest
from differences import refusal
from mta import MESSAGE, Client, Mta, Reply, wait_for
from running import Filter

TAGGED = "X-Seen: yes"
TAG: list[list[object]] = [["addheader", "X-Seen", "yes"]]
REFUSALS = {"unix": "TEMPFAIL", "reject": "REJECT"}
SERVICES = [*REFUSALS, "accept", "its own"]


def begin(mta: Mta, service: str) -> Client:
    """A client in mid-message: its recipient was taken."""
    client = mta.client(service)
    client.command("EHLO client.test")
    client.command("MAIL FROM:<sender@example.test>")
    assert client.command("RCPT TO:<one@local.test>").code == 250
    return client


def finish(client: Client) -> Reply:
    """The rest of its message. Returns the reply of the refusing command or of the last one."""
    reply = client.command("DATA")
    return client.content(MESSAGE) if reply.code == 354 else reply


def check_default(mta: Mta, service: str, step: str, reply: Reply) -> None:
    """That a message without its filter from a step on was treated as the service says."""
    if service in REFUSALS:
        own = differences.of(mta, "without") if service == "reject" else None
        assert reply == (own or refusal(mta, REFUSALS[service], step))
    elif service == "quarantine":
        assert mta.recipients(mta.queue_id(reply)) == set()
        assert mta.held(mta.queue_id(reply))
    elif service == "shutdown":
        assert reply.code == 421
    else:
        assert TAGGED not in mta.delivered(mta.queue_id(reply)).headers


@pytest.mark.parametrize("step", ["envrcpt", "data", "header", "eom"])
@pytest.mark.parametrize("service", SERVICES)
def test_killed_in_a_callback(mta: Mta, folder: Path, service: str, step: str) -> None:
    """The MTA's default action; then, with the filter back on its stale socket, all is well."""
    service = mta.without if service == "its own" else service
    with Filter("scripted.py", f"unix:{mta.one}", folder) as it, ThreadPoolExecutor(1) as pool:
        it.plan({step: [["wait", "never"]]})
        session = pool.submit(mta.session, service)
        it.wait(step)
        it.stop(signal.SIGKILL)
        replies = session.result()
    # The reply that tells of a refusal, or the last one.
    refused = [reply for reply in replies.values() if reply.code not in (220, 250, 354)]
    check_default(mta, service, step, [*refused, *replies.values()][0 if refused else -1])

    with Filter("scripted.py", f"unix:{mta.one}", folder) as it:
        it.plan({"eom": TAG})
        assert TAGGED in mta.delivered(mta.submit(service)).headers


@pytest.mark.parametrize("service", SERVICES)
def test_killed_between_steps(mta: Mta, folder: Path, service: str) -> None:
    service = mta.without if service == "its own" else service
    with (
        Filter("scripted.py", f"unix:{mta.one}", folder) as it,
        closing(begin(mta, service)) as client,
    ):
        it.stop(signal.SIGKILL)
        check_default(mta, service, "data", finish(client))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_stopped_in_mid_message(mta: Mta, folder: Path, number: signal.Signals) -> None:
    """It finishes the message, takes no new connection, and ends."""
    with Filter("scripted.py", f"unix:{mta.one}", folder) as it:
        it.plan({"eom": TAG})
        with closing(begin(mta, "unix")) as client:
            it.process.send_signal(number)
            wait_for("the socket to close", lambda: not it.answers())
            assert mta.session("unix")["mail"] == refusal(mta, "TEMPFAIL", "connect")
            assert TAGGED in mta.delivered(mta.queue_id(finish(client))).headers
        assert it.process.wait(20) == 0
        assert it.stderr() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_stopped_in_a_callback(mta: Mta, folder: Path, number: signal.Signals) -> None:
    """The callback's changes and verdict still count."""
    with Filter("scripted.py", f"unix:{mta.one}", folder) as it, ThreadPoolExecutor(1) as pool:
        it.plan({"eom": [["wait", "go"], *TAG]})
        session = pool.submit(mta.session, "unix")
        it.wait("eom")
        it.process.send_signal(number)
        wait_for("the socket to close", lambda: not it.answers())
        (folder / "go").touch()
        assert TAGGED in mta.delivered(mta.queue_id(session.result()["."])).headers
        assert it.process.wait(20) == 0
        assert it.stderr() == ""


def test_aborted_in_mid_message(mta: Mta, folder: Path) -> None:
    """SIGINT ends it at once: the client is told to come again."""
    with (
        Filter("scripted.py", f"unix:{mta.one}", folder) as it,
        closing(begin(mta, "unix")) as client,
    ):
        it.process.send_signal(signal.SIGINT)
        it.process.wait(20)
        assert finish(client) == refusal(mta, "TEMPFAIL", "data")
        assert [event["step"] for event in it.events()][-2:] == ["abort", "close"]


def test_no_filter(mta: Mta) -> None:
    """Where nobody listens the MTA says so: what the other tests see is the filter's work."""
    assert mta.session("inet")["mail"] == refusal(mta, "TEMPFAIL", "connect")
