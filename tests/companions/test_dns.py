"""Milter.dns on a DNS server of the tests' own, beside the older package's module, which is given
the `reduce` that it lacks. About two seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import dns.rcode
import pytest
from api.conftest import ORACLE_PYTHON, need
from hypothesis import given
from hypothesis import strategies as st
from Milter.dns import MAX_CACHE, MAX_CNAME, DNSError, DNSLookup, Session
from shared.dns_server import Answer, DnsServer, cut, failing, garbage, respond, silent

RECORDS = r"""
    a.test    A      192.0.2.1
    a.test    A      192.0.2.2
    a.test    AAAA   2001:db8::1
    a.test    TXT    "one" "two"
    a.test    TXT    "v=spf1 -all"
    a.test    MX     10 mx.Test.
    a.test    MX     5 a.test.
    a.test    NS     ns.test.
    a.test    SRV    1 2 3 srv.test.
    a.test    CAA    0 issue "x"
    1.2.0.192.in-addr.arpa PTR a.test.
    spf.test  SPF    "v=spf1"
    null.test MX     0 .
    8bit.test TXT    "caf\195\169" "\255"
    8bit.test MX     1 caf\195\169.test.
    nul.test  TXT    "a\000b"
    dot.test  MX     1 a\.b.test.
    \233.test A      192.0.2.8
    xn--caf-dma.test A 192.0.2.7
    c1.test   CNAME  C2.Test.
    c2.test   CNAME  a.test.
    loop.test CNAME  pool.test.
    pool.test CNAME  loop.test.
    self.test CNAME  self.test.
    dangling.test CNAME gone.test.
    n0.test   A      192.0.2.9
"""
MANY = [f"n{at}.test CNAME n{at - 1}.test." for at in range(1, 12)]
MANY += [f'big.test TXT "{at:040}"' for at in range(40)]


def all_at_once(records: str) -> Answer:
    """Answers with all these records, as a server does that follows CNAME records itself."""

    def answer(query: dns.message.Message, _tcp: bool) -> bytes:
        response = respond(query, dns.rcode.NOERROR)
        for line in filter(None, map(str.strip, records.splitlines())):
            name, rdtype, data = line.split(None, 2)
            response.answer.append(dns.rrset.from_text(name + ".", 60, "IN", rdtype, data))
        return response.to_wire()

    return answer


CHAIN = "\n".join(f"long{at or ''}.test CNAME long{at + 1}.test." for at in range(20))
ANSWERS = {
    "servfail.test": failing(dns.rcode.SERVFAIL),
    "refused.test": failing(dns.rcode.REFUSED),
    "silent.test": silent,
    "garbage.test": garbage,
    "cut.test": cut,
    "whole.test": all_at_once("whole.test CNAME w2.test.\nw2.test A 192.0.2.3"),
    "other.test": all_at_once("other.test A 192.0.2.4\nvictim.test A 192.0.2.5"),
    "long.test": all_at_once(CHAIN),
}


@pytest.fixture(scope="module")
def server() -> Iterator[DnsServer]:
    with DnsServer("\n".join([RECORDS, *MANY]), ANSWERS) as running:
        yield running


def fresh(server: DnsServer, lifetime: float = 5) -> Session:
    server.asked.clear()
    return Session(server.resolver(), lifetime)


# As theirs, in any order.
SAME = {
    ("a.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("A.Test.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("a.test", "AAAA"): [bytes.fromhex("20010db8000000000000000000000001")],
    ("a.test", "TXT"): [[b"one", b"two"], [b"v=spf1 -all"]],
    ("a.test", "MX"): [(5, "a.test"), (10, "mx.test")],
    ("a.test", "NS"): ["ns.test"],
    ("a.test", "PTR"): [],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["a.test"],
    ("spf.test", "SPF"): [[b"v=spf1"]],
    ("null.test", "MX"): [(0, "")],
    ("8bit.test", "TXT"): [[b"caf\xc3\xa9", b"\xff"]],
    ("nul.test", "TXT"): [[b"a\0b"]],
    ("caf\xe9.test", "A"): ["192.0.2.7"],
    ("c1.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("c1.test", "MX"): [(5, "a.test"), (10, "mx.test")],
    ("dangling.test", "A"): [],
    ("n10.test", "A"): ["192.0.2.9"],
    ("whole.test", "A"): ["192.0.2.3"],
    ("gone.test", "A"): [],
    ("", "A"): [],
    (".", "A"): [],
    ("a..test", "A"): [],
    (".a.test", "A"): [],
    ("x" * 64 + ".test", "A"): [],
    ("a b.test", "A"): [],
    ("a\0b.test", "A"): [],
    ("a.test\n", "A"): [],
}
FAILS = [
    ("long.test", "A", "too long"),
    ("loop.test", "A", "CNAME loop"),
    ("n11.test", "A", f"more than {MAX_CNAME} CNAME records"),
    ("a.test", "FOO", "type is unknown"),
]
# Where theirs does otherwise.
OURS = {
    ("a.test", "a"): ["192.0.2.1", "192.0.2.2"],
    ("a.test", "SRV"): [(1, 2, 3, "srv.test")],
    ("a.test", "CAA"): ['0 issue "x"'],
    ("8bit.test", "MX"): [(1, r"caf\195\169.test")],
    ("dot.test", "MX"): [(1, r"a\.b.test")],
    ("big.test", "TXT"): [[f"{at:040}".encode()] for at in range(40)],
    ("\udce9.test", "A"): ["192.0.2.8"],
}
OURS_FAIL = [
    ("servfail.test", "A", "SERVFAIL"),
    ("refused.test", "A", "REFUSED"),
]

ASK = """
import builtins, functools, json, sys
sys.dont_write_bytecode = True
builtins.reduce = functools.reduce
import DNS, Milter.dns
port, asked = json.load(sys.stdin)
DNS.defaults.update(server=["127.0.0.1"], port=port, timeout=5)
def answer(name, qtype):
    try:
        return repr(sorted(Milter.dns.Session().dns(name, qtype)))
    except Exception as error:
        return "DNSError" if isinstance(error, Milter.dns.DNSError) else type(error).__name__
json.dump([answer(*each) for each in asked], sys.stdout)
"""


def theirs(server: DnsServer, asked: list[tuple[str, str]]) -> list[str]:
    need("oracle")
    done = subprocess.run(
        [ORACLE_PYTHON, "-c", ASK],
        input=json.dumps([server.port, asked]),
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    answers: list[str] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize(("asked", "expected"), [*SAME.items(), *OURS.items()])
def test_data(server: DnsServer, asked: tuple[str, str], expected: list[object]) -> None:
    assert sorted(fresh(server).dns(*asked)) == expected


@pytest.mark.parametrize(("name", "qtype", "text"), [*FAILS, *OURS_FAIL])
def test_failures(server: DnsServer, name: str, qtype: str, text: str) -> None:
    with pytest.raises(DNSError, match=rf"{qtype} of {name}: .*{text}") as caught:
        fresh(server).dns(name, qtype)
    assert "\n" not in str(caught.value)


def test_as_the_oracle(server: DnsServer) -> None:
    fails = [(name, qtype) for name, qtype, _ in FAILS]
    expected = [*(repr(each) for each in SAME.values()), *("DNSError" for _ in fails)]
    assert theirs(server, [*SAME, *fails]) == expected


def test_differences_from_the_oracle(server: DnsServer) -> None:
    asked = [*OURS, *((name, qtype) for name, qtype, _ in OURS_FAIL)]
    ours = [*(repr(each) for each in OURS.values()), *("DNSError" for _ in OURS_FAIL)]
    assert all(their != our for their, our in zip(theirs(server, asked), ours, strict=True))


@pytest.mark.parametrize("name", ["silent.test", "garbage.test", "cut.test"])
def test_timeouts(server: DnsServer, name: str) -> None:
    session = fresh(server, 0.2)
    with pytest.raises(DNSError, match=f"A of {name}: "):
        session.dns(name, "A")
    assert not session.cache


def test_one_lifetime_for_all_look_ups() -> None:
    slow = "\n".join(f"s{at}.test CNAME s{at + 1}.test." for at in range(9))
    with DnsServer(slow, {"s1.test": silent}) as server:
        session = Session(server.resolver(), 0.2)
        with pytest.raises(DNSError, match="lifetime expired"):
            session.dns("s0.test", "A")
        assert ("s2.test", "A") not in server.asked


def test_a_server_that_is_not_there() -> None:
    with DnsServer() as server:
        resolver = server.resolver()
    with pytest.raises(DNSError):
        Session(resolver, 0.2).dns("a.test", "A")


def test_cache(server: DnsServer) -> None:
    session = fresh(server)
    for name in ("c1.test", "C1.test.", "c2.test", "a.test", b"a.test"):
        assert len(session.dns(name, "A")) == 2
        assert session.dns("gone.test", "A") == []
    assert session.dns("c1.test", "CNAME") == ["C2.test"]
    assert set(server.asked.values()) == {1}
    session.dns("a.test", "A").clear()
    assert len(session.dns("a.test", "A")) == 2
    session.dns("a.test", "MX")
    assert server.asked["a.test", "MX"] == 1


def test_what_nobody_asked_for_is_not_remembered(server: DnsServer) -> None:
    session = fresh(server)
    assert session.dns("other.test", "A") == ["192.0.2.4"]
    assert session.dns("victim.test", "A") == []


def test_the_cache_has_a_bound(server: DnsServer) -> None:
    session = fresh(server)
    session.cache.update({(f"{at}.test", "A"): [] for at in range(MAX_CACHE)})
    assert session.dns("c1.test", "A")
    assert 0 < len(session.cache) < MAX_CACHE


def test_cnames_that_led_here(server: DnsServer) -> None:
    with pytest.raises(DNSError, match="CNAME loop"):
        fresh(server).dns("c1.test", "A", {"a.test"})


def test_lookup(server: DnsServer) -> None:
    resolver = server.resolver()
    assert DNSLookup("c1.test", "A", resolver) == [(("c1.test", "CNAME"), "C2.test")]
    assert DNSLookup("NULL.test.", "MX", resolver) == [(("null.test", "MX"), (0, ""))]
    assert DNSLookup("whole.test", "A", resolver) == [
        (("whole.test", "CNAME"), "w2.test"),
        (("w2.test", "A"), "192.0.2.3"),
    ]


def test_txt(server: DnsServer) -> None:
    session = fresh(server)
    assert sorted(session.dns_txt("a.test")) == ["onetwo", "v=spf1 -all"]
    assert sorted(session.dns_txt("c1.test")) == ["onetwo", "v=spf1 -all"]
    assert session.dns_txt("8bit.test") == ["caf\udcc3\udca9\udcff"]
    assert session.dns_txt("8bit.test", "utf-8") == ["caf\xe9\udcff"]
    assert session.dns_txt("8bit.test", enc="latin-1") == ["caf\xc3\xa9\xff"]
    assert len(session.dns_txt("big.test")) == 40
    assert session.dns_txt("gone.test") == session.dns_txt("") == session.dns_txt(None) == []
    assert server.by_tcp


@given(name=st.text(st.characters()) | st.binary())
def test_any_name(server: DnsServer, name: str | bytes) -> None:
    session = fresh(server)
    assert session.dns(name, "TXT") == session.dns_txt(name) == []
    assert len(server.asked) <= 1


def test_names_that_are_too_long(server: DnsServer) -> None:
    session = fresh(server)
    for name in (
        "x." * 128,
        "x" * 10_000_000,
        "\xe9" * 10_000_000,
        b"." * 10_000_000,
        "\\255" * 2_000_000,
    ):
        assert session.dns(name, "A") == []
    assert not server.asked


def test_without_dnspython() -> None:
    code = "import sys; sys.modules['dns'] = None; import Milter, Milter.dns"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )
    last = done.stderr.splitlines()[-1]
    assert last == "ImportError: Milter.dns needs dnspython: pip install 'milterkit[dns]'"
