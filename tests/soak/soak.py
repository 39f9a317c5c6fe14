"""The soak test: three filters under mixed load for a long time; memory, descriptors and threads
must stay flat, and every answer to a peer that behaves must be right.

Usage: soak.py BUILD MINUTES [SEED]. BUILD is the folder of the programs in C. Each filter gets, on
a unix socket of its own:
- peers.py: messages with every kind of verdict, change and failure; callbacks that wait for 0.2 to
  30 ms, or block; bursts of these; peers that vanish in any state, are slow, send garbage, or much;
- the loads of LOADS in turn: bench/load, which checks every reply, and tests/hostile;
- IDLE connections that stay from the beginning to the end.
Once a second the filters are measured. A filter is flat if, between the second and the last
quarter of the time (the first one is for warming up), the median of each measure grew by no more
than its bound in MEASURES (a wider one in short runs), and if after the load it has as few
descriptors and threads as before, once its idle threads have ended. It must also end well at
SIGTERM. The first error ends the test. The status is 1 if anything was wrong. What is printed can
go into docs/performance as it is.
"""

import itertools
import json
import operator
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CORPUS = HERE.parent / "fuzz" / "corpus"
IDLE = 200
PATIENCE = 120  # seconds that anything may take to end; only what hangs reaches it
# What the filters may raise. The last two: a peer is gone, or has not offered an action.
PLANNED = ("plan.Planned", "milter.error", "Milter.DisabledAction")
ROWS = 8  # of the table of how it went


class Measure(NamedTuple):
    """Something that must stay flat."""

    name: str
    read: Callable[[int], float]  # from the process's id
    bound: float  # how much the median may grow from the second to the last quarter
    early: float  # the same in a run of less than LONG minutes


def resident(pid: int) -> float:
    """MiB of memory that is the process's own at the moment."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def descriptors(pid: int) -> float:
    """How many descriptors are open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> float:
    """How many threads there are."""
    return len(os.listdir(f"/proc/{pid}/task"))


# How many connections there are at a moment and how many callbacks block is left to chance, within
# what the peers open at once: hence the bounds of descriptors and threads. What of these is lost
# for good shows after the load, exactly. Resident memory also holds what the allocators keep free,
# which creeps up a little for long; a leak of four bytes a message would be more than this bound.
LONG = 10
MEASURES = (
    Measure("RSS MiB", resident, 4, 8),
    Measure("descriptors", descriptors, 20, 40),
    Measure("threads", threads, 20, 60),
)

LOADS = (
    ("load", "--connections 20 --messages 50"),
    ("load", "--connections 20 --messages 50 --actions 0x1df"),  # see plan.py: no replies
    ("hostile", "1280"),
    ("load", "--connections 30 --messages 1 --messages-total 600"),
    ("load", "--connections 4 --messages 5 --body 1000000"),
    ("load", "--connections 2 --messages 2 --recipients 500 --headers 300"),
    ("hostile", "1280"),
    ("load", "--connections 1 --messages 1 --body 25000000"),
)


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def wait_for(what: str, condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether a condition came true in time; says so if not."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            print(f"waited {seconds} s in vain for {what}", flush=True)
            return False
        time.sleep(0.05)
    return True


@dataclass
class Subject:
    """One filter, its peers, and what was measured."""

    name: str
    command: list[str]
    folder: Path
    build: Path
    seed: int
    bounds: list[float]
    samples: list[tuple[float, ...]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    jobs: list[threading.Thread] = field(default_factory=list)
    running: set[subprocess.Popen[str]] = field(default_factory=set)
    until: float = 0  # when the load ends; 0: it is to end now
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=20))

    def start(self) -> None:
        """Starts the filter and waits until it listens and is at rest."""
        self.path = str(self.folder / self.name)
        self.process = subprocess.Popen(
            [*self.command, f"unix:{self.path}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.reader = threading.Thread(target=self._read_log)
        self.reader.start()
        if not wait_for(f"{self.name} to listen", self._answers, 30):
            self.errors.append("it does not listen")
        self.before = self.measure()

    def _answers(self) -> bool:
        """Whether it accepts a connection, and has then closed it."""
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(self.path):
                return False
            probe.shutdown(socket.SHUT_WR)
            return probe.recv(1) == b""

    def _read_log(self) -> None:
        """Reads what it writes, and counts what was raised; there is much of it."""
        in_trace = False
        assert self.process.stdout
        for line in self.process.stdout:
            self.last_lines.append(line)
            if line.startswith("Traceback "):
                in_trace = True
            elif in_trace and not line.startswith(" "):
                in_trace = False
                raised = line.partition(":")[0].strip()
                self.counts["raised"] += 1
                if raised not in PLANNED:
                    self.errors.append(f"raised {''.join(self.last_lines)}")
                    self.last_lines.clear()

    def runs(self) -> bool:
        """Whether the filter has not ended."""
        return self.process.poll() is None

    def is_well(self) -> bool:
        """Whether nothing was wrong so far."""
        return self.runs() and not self.errors

    def measure(self) -> tuple[float, ...]:
        """Its measures at this moment."""
        return tuple(measure.read(self.process.pid) for measure in MEASURES)

    # ---------------------------------------------------------------------------------- load

    def load(self, seconds: float) -> None:
        """Starts the peers."""
        self.until = time.monotonic() + seconds
        self.idle = subprocess.Popen(
            [self.build / "bench/load", "--connections", "0", "--idle", str(IDLE), "--pause",
             "--timeout", str(PATIENCE), self.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        for target in (lambda: self._run_peers(seconds), self._run_loads):
            self.jobs.append(threading.Thread(target=target))
            self.jobs[-1].start()

    def _run_peers(self, seconds: float) -> None:
        peers = HERE / "peers.py"
        if printed := self._run(sys.executable, peers, f"unix:{self.path}", seconds, self.seed):
            report = json.loads(printed)
            self.counts.update(report["counts"])
            self.errors += report["errors"]

    def _run_loads(self) -> None:
        corpus = [each for name in ("session", "mta") for each in sorted((CORPUS / name).iterdir())]
        for number, (program, options) in enumerate(itertools.cycle(LOADS)):
            if time.monotonic() > self.until or self.errors:
                break
            if program == "load":
                load = self.build / "bench/load"
                if printed := self._run(load, *options.split(), "--timeout", PATIENCE, self.path):
                    self.counts["messages"] += json.loads(printed)["messages"]
            else:
                hostile = self.build / "tests/hostile/hostile"
                self._run(hostile, "at", self.path, options, self.seed + number, *corpus)
                self.counts["hostile"] += int(options)

    def _run(self, *command: object) -> str:
        """Runs a program to its end; returns what it printed."""
        with subprocess.Popen(
            [str(each) for each in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self.running.add(process)
            printed, errors = process.communicate()
            self.running.discard(process)
        if process.returncode and self.until:
            self.errors.append(f"{Path(str(command[0])).name} failed: {errors[-2000:]}")
        return printed

    def end_load(self) -> None:
        """Ends the peers before their time."""
        self.until = 0
        for each in list(self.running):
            each.terminate()

    # ----------------------------------------------------------------------------------- end

    def finish(self) -> None:
        """Ends the load, waits until the filter is at rest again, and stops it."""
        for job in self.jobs:
            job.join()
        try:
            self.idle.communicate(timeout=PATIENCE)  # which closes its input: they say good-bye
        except subprocess.TimeoutExpired:
            self.idle.kill()
        if self.idle.wait():
            self.errors.append("the idle connections were not served to their end")
        if not self.runs():
            self.errors.append(f"it ended by {self.process.returncode}: {''.join(self.last_lines)}")
            return
        at_rest = wait_for(
            f"{self.name} to have as few descriptors and threads as before",
            lambda: all(map(operator.le, self.measure()[1:], self.before[1:])),
        )
        self.after = self.measure()
        self.cpu = processor_time(self.process.pid)
        if not at_rest:
            self.errors.append(f"it had {self.before}, and has {self.after}")
        self.process.send_signal(signal.SIGTERM)
        wait_for(f"{self.name} to end", lambda: not self.runs())
        if self.process.poll() != 0:
            self.errors.append(f"it ended by {self.process.poll()}")
        if os.path.exists(self.path):
            self.errors.append("it left its socket behind")

    def kill(self) -> None:
        """Ends what is left."""
        for process in (getattr(self, "process", None), getattr(self, "idle", None)):
            if process and process.poll() is None:
                process.kill()
                process.wait()
        if hasattr(self, "reader"):
            self.reader.join()

    # -------------------------------------------------------------------------------- verdict

    def part(self, number: int, of: int) -> list[list[float]]:
        """One of `of` parts of the samples, by measure."""
        size = len(self.samples) / of
        part = self.samples[int(number * size) : int((number + 1) * size)]
        return [list(column) for column in zip(*part, strict=True)]

    def growth(self) -> list[float]:
        """How much the median of each measure grew from the second to the last quarter."""
        return [
            statistics.median(last) - statistics.median(second)
            for second, last in zip(self.part(1, 4), self.part(3, 4), strict=True)
        ]

    def check_flat(self) -> None:
        """Notes an error for each measure that grew."""
        if len(self.samples) < ROWS:
            return  # something else was wrong
        for measure, grew, bound in zip(MEASURES, self.growth(), self.bounds, strict=True):
            if grew > bound:
                self.errors.append(f"{measure.name} grew by {grew:.1f}; the bound is {bound:g}")


# ------------------------------------------------------------------------------------- report


def print_table(rows: list[list[str]]) -> None:
    """A table in Markdown; the first row is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        print("| " + " | ".join(map(str.ljust, row, widths)) + " |")
    print()


def report(subjects: list[Subject], seconds: float, seed: int) -> None:
    """Prints what happened and what was measured."""
    print(
        f"\n{seconds / 60:g} minutes, seed {seed}; {platform.machine()}, {os.cpu_count()} cores, "
        f"Linux {platform.release()}, Python {platform.python_version()}.\n"
    )
    counted = ("messages", "raised", "vanished", "aborts", "garbage", "hostile", "waits", "bursts",
               "big bodies", "big replacements")  # fmt: skip
    rows = [["filter", *counted, "CPU s"]]
    for each in subjects:
        rows.append([each.name, *(str(each.counts[name]) for name in counted)])
        rows[-1].append(f"{each.cpu:.0f}" if hasattr(each, "cpu") else "-")
    print_table(rows)

    rows = [["filter", "measure", "before", *(f"{i + 1}/{ROWS}" for i in range(ROWS)), "peak",
             "after", "growth", "bound"]]  # fmt: skip
    for each in subjects:
        if len(each.samples) < ROWS:
            continue
        parts = [each.part(i, ROWS) for i in range(ROWS)]
        for number, measure in enumerate(MEASURES):
            shown = "{:.1f}" if measure.read is resident else "{:.0f}"
            values = [
                each.before[number],
                *(statistics.median(part[number]) for part in parts),
                max(sample[number] for sample in each.samples),
                getattr(each, "after", each.samples[-1])[number],
                each.growth()[number],
                each.bounds[number],
            ]
            rows.append([each.name, measure.name, *map(shown.format, values)])
    print_table(rows)


def main() -> int:
    build, minutes = Path(sys.argv[1]).resolve(), float(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    seconds = minutes * 60
    if seconds < 3 * ROWS:
        sys.exit(f"soak: it needs at least {3 * ROWS / 60} minutes")
    filters = HERE / "filters"
    os.environ["PYTHONPATH"] = str(filters)
    commands = {
        "fast": [sys.executable, str(filters / "fast.py")],
        "lowlevel": [sys.executable, str(filters / "lowlevel.py")],
        "C": [str(build / "tests/soak/soak_filter")],
    }
    print(f"soak: {minutes:g} minutes, seed {seed}", flush=True)
    bounds = [each.bound if minutes >= LONG else each.early for each in MEASURES]
    with tempfile.TemporaryDirectory() as folder:
        subjects = [
            Subject(name, command, Path(folder), build, seed + number, bounds)
            for number, (name, command) in enumerate(commands.items())
        ]
        try:
            for each in subjects:
                each.start()
            for each in subjects:
                each.load(seconds)
            end = time.monotonic() + seconds
            while time.monotonic() < end and all(each.is_well() for each in subjects):
                time.sleep(1)
                for each in subjects:
                    with suppress(OSError):  # it has ended: that is told in a moment
                        each.samples.append(each.measure())
            if time.monotonic() < end:
                for each in subjects:
                    each.end_load()
            for each in subjects:
                each.finish()
        finally:
            for each in subjects:
                each.kill()
        for each in subjects:
            each.check_flat()
        report(subjects, seconds, seed)
    for each in subjects:
        for error in each.errors[:5]:
            print(f"{each.name}: {error}")
    wrong = any(each.errors for each in subjects)
    print("failed" if wrong else "all answers were right, and everything stayed flat")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
