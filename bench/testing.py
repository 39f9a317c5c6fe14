"""What the MTA's side in Python costs: a test with a message, and `milterkit send --repeat` beside
the load generator in C, on the same filter. Prints a table; nothing is asserted.

Usage: PYTHON bench/testing.py LOAD, with an interpreter that has the package, and the load
generator's program: `make bench-testing`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import Milter
from Milter.testing import MTA

FILTERS = Path(__file__).parent / "filters"
ROUNDS = 5
TESTS = 1000
HELLO = b"From: a@example.org\nTo: b@example.org\nSubject: hello\n\nhi\n"


class Tags(Milter.Base):
    """What a first filter does."""

    def eom(self) -> int:
        self.addheader("X-Tag", "yes")
        return Milter.CONTINUE


def one_test() -> None:
    """A test as people write it."""
    with MTA(Tags) as mta:
        assert b"X-Tag: yes" in mta.send(HELLO).message


def tests() -> None:
    """Prints what a test costs, wall time and CPU time."""
    wall, cpu = [], []
    for _ in range(ROUNDS):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        for _ in range(TESTS):
            one_test()
        wall.append((time.perf_counter() - begin) / TESTS * 1000)
        cpu.append((time.process_time() - begin_cpu) / TESTS * 1000)
    print(f"a test that sends one message: {statistics.median(wall):.2f} ms ({min(wall):.2f} - "
          f"{max(wall):.2f}), CPU {statistics.median(cpu):.2f} ms; at most 2 ms")  # fmt: skip


def output(*command: str | Path) -> dict[str, float]:
    """What a program prints as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def loads(load: str, script: str, count: str) -> None:
    """Prints the messages a second of both generators on one filter, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        spec = f"{folder}/s"
        message = Path(folder) / "m.eml"
        headers = "".join(
            f"X-Header-{n}: a value of a usual length, number {n}\n" for n in range(15)
        )
        message.write_text(f"{headers}\n" + ("x" * 70 + "\n") * 57)
        filter_ = subprocess.Popen(
            [sys.executable, FILTERS / script, spec], stdout=subprocess.DEVNULL
        )
        try:
            while not Path(spec).exists():
                time.sleep(0.05)
            ratios, rates = [], []
            for _ in range(ROUNDS):
                c = output(load, "--connections", "1", "--messages", count, "--aborts", "1",
                           spec)["messages_per_second"]  # fmt: skip
                ours = output(sys.executable, "-m", "Milter", "send", "--to", f"unix:{spec}",
                              "--repeat", count, "--json", message)  # fmt: skip
                rate = ours["messages"] / ours["seconds"]
                rates.append((rate, c))
                ratios.append(rate / c)
        finally:
            filter_.kill()
            filter_.wait()
    ours_rate, c_rate = (statistics.median(each) for each in zip(*rates, strict=True))
    print(f"{script}: milterkit send --repeat {ours_rate:.0f} messages/s, load generator "
          f"{c_rate:.0f}/s; ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} - "
          f"{max(ratios):.2f}), at least 0.5")  # fmt: skip


if __name__ == "__main__":
    tests()
    for name, count in (("every_step.py", "3000"), ("noreply.py", "30000")):
        loads(sys.argv[1], name, count)
