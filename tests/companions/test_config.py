"""Milter.config against the older package, on one file."""

from __future__ import annotations

from pathlib import Path

import pytest
from Milter.config import MilterConfigParser

from .oracle import agree

TEXT = """
[a]
list = one, two , three,
empty =
lines = one,
  two
plain = one two
pct = 100%%
int = 5
bad = x5
one = A@B.com
two = A@b.com, c@b.com, A@b.com, "x y"@c.d
noat = g
trail = a@b.com,
file = x@y.z, file:big.com
nofile = file:nope.com
names = one, two
"""
OPTIONS = [line.split(" =")[0] for line in TEXT.splitlines() if " =" in line] + ["none"]


def test_as_the_oracle(tmp_path: Path) -> None:
    (tmp_path / "big.com").write_text("joe\nMary\n\n sue \n")

    def ask(method: str, *args: object) -> str:
        call = f"{method}({', '.join(map(repr, args))})"
        return f"(lambda p: (p.read_string({TEXT!r}), p.{call})[1])(MilterConfigParser())"

    expressions = [
        ask(method, section, option, *more)
        for method, more in [
            ("get", ()), ("getlist", ()), ("getdefault", ("d",)), ("getintdefault", (7,)),
            ("getaddrset", (str(tmp_path),)), ("getaddrdict", ()),
        ]
        for section in ("a", "nowhere")
        for option in OPTIONS
    ]  # fmt: skip
    differences = {
        ask("getaddrset", "a", "empty", str(tmp_path)): "{}",
        ask("getaddrset", "a", "trail", str(tmp_path)): "{'b.com': ['a']}",
    }
    agree("config", expressions, differences)


def test_defaults_of_the_constructor_are_for_get_alone() -> None:
    """They are no part of any section: nothing else sees them, and `get` also where there is no
    section."""
    text = "[a]\nset = 1\n[DEFAULT]\nall = 2\n"

    def ask(call: str) -> str:
        made = "MilterConfigParser({'set': 'x', 'all': 'y', 'top': '3', 'Case': '%(odd)s'})"
        return f"(lambda p: (p.read_string({text!r}), p.{call})[1])({made})"

    agree(
        "config",
        [
            ask(f"{method}({section!r}, {option!r}{more})")
            for method, more in [
                ("get", ""), ("get", ", fallback='f'"), ("getlist", ""), ("getdefault", ", 'd'"),
                ("getintdefault", ", 7"), ("getint", ""), ("getaddrset", ""), ("getaddrdict", ""),
                ("has_option", ""),
            ]
            for section in ("a", "nowhere")
            for option in ("set", "all", "top", "Case", "case", "none")
        ],
        {},
    )  # fmt: skip


def test_the_error_names_the_option() -> None:
    parser = MilterConfigParser({"top": "1"})
    parser.read_string(TEXT)
    assert parser.getint("a", "top") == 1
    with pytest.raises(ValueError, match=r"\[a\] noat: not an address: 'g'"):
        parser.getaddrset("a", "noat")


def test_what_is_no_number_is_named() -> None:
    parser = MilterConfigParser()
    parser.read_dict({"a": {"n": "7 days"}})
    with pytest.raises(ValueError, match=r"\[a\] n: not a number: '7 days'"):
        parser.getintdefault("a", "n")
