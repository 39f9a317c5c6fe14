"""One measurement: a filter is started, loaded, read by its CPU clock, and ended."""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases import MODES, NO_REPLY_BITS, NO_STEP_BITS, Case, Effort, Mode, Program
from prepare import BENCH, Tools
from shell import BenchError, last_line

PYTHON_SIDES = ("ours", "peer")  # print the files of their modules first
START_SECONDS = 30
LOAD_SECONDS = 1800
MIB = 1 << 20


def raise_descriptor_limit() -> int:
    """Allows this process and its children as many descriptors as the system does."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@dataclass(frozen=True)
class Filter:
    """A running filter."""

    pid: int
    clock: int  # of its CPU time, for time.clock_gettime_ns
    address: tuple[str, ...]  # of its socket, as the load generator wants it
    mode: Mode
    aborts: bool
    modules: tuple[str, ...]  # files that Milter and milter came from; none in C
    stop: Callable[[], str]  # ends it as its user would, and returns what it printed then

    def cpu_ns(self) -> int:
        """CPU time so far, user and system, all threads, nanoseconds."""
        return time.clock_gettime_ns(self.clock)

    def rss(self, field: str = "VmRSS") -> int:
        """Resident memory, bytes; with field "VmHWM" the most that it ever was."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
        if not found:
            raise BenchError(f"process {self.pid} has ended")
        return int(found[1]) * 1024


def cpu_clock(pid: int) -> int:
    """The id of a process's CPU clock."""
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(ctypes.c_int(pid), ctypes.byref(clock))
    if error:
        raise BenchError(f"no CPU clock of process {pid}: {os.strerror(error)}")
    return clock.value


def check_modules(program: Program, tools: Tools, modules: tuple[str, ...]) -> None:
    """Makes sure that ours and the peer's do not stand in for each other."""
    if program.side not in PYTHON_SIDES:
        return
    inside = [Path(module).resolve().is_relative_to(tools.venv) for module in modules]
    if len(modules) != 2 or set(inside) != {program.side == "ours"}:
        raise BenchError(f"{program.name} would run on {', '.join(modules) or 'no module'}")


def command_of(
    program: Program, tools: Tools, mode_name: str, address: str, deed: str
) -> list[str]:
    """The command line of a filter."""
    words = [address, deed or mode_name]
    if program.side == "c":
        return [str(tools.c / program.made_by), *words]
    if program.side == "registry":
        return [*tools.registry[program.made_by].command, *words]
    python = tools.ours_python if program.side == "ours" else tools.peer_python
    return [str(python), "-I", str(BENCH / "filters" / MODES[mode_name].script), *words]


def check_library(program: Program, tools: Tools, pid: int) -> None:
    """Makes sure that a filter for libmilter runs on the library that it is to show."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    if program.side == "c" and (str(tools.libmilter) in maps) != program.ours_first:
        raise BenchError(f"{program.name} runs on another libmilter")


def environment_of(program: Program, tools: Tools) -> dict[str, str]:
    """The environment of a filter."""
    first = {"LD_LIBRARY_PATH": str(tools.libmilter)} if program.ours_first else {}
    return {**os.environ, **first}


def free_port() -> str:
    """A TCP port of the loopback interface that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def accepts(address: tuple[str, ...]) -> bool:
    """Whether somebody accepts at the socket."""
    with socket.socket(socket.AF_UNIX if len(address) == 1 else socket.AF_INET) as probe:
        where = address[0] if len(address) == 1 else (address[0], int(address[1]))
        return probe.connect_ex(where) == 0


def wait_until_accepting(
    process: subprocess.Popen[str], address: tuple[str, ...], errors: Path
) -> None:
    """Waits until the filter accepts at its socket."""
    deadline = time.monotonic() + START_SECONDS
    while not accepts(address):
        if process.poll() is not None or time.monotonic() > deadline:
            text = errors.read_text(errors="replace")
            raise BenchError(f"the filter did not start: {last_line(text)}", text)
        time.sleep(0.005)


def check_children(program: Program, pid: int) -> None:
    """Makes sure that the process is all there is to measure: its clock has its threads, but not
    its children, those that run or those that have ended."""
    alive = any(file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children"))
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if alive or any(map(int, stat[13:15])):  # cutime and cstime
        raise BenchError(f"{program.name} has processes of its own, whose time is not counted")


@contextmanager
def running(program: Program, tools: Tools, mode: str, deed: str = "") -> Iterator[Filter]:
    """Starts a filter on a unix socket of its own, and ends it: it is killed, since all that it
    was to show has been read. A filter of the mode "wait" is told its `deed`."""
    mode_name = program.mode or mode
    with tempfile.TemporaryDirectory(prefix="milterkit-bench-") as folder:
        address = ("127.0.0.1", free_port()) if program.tcp else (f"{folder}/socket",)
        errors = Path(folder) / "stderr"
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                command_of(program, tools, mode_name, ":".join(address), deed),
                stdout=subprocess.PIPE,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=environment_of(program, tools),
                text=True,
            )
        try:
            assert process.stdout
            lines = 2 if program.side in PYTHON_SIDES else 0
            modules = tuple(filter(None, (process.stdout.readline().strip() for _ in range(lines))))
            wait_until_accepting(process, address, errors)
            check_modules(program, tools, modules)
            check_library(program, tools, process.pid)
            clock = cpu_clock(process.pid)

            def stop() -> str:
                process.terminate()
                return process.communicate(timeout=START_SECONDS)[0]

            mode_of_it = MODES[mode_name]
            yield Filter(process.pid, clock, address, mode_of_it, program.aborts, modules, stop)
            if process.poll() or errors.stat().st_size:
                text = errors.read_text(errors="replace")[-2000:]
                short = f"{program.name} failed (status {process.poll()}): {last_line(text)}"
                raise BenchError(short, text)
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def load_command(tools: Tools, filter_: Filter, **options: int) -> list[str]:
    """The command line of the load generator."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return [str(tools.c / "load"), *words, *filter_.address]


@contextmanager
def held(tools: Tools, filter_: Filter, count: int) -> Iterator[None]:
    """Holds connections open that have greeted and send nothing. Every one must stay."""
    if not count:
        yield
        return
    command = [*load_command(tools, filter_, connections=0, idle=count), "--pause"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as load:
        assert load.stdout
        if ready := load.stdout.readline().strip() == "ready":
            yield
        _, errors = load.communicate()
    if not ready or load.returncode:
        raise BenchError(f"not all of {count} idle connections stayed", errors)


def case_options(filter_: Filter, case: Case, total: int) -> dict[str, int]:
    """The load generator's options for a filter and a case."""
    return {
        "aborts": int(filter_.aborts),
        "connections": case.connections,
        "messages": case.messages,
        "headers": case.headers,
        "body": case.body,
        "recipients": case.recipients,
        "piece": case.piece,
        "messages_total": total,
    }


def check_load(filter_: Filter, text: str, total: int | None) -> dict[str, Any]:
    """Reads the load generator's report; the filter must have done what it is measured for. With
    None as the total, any number of messages is right."""
    found: dict[str, Any] = json.loads(text)
    protocol = found["protocol"]
    total = found["messages"] if total is None else total
    passed = sum(found["verdicts"].get(verdict, 0) for verdict in "ac")
    if passed != total or found["messages"] != total:
        raise BenchError(f"of {total} messages, verdicts came for {found['verdicts']}")
    if protocol & (NO_REPLY_BITS | NO_STEP_BITS) != filter_.mode.no_reply | filter_.mode.no_step:
        raise BenchError(f"the filter negotiated {protocol:#x}, which is not what is measured")
    return found


def run_load(
    tools: Tools, filter_: Filter, total: int | None, options: dict[str, int]
) -> dict[str, Any]:
    """Runs the load generator and returns its report. A wrong reply is a BenchError."""
    command = load_command(tools, filter_, **options)
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LOAD_SECONDS, check=False
    )
    if done.returncode:
        first = done.stderr.partition("\n")[0]
        raise BenchError(first, f"{' '.join(command)}\n{done.stderr}")
    return check_load(filter_, done.stdout, total)


def send_for(
    tools: Tools, filter_: Filter, connections: int, seconds: float, warm_up: float = 0
) -> dict[str, Any]:
    """Sends messages for some time, after a time in which they are not yet measured, and returns
    the load generator's report."""
    options = {
        "connections": connections,
        "messages": (1 << 32) - 1,  # for each connection; the time ends it
        "duration": round((warm_up + seconds) * 1000),
        "warm_up": round(warm_up * 1000),
    }
    return run_load(tools, filter_, None, options)


def send(tools: Tools, filter_: Filter, case: Case, total: int) -> dict[str, Any]:
    """Sends messages and returns the load generator's report. A wrong reply is a BenchError."""
    return run_load(tools, filter_, total, case_options(filter_, case, total))


def pick_total(program: Program, case: Case, effort: Effort, ns: int, sent: int) -> int:
    """How many messages to measure, when `sent` took `ns` of CPU time: whole connections."""
    unit = case.connections * case.messages
    wanted = 0 if program.no_reopening else effort.cpu_seconds * 1e9 * sent / max(ns, 1)
    total = min(max(wanted, case.total), case.total * effort.most)
    return max(1, round(total / unit)) * unit


def busy_seconds() -> float:
    """CPU time that all programs of the machine have used."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    """CPU time of the load generators that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(program: Program, tools: Tools, case: Case, effort: Effort) -> dict[str, float]:
    """One sample of a program under a case: values for each metric."""
    with running(program, tools, case.mode) as filter_, held(tools, filter_, case.idle):
        warm = max(case.total // 10, case.connections)
        began = filter_.cpu_ns()
        send(tools, filter_, case, warm)
        total = pick_total(program, case, effort, filter_.cpu_ns() - began, warm)
        rss = filter_.rss()
        machine = busy_seconds() - children_seconds()
        wall = time.monotonic()
        began = filter_.cpu_ns()
        found = send(tools, filter_, case, total)
        cpu = filter_.cpu_ns() - began
        check_children(program, filter_.pid)
        wall = time.monotonic() - wall
        others = busy_seconds() - children_seconds() - machine - cpu / 1e9
        return {
            "cpu": cpu / 1000 / total,
            "rate": found["messages_per_second"],
            "p50": found["message_us"]["p50"],
            "p99": found["message_us"]["p99"],
            "rss_before": rss / MIB,
            "rss_after": filter_.rss() / MIB,
            "rss_peak": filter_.rss("VmHWM") / MIB,
            "others": 100 * max(0.0, others) / (wall * (os.cpu_count() or 1)),
        }


def prove(program: Program, tools: Tools, case: Case) -> tuple[str, ...]:
    """Makes sure that a filter sees all that is sent, to the byte, before its speed is believed.
    Returns what it runs on: the files of its modules, or a line of its manifest."""
    with running(program, tools, case.mode) as filter_:
        octets = send(tools, filter_, case, case.connections * 3)["octets"]
        seen = filter_.stop().strip()
    if seen != str(octets):
        raise BenchError(f"{program.name} saw {seen} octets of {octets} in case {case.name}")
    if program.side == "registry":
        return (tools.registry[program.made_by].version,)
    return filter_.modules


# --------------------------------------------------------------------------------- system calls


def count_by_perf(tools: Tools, filter_: Filter, case: Case) -> tuple[int, dict[str, Any]] | None:
    """Counts a filter's system calls during a load with perf; None if it cannot."""
    with tempfile.NamedTemporaryFile("r", prefix="milterkit-bench-") as output:
        perf = ["perf", "stat", "-x", ";", "-e", "raw_syscalls:sys_enter", "-o", output.name]
        load = load_command(tools, filter_, **case_options(filter_, case, case.total))
        done = subprocess.run(
            [*perf, "-p", str(filter_.pid), "--", *load],
            capture_output=True,
            text=True,
            timeout=LOAD_SECONDS,
            check=False,
        )
        found = re.search(r"^(\d+);[^;]*;raw_syscalls:sys_enter", output.read(), re.MULTILINE)
    if done.returncode or not found:
        return None
    return int(found[1]), check_load(filter_, done.stdout, case.total)


def count_by_strace(tools: Tools, filter_: Filter, case: Case) -> tuple[int, dict[str, Any]] | None:
    """Counts a filter's system calls during a load with strace; None if it cannot."""
    strace = ["strace", "-f", "-c", "-p", str(filter_.pid)]
    with subprocess.Popen(strace, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr
        if "attached" not in tracer.stderr.readline():
            return None
        found = send(tools, filter_, case, case.total)
        tracer.send_signal(signal.SIGINT)
        table = tracer.stderr.read()
    total = re.search(r"^\S+\s+\S+\s+(?:\d+\s+)?(\d+)\s+(?:\d+\s+)?total$", table, re.MULTILINE)
    return (int(total[1]), found) if total else None


def count_calls(program: Program, tools: Tools, case: Case) -> dict[str, float]:
    """System calls per message and per packet of the MTA, in a run of their own; empty if the
    system lets us not count."""
    ways = (("perf", count_by_perf), ("strace", count_by_strace))
    for name, way in ways:
        if not shutil.which(name):
            continue
        with running(program, tools, case.mode) as filter_, held(tools, filter_, case.idle):
            send(tools, filter_, case, max(case.total // 10, case.connections))
            counted = way(tools, filter_, case)
        if counted:
            calls, found = counted
            return {"calls": calls / case.total, "calls_per_packet": calls / found["packets_sent"]}
    return {}


# -------------------------------------------------------------------------------------- memory


def growth(program: Program, tools: Tools, case: Case, effort: Effort) -> dict[str, float]:
    """Resident memory after few and after many messages."""
    few, many = effort.growth
    with running(program, tools, case.mode) as filter_:
        send(tools, filter_, case, few)
        before = filter_.rss()
        send(tools, filter_, case, many - few)
        after = filter_.rss()
    return {
        "rss_before": before / MIB,
        "rss_after": after / MIB,
        "growth": (after - before) / MIB,
    }


def idle(program: Program, tools: Tools, effort: Effort) -> dict[str, float]:
    """Resident memory without and with many idle connections. A few that came and went before
    have made what is made once. Each has greeted, so that the filter's own object is there."""
    with running(program, tools, "every") as filter_:
        with held(tools, filter_, 64):
            pass
        before = filter_.rss()
        with held(tools, filter_, effort.idle):
            after = filter_.rss()
    return {
        "rss_before": before / MIB,
        "rss_after": after / MIB,
        "idle": (after - before) / 1024 / effort.idle,
    }
