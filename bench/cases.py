"""What is compared, under which load, and the figures that are to be reached: tables only."""

from __future__ import annotations

from dataclasses import dataclass, field

# Protocol bits (docs/protocol.md 2.3): steps that are not sent, and steps without a reply.
NO_STEP_BITS = 0x37F
NO_REPLY_BITS = 0xFF080


@dataclass(frozen=True)
class Mode:
    """How a filter answers: the script that does it in Python, and what it must negotiate: the
    no-reply bits, and the bits of steps that it does not get."""

    script: str
    no_reply: int
    no_step: int = 0


MODES = {
    "every": Mode("every_step.py", 0),
    "noreply": Mode("noreply.py", NO_REPLY_BITS),
    "low": Mode("low_level.py", 0),
    "wait": Mode("waiting.py", 0, NO_STEP_BITS),
}


@dataclass(frozen=True)
class Program:
    """A filter on one library. `side`: "ours" and "peer" run the same filter in Python, on our
    modules and on python3-milter's; "c" is an executable of bench/filters; "registry" is a folder
    of bench/peers. A `foreign` one that fails is left out with a note, any other fails the
    benchmark. `ours_first`: the program was linked with the system's libmilter and runs on ours,
    which the loader finds first."""

    name: str
    side: str
    made_by: str = ""  # the executable or the folder
    mode: str = ""  # always this one, not the case's
    foreign: bool = False
    ours_first: bool = False
    tcp: bool = False  # it cannot listen on a unix socket
    aborts: bool = False  # it needs ABORT after each message
    no_reopening: bool = False  # it loses connections that come while others end


OURS = "ours"
PEER = "python3-milter"


def from_registry(name: str, folder: str, **more: bool) -> Program:
    """A peer that a package registry has."""
    return Program(name, "registry", folder, foreign=True, **more)


PROGRAMS = {
    program.name: program
    for program in (
        Program(OURS, "ours"),
        Program(PEER, "peer", foreign=True),
        Program("ours, low level", "ours", mode="low"),
        Program("ours, no replies", "ours", mode="noreply"),
        Program("python3-milter, low level", "peer", mode="low", foreign=True),
        Program("C on milterkit.h", "c", "mkit_filter"),
        Program("C on libmilter", "c", "libmilter_filter", foreign=True),
        Program("C on our libmilter", "c", "libmilter_filter", ours_first=True),
        Program("floor", "c", "floor"),
        from_registry("purepythonmilter (TCP)", "purepythonmilter", tcp=True),
        from_registry("python-libmilter", "python-libmilter", no_reopening=True),
        from_registry("kilter.service", "kilter.service", aborts=True),
        from_registry("go-milter (Go)", "go-milter"),
        from_registry("indymilter (Rust)", "indymilter"),
    )
}
LOW_LEVEL = ("ours, low level", "python3-milter, low level")
USUAL = tuple(program.name for program in PROGRAMS.values() if not program.mode)
QUICK_PROGRAMS = tuple(name for name in PROGRAMS if PROGRAMS[name].side != "registry")


@dataclass(frozen=True)
class Case:
    """A load. `total` is the least number of messages that is measured."""

    name: str
    title: str
    mode: str
    total: int
    connections: int = 20
    messages: int = 100  # per connection
    headers: int = 15
    body: int = 4096
    recipients: int = 1
    piece: int = 1 << 20  # bytes that the MTA writes at once, at most
    idle: int = 0  # further connections that are open meanwhile and send nothing
    programs: tuple[str, ...] = USUAL


CASES = {
    case.name: case
    for case in (
        Case("every", "every step answered", "every", 2000, programs=USUAL + LOW_LEVEL),
        Case("noreply", "no replies but at the end", "noreply", 2000),
        Case("one", "one message per connection, every step answered", "every", 1000, messages=1),
        Case("wide", "200 connections, every step answered", "every", 4000, 200, 20),
        Case("big", "1 MB bodies, every step answered", "every", 200, messages=10, body=1_000_000),
        Case(
            "pieces",
            "1 MB bodies in writes of 4096 bytes, as Postfix does",
            "every",
            200,
            messages=10,
            body=1_000_000,
            piece=4096,
        ),
    )
}
# Cases of their own kind: memory over many messages, memory of idle connections.
GROWTH = "growth"
IDLE = "idle"
# Callbacks that wait or compute at the end of the message: waits.py and crowds.py.
WAIT = "wait"
TAIL = "tail"
SPIN = "spin"
WAITING_CASES = (WAIT, TAIL, SPIN)
ALL_CASES = (*CASES, GROWTH, IDLE, *WAITING_CASES)
QUICK_CASES = ("every", "noreply", "one", GROWTH, WAIT)


@dataclass(frozen=True)
class Figure:
    """A bound on a metric of one program, or on its ratio to another's in the same run."""

    case: str
    metric: str  # a key of METRICS
    at_most: float
    program: str = OURS
    base: str = ""


METRICS = {
    "cpu": "CPU per message",
    "p99": "p99 latency",
    "calls": "system calls per message",
    "calls_per_packet": "system calls per packet",
    "growth": "MiB grown",
    "idle": "KiB per idle connection",
}

FIGURES = (
    Figure("every", "cpu", 0.25, base=PEER),
    Figure("noreply", "cpu", 0.04, base=PEER),
    Figure("one", "cpu", 0.18, base=PEER),
    Figure("wide", "cpu", 0.12, base=PEER),
    Figure("wide", "p99", 0.12, base=PEER),
    Figure("big", "cpu", 0.32, base=PEER),
    Figure("every", "cpu", 0.38, program="C on our libmilter", base="C on libmilter"),
    Figure("every", "cpu", 0.50, base="C on libmilter"),
    Figure("every", "calls_per_packet", 3.0),
    Figure("noreply", "calls", 6.0),
    Figure(GROWTH, "growth", 2.0),
    Figure(IDLE, "idle", 2.0, program="C on milterkit.h"),
    Figure(IDLE, "idle", 3.0),
)


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int
    cpu_seconds: float  # of one measurement, as far as `most` allows
    most: int  # times a case's total
    growth: tuple[int, int]  # messages before the first look at memory, and before the second
    idle: int  # connections
    wait_seconds: float = 0  # of one measurement of the cases with callbacks that wait


FULL = Effort(5, 1.5, most=20, growth=(20_000, 200_000), idle=10_000, wait_seconds=1.5)
QUICK = Effort(2, 0.2, most=5, growth=(2_000, 20_000), idle=1_000, wait_seconds=0.4)


@dataclass
class Result:
    """All samples of one program under one case, a list for each metric; or why there are none."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    left_out: str = ""

    def add(self, **values: float) -> None:
        """Notes one value for each metric that is named."""
        for metric, value in values.items():
            self.samples.setdefault(metric, []).append(value)


Results = dict[str, dict[str, Result]]  # by case, by program
