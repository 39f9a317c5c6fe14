"""What only Sendmail does, or only its files show."""

import pytest
from mta import Mta
from running import Filter
from sendmail import Sendmail
from test_session import args


@pytest.fixture(scope="session")
def mta(sendmail: Sendmail) -> Sendmail:
    """The tests of this file run over this MTA alone."""
    return sendmail


def test_parameters(mta: Sendmail, scripted: Filter) -> None:
    """They show in the queue file; that of a message in quarantine has another name."""
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
    assert records["S"] == ["<other@example.test>"]
    assert records["q"] == ["let a human look"]
    assert records["Z"] == ["abc"]  # ENVID
    assert "n" in records["F"][0]  # RET=HDRS
    assert records["R"] == ["PFD:<one@local.test>", "PN:<two@local.test>"]  # N: never
    assert records["Q"] == ["rfc822;orig@local.test"]


def test_own_headers(mta: Sendmail, scripted: Filter) -> None:
    """A filter does not see what Sendmail adds where it is missing; addheader replaces it."""
    scripted.plan({"eom": [["addheader", "Date", "today"], ["addheader", "X-New", "value"]]})
    id_ = mta.submit("unix")
    assert [name for name, _ in args(scripted, "header")] == ["Subject", "X-Two", "X-Two"]
    lines = mta.queue_file(id_)["H"]
    dates = [line for line in lines if "?Date:" in line]
    assert dates == ["?D?Date: today"]


def test_macros_by_stage(mta: Mta, scripted: Filter) -> None:
    """The queue id is there from MAIL on; no macro belongs to one recipient only."""
    scripted.plan({})
    id_ = mta.submit("unix", rcpts=["<one@local.test>", "<two@local.test>"])
    scripted.wait("close")
    events = scripted.events()
    ids = {event["step"]: event["macros"].get("i") for event in events}
    assert ids == {
        **dict.fromkeys(["connect", "hello"]),
        **dict.fromkeys(["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"], id_),
        "close": id_,
    }
    addresses = [event["macros"]["{rcpt_addr}"] for event in scripted.steps("envrcpt")]
    assert addresses == ["one@local.test", "two@local.test"]


def test_reply_with_a_single_percent(mta: Mta, scripted: Filter) -> None:
    """Sendmail would drop such a reply: it cannot be set."""
    scripted.plan({"envfrom": [["refused", "setreply", "550", "5.7.1", "100% sure"]]})
    mta.submit("unix")
    [event] = [event for event in scripted.events() if "refused" in event]
    assert event["kinds"], event
