"""Tests run within a bound of memory, and so do the programs that they start."""

from __future__ import annotations

import subprocess
import sys

import pytest

TOO_MUCH = 9 << 30  # bytes; never touched, so that they take no memory where they are given


def test_a_memory_bound_for_tests() -> None:
    with pytest.raises(MemoryError):
        bytearray(TOO_MUCH)


def test_a_memory_bound_for_programs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"bytearray({TOO_MUCH})"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.endswith("MemoryError\n")
