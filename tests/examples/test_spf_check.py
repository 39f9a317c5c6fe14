"""examples/spf_check.py, which asks a name server of the test's own."""

from collections.abc import Iterator

import dns.rcode
import dns.resolver
import pytest
import spf_check
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from Milter.testing import MTA, ChangeHeader, InsertHeader
from shared.dns_server import DnsServer, failing

from .hostile import HOSTILE

pytestmark = pytest.mark.milter(filter=spf_check.SpfCheck, hostname="mx.example.org")
MESSAGE = b"Subject: hello\n\nhi\n"
CLIENT = "mail.example.net[192.0.2.7]"
OTHER = "elsewhere[198.51.100.1]"
RECORDS = """
    example.net                 TXT   "other"
    example.net                 TXT   "v=spf1 mx a:v6.example.net -all"
    example.net                 MX    10 mail.example.net.
    mail.example.net            A     192.0.2.7
    v6.example.net              AAAA  2001:db8::7
    soft.example                TXT   "v=spf1 ptr ~all"
    1.100.51.198.in-addr.arpa   PTR   a.soft.example.
    a.soft.example              A     198.51.100.1
    wrong.example               TXT   "v=spf1 nonsense"
    no.example                  A     192.0.2.9
    alias.example               CNAME example.net.
    inside.example              TXT   "v=spf1 include:broken.example -all"
"""
BROKEN = {"broken.example": failing(dns.rcode.SERVFAIL)}


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    """What the example's look-ups ask."""
    with DnsServer(RECORDS, BROKEN) as server:
        monkeypatch.setattr(dns.resolver, "default_resolver", server.resolver())
        yield server


def noted(verdict: str) -> InsertHeader:
    return InsertHeader(0, "Authentication-Results", f"mx.example.org; {verdict}")


@pytest.mark.parametrize(
    ("sender", "client", "verdict"),
    [
        ("a@example.net", CLIENT, "spf=pass smtp.mailfrom=example.net"),
        ("a@Example.NET", CLIENT, "spf=pass smtp.mailfrom=Example.NET"),
        ("a@example.net", "2001:db8::7", "spf=pass smtp.mailfrom=example.net"),
        ("a@example.net", OTHER, "spf=fail smtp.mailfrom=example.net"),
        ("a@alias.example", CLIENT, "spf=pass smtp.mailfrom=alias.example"),
        ("a@soft.example", OTHER, "spf=pass smtp.mailfrom=soft.example"),
        ("a@soft.example", CLIENT, "spf=softfail smtp.mailfrom=soft.example"),
        ("a@wrong.example", CLIENT, "spf=permerror smtp.mailfrom=wrong.example"),
        ("a@no.example", CLIENT, "spf=none smtp.mailfrom=no.example"),
        ("a@nowhere.example", CLIENT, "spf=none smtp.mailfrom=nowhere.example"),
        ("a@broken.example", CLIENT, "spf=temperror smtp.mailfrom=broken.example"),
        ("a@inside.example", CLIENT, "spf=temperror smtp.mailfrom=inside.example"),
        ('"b@example.net"@no.example', CLIENT, "spf=none smtp.mailfrom=no.example"),
        ("", CLIENT, "spf=none smtp.helo=mail.example.net"),
    ],
)
def test_results(mta: MTA, sender: str, client: str, verdict: str) -> None:
    assert mta.send(MESSAGE, sender, client=client).changes == (noted(verdict),)


def test_a_domain_may_disown_mail(mta: MTA, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spf_check, "REJECT", True)
    result = mta.send(MESSAGE, "a@example.net", client=OTHER)
    assert result.verdict == "rejected"
    assert str(result.reply) == (
        "550 5.7.23 198.51.100.1 may not send mail for example.net, says its SPF record"
    )
    assert mta.send(MESSAGE, "a@example.net", client=CLIENT).verdict == "accepted"
    assert mta.send(MESSAGE, "a@soft.example", client=CLIENT).verdict == "accepted"


def test_a_percent_in_a_reply(mta: MTA, server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spf_check, "REJECT", True)
    server.add("100%.example", "TXT", '"v=spf1 -all"')
    text = mta.send(MESSAGE, "a@100%.example", client=CLIENT).text
    assert text == '192.0.2.7 may not send mail for "100%.example", says its SPF record'


FORGED = [
    "mx.example.org; spf=pass",
    "MX.Example.ORG 1; spf=pass",
    "\n (a (nested;) comment) mx.example.org;\n spf=pass",
    '"mx.ex\\ample.org"; spf=pass',
]


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("profile", ["postfix", "sendmail"])
def test_forged_results_go(forged: str, profile: str) -> None:
    field = f"Authentication-Results: {forged}\n".encode()
    others = b"authentication-results: other.example; spf=fail\nX: mx.example.org\n"
    with MTA(spf_check.SpfCheck, hostname="mx.example.org", profile=profile) as mta:
        result = mta.send(field + others + field + field + MESSAGE, "a@no.example", client=CLIENT)
    first, rest = result.message.split(b"\n", 1)
    assert first == b"Authentication-Results: mx.example.org; spf=none smtp.mailfrom=no.example"
    assert rest == others + MESSAGE


def test_users(mta: MTA) -> None:
    """They are not checked, but cannot forge either."""
    message = b"Authentication-Results: mx.example.org; spf=pass\n" + MESSAGE
    result = mta.send(message, "a@example.net", client=OTHER, auth="ann")
    assert result.changes == (ChangeHeader(1, "Authentication-Results", ""),)


def test_relays(mta: MTA) -> None:
    message = b"Authentication-Results: mx.example.org; spf=pass\n" + MESSAGE
    assert mta.send(message, "a@example.net", client="127.0.0.1").changes == ()


def test_nothing_stays_for_the_next_message(mta: MTA) -> None:
    message = b"Authentication-Results: mx.example.org; spf=pass\n" + MESSAGE
    with mta.session(client=CLIENT) as session:
        session.send(message, "a@example.net")
        result = session.send(MESSAGE, "a@no.example")
    assert result.changes == (noted("spf=none smtp.mailfrom=no.example"),)


@given(
    st.text(min_size=1).filter(lambda text: not {"\0", "\r", "\n"} & set(text)),
    st.sampled_from(["a@{}", "{}@no.example", "a@{}.example", "{}"]),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_names(mta: MTA, text: str, form: str) -> None:
    """Of a sender and in HELO; the result is one header, with what is in it in one word."""
    name = form.format(text)
    for sender, helo in ((name, "mail.example.net"), ("", name)):
        result = mta.send(MESSAGE, sender, client=CLIENT, helo=helo)
        [change] = result.changes
        assert isinstance(change, InsertHeader)
        assert change.value.isascii()
        assert change.value.count(";") <= 1 + name.count(";")


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 include:hostile.example -all",
        "v=spf1 redirect=hostile.example",
        "v=spf1 exists:%{l1r-}.%{d}.%{i}.%{h}.%{p}.x -all",
        "v=spf1 a:" + "x" * 200 + ".example -all",
        "v=spf1 exists:%{z} -all",
        "v=spf1 ip4:999.1.1.1/99 ip6::::/999 -all",
        "v=spf1 " + "a:a.b.example " * 15 + "-all",
        "v=spf1 exp=hostile.example exp=hostile.example -all",
        "v=spf1 \\255\\000 -all",
    ],
)
def test_hostile_records(mta: MTA, server: DnsServer, record: str) -> None:
    server.add("hostile.example", "TXT", f'"{record}"')
    [change] = mta.send(MESSAGE, "a@hostile.example", client=CLIENT).changes
    assert str(change).count("smtp.mailfrom=hostile.example") == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages(mta: MTA, name: str) -> None:
    result = mta.send(HOSTILE[name], "a@no.example", client=CLIENT)
    assert result.changes == (noted("spf=none smtp.mailfrom=no.example"),)
