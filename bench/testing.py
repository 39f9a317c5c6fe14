#!/usr/bin/env python3
"""What a test costs that sends one message through a filter's class with Milter.testing.

After import, over 1,000 messages: each with an MTA of its own, opened and closed; then all in one
session. Wall time, which other work on the machine lengthens, and CPU time. To be run by an
interpreter that has Milterkit: `make bench-testing`.
"""

import time
from collections.abc import Iterator
from statistics import fmean, median

import Milter
from Milter.testing import MTA

COUNT = 1000
MESSAGE = b"From: a@example.org\nTo: b@example.org\nSubject: hello\nX-Test: 1\n\nOne line.\n"
BOUND = 2.0  # milliseconds of wall time for a test of its own


class Tagging(Milter.Base):
    """Wants the end of the message only."""

    def eom(self) -> int:
        self.addheader("X-Seen", "yes")
        return Milter.CONTINUE


class Watching(Tagging):
    """Answers every step."""

    def _go_on(self, *_: object) -> int:
        return Milter.CONTINUE

    connect = hello = envfrom = envrcpt = data = header = eoh = body = abort = close = _go_on


def alone(kind: type[Milter.Base], profile: str) -> Iterator[None]:
    """Every message is a test of its own."""
    while True:
        with MTA(kind, profile=profile) as mta:
            assert mta.send(MESSAGE).changes
        yield


def in_one_session(kind: type[Milter.Base], profile: str) -> Iterator[None]:
    """One test sends all."""
    with MTA(kind, profile=profile) as mta:
        while True:
            assert mta.send(MESSAGE).changes
            yield


def figures(each: Iterator[None]) -> tuple[float, float, float]:
    """Milliseconds for one message: wall time, the mean and the median, and CPU time."""
    next(each)
    cpu, walls = time.process_time(), []
    for _ in range(COUNT):
        start = time.perf_counter()
        next(each)
        walls.append(1000 * (time.perf_counter() - start))
    return fmean(walls), median(walls), 1000 * (time.process_time() - cpu) / COUNT


def main() -> None:
    """Prints the table."""
    print(f"ms for one message, of {COUNT}; a test of its own may take {BOUND:g} of wall time\n")
    print(f"{'':36}{'mean':>8}{'median':>8}{'CPU':>8}")
    for way in (alone, in_one_session):
        for kind in (Tagging, Watching):
            for profile in ("postfix", "sendmail"):
                mean, middle, cpu = figures(way(kind, profile))
                late = "  too long" if way is alone and mean > BOUND else ""
                name = f"{way.__name__.replace('_', ' ')}, {kind.__name__}, {profile}"
                print(f"{name:36}{mean:8.2f}{middle:8.2f}{cpu:8.2f}{late}")


if __name__ == "__main__":
    main()
