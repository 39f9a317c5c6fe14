"""examples/greylisting.py."""

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from Milter import greysql
from Milter.testing import MTA

from .hostile import HOSTILE

MESSAGE = b"Subject: hello\n\nhi\n"
CLIENT = "mail.example.net[192.0.2.7]"
LATER = 11 * 60  # seconds


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example with a database of its own."""
    monkeypatch.setenv("GREYLIST_DATABASE", str(tmp_path / "greylist.db"))
    monkeypatch.delitem(sys.modules, "greylisting", raising=False)
    module = importlib.import_module("greylisting")
    yield module
    module.GREYLIST.close()


@pytest.fixture
def mta(example: ModuleType) -> Iterator[MTA]:
    with MTA(example.Greylisting) as mta:
        yield mta


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The list's clock is ahead by so many seconds."""
    ahead = SimpleNamespace(seconds=0.0)
    clock = SimpleNamespace(time=lambda: time.time() + ahead.seconds)
    monkeypatch.setattr(greysql, "time", clock)
    return ahead


def test_who_is_new_comes_again(mta: MTA, later: SimpleNamespace) -> None:
    result = mta.send(MESSAGE, client=CLIENT)
    assert result.verdict == "tempfailed"
    [recipient] = result.recipients
    assert str(recipient.reply) == "451 4.7.1 New here: please come again in 10 minutes"
    assert mta.send(MESSAGE, client=CLIENT).verdict == "tempfailed"
    later.seconds = LATER
    assert mta.send(MESSAGE, client=CLIENT).verdict == "accepted"
    later.seconds = 0
    assert mta.send(MESSAGE, client=CLIENT).verdict == "accepted"


def test_what_counts(mta: MTA, later: SimpleNamespace) -> None:
    """Another machine of the network and other letters do; another sender or network do not."""
    mta.send(MESSAGE, "A@example.net", ["B@example.org"], client=CLIENT)
    later.seconds = LATER
    for sender, rcpt, client, verdict in (
        ("a@example.net", "b@example.org", "192.0.2.200", "accepted"),
        ("a@example.net", "b@example.org", "192.0.3.7", "tempfailed"),
        ("x@example.net", "b@example.org", CLIENT, "tempfailed"),
        ("a@example.net", "x@example.org", CLIENT, "tempfailed"),
    ):
        assert mta.send(MESSAGE, sender, [rcpt], client=client).verdict == verdict


def test_ipv6(mta: MTA, later: SimpleNamespace) -> None:
    assert mta.send(MESSAGE, client="2001:db8::1").verdict == "tempfailed"
    later.seconds = LATER
    assert mta.send(MESSAGE, client="2001:db8::2").verdict == "accepted"
    assert mta.send(MESSAGE, client="2001:db8:0:1::2").verdict == "tempfailed"


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3", "/a/path"])
def test_the_welcome_do_not_wait(mta: MTA, client: str) -> None:
    assert mta.send(MESSAGE, client=client).verdict == "accepted"


def test_users_do_not_wait(mta: MTA) -> None:
    assert mta.send(MESSAGE, client=CLIENT, auth="ann").verdict == "accepted"
    assert mta.send(MESSAGE, client=CLIENT).verdict == "tempfailed"


def test_some_recipients_only(mta: MTA, later: SimpleNamespace) -> None:
    mta.send(MESSAGE, rcpts=["a@example.org"], client=CLIENT)
    later.seconds = LATER
    result = mta.send(MESSAGE, rcpts=["a@example.org", "b@example.org"], client=CLIENT)
    assert [each.verdict for each in result.recipients] == ["accepted", "tempfailed"]


def test_the_list_is_cleaned(
    mta: MTA, example: ModuleType, later: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def senders() -> set[str]:
        return {row[0] for row in example.GREYLIST.conn.execute("select sender from greylist")}

    mta.send(MESSAGE, "old@example.net", client=CLIENT)
    later.seconds = 40 * 86400  # past grey_retain
    mta.send(MESSAGE, "new@example.net", client=CLIENT)
    assert senders() == {"<old@example.net>", "<new@example.net>"}
    monkeypatch.setattr(example, "CLEANING", -1)
    mta.send(MESSAGE, "new@example.net", client=CLIENT)
    assert senders() == {"<new@example.net>"}


def test_without_its_list_mail_comes_in(
    mta: MTA, example: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    example.GREYLIST.conn.execute("drop table greylist")
    assert mta.send(MESSAGE, client=CLIENT).verdict == "accepted"
    assert "greylist.db: no such table: greylist" in caplog.text


@pytest.mark.parametrize("address", ["", "a" * 5000, "\x80\xff", "\udc80\udcff@\udc80", "'; drop"])
def test_hostile_addresses(mta: MTA, later: SimpleNamespace, address: str) -> None:
    first = mta.send(MESSAGE, address, [address or "x"], client=CLIENT)
    later.seconds = LATER
    again = mta.send(MESSAGE, address, [address or "x"], client=CLIENT)
    assert (first.verdict, again.verdict) == ("tempfailed", "accepted")


def test_messages_are_not_looked_at(mta: MTA) -> None:
    for message in HOSTILE.values():
        result = mta.send(message, client=CLIENT)
        assert (result.verdict, result.changes) == ("tempfailed", ())
