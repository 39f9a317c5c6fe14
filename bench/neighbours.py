"""The cases `tail` and `spin`: what one long callback does to the others, and how many threads a
filter that computes takes from other programs. Their measurement and their tables."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import measure
from cases import SPIN, TAIL, Effort, Program, Result, Results
from prepare import Tools
from report import Row, Table, number
from rounds import run_rounds
from waits import PAIRS, WARM_SECONDS

CONNECTIONS = 20
# The long callback is one of the first thousand, so it ends within this time too.
TAIL_SECONDS = 3
SPIN_US = 200
SHORT_US = 50
LONG = {"long-sleep": "sleeps", "long-spin": "computes"}
BUSY_PROGRAMS = (0, 2)
WINDOW_SECONDS = 0.1
BUSY_SHARE = 0.03  # of the filter's CPU time in a window: a thread with less does not compute
MOST_RUNNERS = 2  # of ours
OUR_PROGRAMS = tuple(ours for ours, _ in PAIRS)


def rows_of(row: Callable[[str, Result], Row], results: dict[str, Result]) -> list[Row]:
    """A line for each program that was measured."""
    return [row(name, result) for name, result in results.items() if not result.left_out]


def measure_tail(program: Program, tools: Tools, long: str) -> dict[str, float]:
    """One sample: short callbacks, and among them one that takes a second."""
    with measure.running(program, tools, "wait", f"{long}:{SHORT_US}") as filter_:
        found = measure.send_for(tools, filter_, CONNECTIONS, TAIL_SECONDS)
    times = found["message_us"]
    return {
        "rate": found["messages_per_second"],
        "p50": times["p50"],
        "p99": times["p99"],
        "second": times["second"],
        "max": times["max"],
        "gap": found["gap_us"],
    }


def tail_row(name: str, result: Result) -> Row:
    """A program's line; all times in milliseconds."""
    middle = {metric: median(values) for metric, values in result.samples.items()}
    times = (number(middle[key] / 1000) for key in ("p50", "p99", "second", "max", "gap"))
    return (name, f"{middle['rate']:,.0f}", *times)


def run_tail(programs: list[Program], tools: Tools, effort: Effort) -> Results:
    """Both kinds of a long callback."""
    return {
        f"{TAIL} {long}": run_rounds(
            programs, effort.rounds, partial(measure_tail, tools=tools, long=long)
        )
        for long in LONG
    }


def tail_tables(results: Results) -> list[Table]:
    """A table for each kind of long callback."""
    headings = (
        "",
        "messages/s",
        "p50 ms",
        "p99 ms",
        "longest of the others",
        "the long one",
        "longest without a reply",
    )
    return [
        Table(
            f"tail: one callback {verb} for 1 s among others that compute for {SHORT_US} us "
            f"({CONNECTIONS} connections)",
            [headings, *rows_of(tail_row, results[f"{TAIL} {long}"])],
        )
        for long, verb in LONG.items()
    ]


# ------------------------------------------------------------------------------------ computing


def computing(before: dict[str, int], now: dict[str, int]) -> int:
    """How many threads computed between two looks at the CPU time of each."""
    spent = [ns - before.get(thread, 0) for thread, ns in now.items()]
    return sum(ns > BUSY_SHARE * sum(spent) for ns in spent)


@dataclass
class Watch:
    """Looks at a process's threads, window by window."""

    pid: int
    alive: list[int] = field(default_factory=list)  # threads that there are
    computing: list[int] = field(default_factory=list)  # those that took a part of the CPU time

    def used(self) -> dict[str, int]:
        """The CPU time of each thread so far, nanoseconds."""
        found = {}
        for file in Path(f"/proc/{self.pid}/task").glob("*/schedstat"):
            try:
                found[file.parent.name] = int(file.read_text().split()[0])
            except OSError:
                continue  # it has ended
        return found

    def run(self, ended: threading.Event) -> None:
        """Looks until the event is set."""
        before = self.used()
        while not ended.wait(WINDOW_SECONDS):
            now = self.used()
            self.alive.append(len(now))
            self.computing.append(computing(before, now))
            before = now


@contextmanager
def watched(pid: int) -> Iterator[Watch]:
    """Watches a process's threads meanwhile."""
    watch, ended = Watch(pid), threading.Event()
    thread = threading.Thread(target=watch.run, args=(ended,))
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Keeps that many other programs computing meanwhile."""
    command = (sys.executable, "-I", "-c", "while True: pass")
    programs = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def measure_spin(program: Program, tools: Tools, busy: int, seconds: float) -> dict[str, float]:
    """One sample of a filter that computes beside `busy` other programs."""
    with (
        measure.running(program, tools, "wait", f"spin:{SPIN_US}") as filter_,
        busy_programs(busy),
    ):
        began = filter_.cpu_ns()
        with watched(filter_.pid) as watch:
            found = measure.send_for(tools, filter_, CONNECTIONS, seconds, WARM_SECONDS)
        cpu = filter_.cpu_ns() - began
    return {
        "rate": found["messages_per_second"],
        "p99": found["message_us"]["p99"],
        "cpu": cpu / 1000 / found["messages"],
        "alive": max(watch.alive, default=0),
        "computing": median(watch.computing or [0]),
        "computing_most": max(watch.computing, default=0),
    }


def run_spin(programs: list[Program], tools: Tools, effort: Effort) -> Results:
    """Without and with other busy programs."""
    seconds = max(1, effort.wait_seconds)
    return {
        f"{SPIN} beside {busy}": run_rounds(
            programs, effort.rounds, partial(measure_spin, tools=tools, busy=busy, seconds=seconds)
        )
        for busy in BUSY_PROGRAMS
    }


def spin_row(name: str, result: Result) -> Row:
    """A program's line. Of the threads the most of all rounds counts."""
    middle = {metric: median(values) for metric, values in result.samples.items()}
    most = {metric: max(values) for metric, values in result.samples.items()}
    return (
        name,
        f"{middle['rate']:,.0f}",
        number(middle["p99"] / 1000),
        number(middle["cpu"]),
        f"{most['alive']:.0f}",
        f"{middle['computing']:.0f}",
        f"{most['computing_most']:.0f}",
    )


def spin_tables(results: Results) -> list[Table]:
    """A table without and one with other programs, and whether ours kept to its runners."""
    headings = (
        "",
        "messages/s",
        "p99 ms",
        "CPU us/message",
        "threads, at most",
        "computing at once, median",
        "at most",
    )
    tables = []
    for busy in BUSY_PROGRAMS:
        found = results[f"{SPIN} beside {busy}"]
        heading = (
            f"spin: each message takes {SPIN_US} us of CPU time at its end, {busy} other programs "
            f"compute ({CONNECTIONS} connections)"
        )
        table = Table(heading, [headings, *rows_of(spin_row, found)])
        for name in OUR_PROGRAMS:
            if name in found:
                most = max(found[name].samples["computing_most"])
                verdict = "met" if most <= MOST_RUNNERS else "NOT met"
                table.notes.append(
                    f"{name}: no more than {MOST_RUNNERS} threads compute at once: {verdict}"
                )
        tables.append(table)
    return tables
