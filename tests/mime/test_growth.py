"""Ten times the input costs about ten times as much, whatever its shape: calls are counted, and
memory. What happens inside of a regular expression is not counted here: bench/mime_figures.py
measures that. About ten seconds."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable

import pytest
from hostile import SHAPES, SMALL, Shape, whole

TIMES_THE_CALLS = 12
# Bytes at most for each byte of a message: for short parts with short headers, the worst there is.
TIMES_THE_SIZE = 800
BESIDES = 300_000


def calls(use: Callable[[bytes], object], data: bytes) -> int:
    """How many functions are called, those in C too."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        use(data)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_calls(shape: Shape) -> None:
    shape.use(shape.make(SMALL))  # what is made once
    few, many = (calls(shape.use, shape.make(times)) for times in (SMALL, SMALL * 10))
    assert 0 < many <= TIMES_THE_CALLS * few


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_memory(shape: Shape) -> None:
    data = shape.make(SMALL * 10)
    tracemalloc.start()
    try:
        shape.use(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= TIMES_THE_SIZE * len(data) + BESIDES


@pytest.mark.parametrize("encoding", ["7bit", "base64", "quoted-printable"])
def test_memory_of_one_large_part(encoding: str) -> None:
    head = f"Content-Type: text/html\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    data = head + b"PHNjcmlwdD4AAAAA<script></script>\n" * 20_000
    tracemalloc.start()
    try:
        whole(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 25 * len(data)
