"""examples/house_rules.py."""

import pytest
from house_rules import HouseRules
from Milter.testing import MTA, AddHeader, ChangeHeader

pytestmark = pytest.mark.milter(filter=HouseRules)
CHECKED = AddHeader("X-House-Rules", "checked")
EXTERNAL = ChangeHeader(1, "Subject", "[external] hello")


def test_the_intern_is_refused(mta: MTA) -> None:
    result = mta.send(b"Subject: hello\n\nhi\n", rcpts=["Intern@example.org", "bob@example.org"])
    assert [each.verdict for each in result.recipients] == ["rejected", "accepted"]


def test_a_lottery_is_dropped(mta: MTA) -> None:
    assert mta.send(b"Subject: LOTTERY!\n\nhi\n").verdict == "discarded"


def test_a_request_for_a_password_is_held(mta: MTA) -> None:
    result = mta.send(b"Subject: hello\n\nsend your password\n")
    assert (result.verdict, result.quarantine) == ("quarantined", "asks for a password")


def test_links_are_changed(mta: MTA) -> None:
    result = mta.send(b"Subject: hello\n\nsee http://intranet/x\n")
    assert result.message.endswith(b"\n\nsee https://intranet/x\n")


def test_mail_from_outside_is_marked(mta: MTA) -> None:
    assert mta.send(b"Subject: hello\n\nhi\n").changes == (EXTERNAL, CHECKED)
    assert mta.send(b"Subject: hello\n\nhi\n", auth="ann").changes == (CHECKED,)


def test_nothing_stays_for_the_next_message(mta: MTA) -> None:
    mta.send(b"Subject: lottery\n\nyour password http://intranet\n")
    assert mta.send(b"Subject: hello\n\nhi\n").changes == (EXTERNAL, CHECKED)
