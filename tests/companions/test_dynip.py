"""Milter.dynip beside the older package, on names of many kinds. Two seconds."""

from __future__ import annotations

import doctest
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from Milter import dynip
from Milter.dynip import is_dynip

from .oracle import agree

ADDRESS = "203.99.113.88"
WORDS = [
    "a", "x", "mail", "dsl", "adsl", "xdsl-", "cable", "host", "ppp", "-ppp", "h", "n", "c", "o",
    "cust", "user", "p", "pool", "no-reverse",
]  # fmt: skip
NAMES = [
    "", ".", "localhost", "mail.ex.com", "[203.99.113.88]", "[1.2.3.4]", "[x]", "x]", "[x", "[::1]",
    "88", "88.ex.com", "a.88.ex.com", "a-88.ex.com", "a-088.ex.com", "-88.ex.com", "a_88.ex.com",
    "h88.ex.com", "x88.ex.com", "ppp1-a88.ex.com", "ppp.88.ex.com", "cust88.b.c.d.ex.com",
    "user88.x", "p88.pool.ex", "p88.xpool", "88-88.ex.com", "a-88-4.ex.com", "5-6-7.ex.com",
    "5-6.ex.com", "a-6-7.ex.com", "a--.ex.com", "a-6-7a.ex.com", "a-66666-77777.ex.com",
    "1.2.3.4.ex.com",
    "113.88.ex.com", "88x113.ex.com", "203x99x113.ex.com", "113x99x203.ex.com", "113x1x88.ex.com",
    "9911388.ex.com", "a20399113b.ex.com", "cb637158.ex.com", "xCB637158x.ex.com",
    "cb-63-71-58.ex.com", "cb.63.71.58.ex.com", "cb6371.ex.com", "a.adsl.b", "adsl.b", "a.cable.b",
    "xdsl-1.x", "xdsl-1a.x", "a-ppp1.x", "ppp1.x", "h001122334455.x", "h00112233445.x",
    "h1n2c3o4.x", "hnco.x", "pcp123456pcs.x", "pcp12345pcs.x", "no-reverse.x", "no-ptr.x",
    "S0106001122334455.vc.x", "S0106001122334455.vcx.x", "S010600112233445.vc.x",
]  # fmt: skip


def names(count: int) -> list[tuple[str, str]]:
    """Names that hold parts of their address, and much else; the same each time."""
    chance = Random(6)

    def piece(parts: list[str]) -> str:
        kind = chance.random()
        if kind < 0.4:
            return chance.choice(parts)
        if kind < 0.45:
            return chance.choice(parts).zfill(3)
        if kind < 0.55:
            return "".join(f"{int(each):02x}" for each in parts[chance.randrange(4) :])
        if kind < 0.75:
            return str(chance.randrange(chance.choice([10, 300, 100000])))
        return chance.choice(WORDS)

    def address() -> list[str]:
        return [str(chance.choice([chance.randint(0, 255), chance.randint(0, 12)])) for _ in "1234"]

    made = []
    for _ in range(count):
        parts = address()
        pieces = [
            piece(parts) + chance.choice(["-", "-", ".", "", "x", "_"])
            for _ in range(chance.randint(1, 6))
        ]
        tail = chance.choice([".ex.com", ".e1.x", ".x"])
        made.append(("".join(pieces).strip("-.") + tail, ".".join(parts)))
    return made


def test_as_the_oracle() -> None:
    table = [*names(6000), *((name, ADDRESS) for name in NAMES)]
    table += [(name, "2001:db8::1") for name in (*NAMES, "a.2001:db8::1")]
    table += [("mail.ex.com", ""), ("[x]", "")]
    agree(
        "dynip",
        [f"is_dynip({name!r}, {address!r})" for name, address in table],
        {
            "is_dynip('a.ADSL.b', '203.99.113.88')": "True",
            "is_dynip('mail.ex.com', 'unix')": "False",
            "is_dynip('mail.ex.com', '1.2.3')": "False",
            "is_dynip('mail.ex.com', '1.2.3.4.5')": "False",
        },
    )


def test_the_table_has_both() -> None:
    found = [is_dynip(name, address) for name, address in names(6000)]
    assert 1000 < sum(found) < 5000


def test_examples() -> None:
    assert doctest.testmod(dynip).attempted > 2
    assert doctest.testmod(dynip).failed == 0


@given(st.text(), st.text() | st.ip_addresses().map(str))
def test_any_text(host: str, addr: str) -> None:
    assert is_dynip(host, addr) in (True, False)
    assert is_dynip(f"[{host}]", addr)
