"""What Linux tells of a filter program from outside: its threads, descriptors and memory."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

from .mta import DEADLINE

STILL = 0.2  # seconds without a wake-up; a server that does something wakes every few milliseconds


def threads(pid: int) -> list[int]:
    """The ids of a process's threads."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def files(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory(pid: int) -> int:
    """Bytes of memory that a process has written to and that no other one shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * int(re.findall(r"^Private_Dirty: +(\d+) kB", text, re.MULTILINE)[0])


def sleeps(pid: int) -> dict[int, int]:
    """How often each thread of a process has gone to sleep; what never wakes does so no more."""
    counts = {}
    for tid in threads(pid):
        text = Path(f"/proc/{pid}/task/{tid}/status").read_text()
        counts[tid] = int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.MULTILINE)[0])
    return counts


def await_stillness(pid: int) -> None:
    """Waits until no thread of a process wakes for a while."""
    end = time.monotonic() + DEADLINE
    before = None
    while (now := sleeps(pid)) != before:
        assert time.monotonic() < end, (before, now)
        before = now
        time.sleep(STILL)


def named(pid: int, name: str) -> list[int]:
    """The threads of a process that have this name: mkit-runner, mkit-watcher."""
    return [
        tid
        for tid in threads(pid)
        if Path(f"/proc/{pid}/task/{tid}/comm").read_text() == f"{name}\n"
    ]
