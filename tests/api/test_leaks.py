"""Objects of Python that nobody lets go. LeakSanitizer does not see these: what the garbage
collector knows hangs in the interpreter's lists, and counts as reachable, whoever has lost it."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable
from typing import Any

import Milter
import pytest
from Milter._plan import METHODS

from .mta import Mta

ROUNDS = 200


def serve_once(factory: Any) -> None:
    """One message to a filter, by a server of its own."""
    with Milter.Server(factory, None) as server:
        ours, theirs = socket.socketpair()
        server.adopt(ours)
        with Mta(theirs) as mta:
            mta.negotiate()
            mta.connect()
            mta.helo()
            mta.mail("<a@b>")
            mta.rcpt("<c@d>")
            mta.header("Subject", "x")
            mta.body()
            mta.eom()
            mta.quit()


STEPS = ("connect", "hello", "envfrom", "envrcpt", "header", "body", "eom", "close")


def make_class() -> type:
    """A filter's class with methods of its own."""

    def method() -> Any:
        return lambda *_: Milter.CONTINUE

    return type("Filter", (Milter.Base,), {step: method() for step in STEPS})


def growth_of(count: Callable[[], int], round_: Callable[[], object]) -> list[int]:
    """How much a number has grown after so many rounds, several times: what is made once, and
    tables that grow now and then, do not show each time; what leaks does."""

    def grown() -> int:
        gc.collect()
        before = count()
        for _ in range(ROUNDS):
            round_()
        gc.collect()
        return count() - before

    return [grown() for _ in range(4)]


@pytest.mark.parametrize("kind", ["a class each time", "one class"])
def test_numbers_of_objects(kind: str) -> None:
    """Also of what weak references do not see: the collector clears them, whether it can free the
    object or not."""
    one = make_class()
    growth = growth_of(
        sys.getallocatedblocks, lambda: serve_once(one if kind == "one class" else make_class())
    )
    assert min(growth) < ROUNDS / 2


def test_references_to_names() -> None:
    """Of methods and of error handlers: they exist once, however many refer to them.
    From Python 3.12 on they live for ever."""
    names = [sys.intern(name) for name in (*METHODS, "strict", "surrogateescape", "bytes")]
    growth = growth_of(lambda: sum(map(sys.getrefcount, names)), lambda: serve_once(make_class()))
    assert min(growth) < ROUNDS / 2
