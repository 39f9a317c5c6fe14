"""What only Postfix does, or only its files show."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from differences import refusal
from mta import Mta
from postfix import Postfix
from running import Filter
from test_session import WHOLE, args


@pytest.fixture(scope="session")
def mta(postfix: Postfix) -> Postfix:
    """The tests of this file run over this MTA alone."""
    return postfix


def test_client_behind_a_proxy(mta: Mta, scripted: Filter) -> None:
    """XCLIENT gives Postfix another client's name and address: a new filter session."""
    scripted.plan({})
    with closing(mta.client("unix")) as client:
        client.command("EHLO proxy.test")
        client.command("XCLIENT NAME=client.example.test ADDR=192.0.2.9 PORT=4711")
        connects = scripted.wait("connect", 2)
    assert connects[1]["args"] == ["client.example.test", 2, ["192.0.2.9", 4711]]
    assert connects[1]["macros"]["{client_addr}"] == "192.0.2.9"


def test_version_macro(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    with closing(mta.client("unix")):
        [event] = scripted.wait("connect")
    assert event["macros"]["v"].startswith("Postfix ")


def test_addresses_beyond_ascii(mta: Mta, scripted: Filter) -> None:
    scripted.plan({})
    with closing(mta.client("unix")) as client:
        client.command("EHLO client.test")
        assert client.command("MAIL FROM:<böse@exämple.test> SMTPUTF8").code == 250
        assert client.command("RCPT TO:<größe@local.test>").code == 250
    assert args(scripted, "envfrom") == [["<böse@exämple.test>", "SMTPUTF8"]]
    assert args(scripted, "envrcpt") == [["<größe@local.test>"]]


@pytest.mark.parametrize(
    ("service", "unseen"),
    [
        ("version2", {"data", "unknown"}),
        ("version3", {"data"}),
        ("version4", set()),
        ("unix", set()),
    ],
)
def test_versions_of_the_protocol(
    mta: Mta, scripted: Filter, service: str, unseen: set[str]
) -> None:
    scripted.plan({"eom": [["addheader", "X-Seen", "yes"]]})
    with closing(mta.client(service)) as client:
        client.command("EHLO client.test")
        client.command("FOO bar")
        id_ = mta.queue_id(client.run()["."])
    scripted.wait("close")
    seen = {event["step"] for event in scripted.events()}
    assert seen == {*WHOLE, "unknown"} - unseen
    assert "X-Seen: yes" in mta.delivered(id_).headers


def test_parameters(mta: Postfix, scripted: Filter) -> None:
    """They show in the queue file of a message on hold."""
    scripted.plan(
        {
            "eom": [
                ["addrcpt", "<two@local.test>", "NOTIFY=NEVER ORCPT=rfc822;orig@local.test"],
                ["chgfrom", "<other@example.test>", "RET=HDRS ENVID=abc"],
                ["quarantine", "let a human look"],
            ]
        }
    )
    records = mta.queue_file(mta.submit("unix"))
    assert records["sender"][-1] == "other@example.test"
    assert records["recipient"] == ["one@local.test", "two@local.test"]
    attributes = records["named_attribute"]
    assert "envelope_id=abc" in attributes
    assert "ret_flags=2" in attributes  # headers only
    assert "dsn_orig_rcpt=rfc822;orig@local.test" in attributes
    assert "notify_flags=1" in attributes  # never


def test_progress_keeps_a_message(mta: Mta, scripted: Filter, folder: Path) -> None:
    """Two messages whose ends take longer than Postfix waits. The filter of the first says nothing
    and Postfix does without it; the other one's, where progress is sent, has waited even longer
    by then and still has its say."""
    slow = {"eom": [["wait", "go"], ["addheader", "X-Seen", "yes"]]}
    scripted.plan(slow)
    with (
        Filter("scripted.py", f"unix:{mta.two}", folder, "TEMPFAIL", "patient") as patient,
        ThreadPoolExecutor(2) as pool,
    ):
        patient.plan(slow)
        kept = pool.submit(mta.submit, "hurried two")
        patient.wait("eom")
        try:
            lost = mta.session("hurried")["."]
            assert not kept.done()
        finally:
            for each in (scripted, patient):
                (each.folder / "go").touch()
        assert lost == refusal(mta, "TEMPFAIL", "eom")
        assert "X-Seen: yes" in mta.delivered(kept.result()).headers
    (scripted.folder / "go").unlink()
