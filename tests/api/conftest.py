"""Starts filter programs under an implementation: the older package from Debian (the oracle), ours
by the low-level functions, ours by Milter.runmilter. What the tests compare is what the programs
saw and the bytes that they sent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import Milter
import pytest

from .mta import DEADLINE, Mta

HERE = Path(__file__).parent
ORACLE_PYTHON = os.environ.get("MILTERKIT_ORACLE_PYTHON", "/usr/bin/python3")
ORACLE_INSTALL = "apt-get install python3-milter"


@cache
def oracle_is_there() -> bool:
    """Whether the older package can be run, and it is that and not ours."""
    check = "import Milter, sys; sys.exit(hasattr(Milter, 'Server'))"
    try:
        return subprocess.run([ORACLE_PYTHON, "-c", check], check=False).returncode == 0
    except OSError:
        return False


def need(implementation: str) -> None:
    """Skips, where that is allowed, what cannot be run here."""
    if implementation == "oracle" and not oracle_is_there():
        text = f"the older package is not installed: {ORACLE_INSTALL}"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)


def _decoded(pair: dict[str, Any]) -> Any:
    ((kind, value),) = pair.items()
    if kind == "bytes":
        return value.encode("latin-1")
    if kind == "tuple":
        return tuple(value)
    if kind == "dict":
        return {key: item for key, item in value}  # noqa: C416 (keys are lists of two)
    return f"<{value}>"


@dataclass
class Program:
    """A filter program that runs, and what it has written down."""

    process: subprocess.Popen[bytes]
    folder: Path
    ours: bool
    tracebacks: bool = False
    forks: bool = False  # the process that was started ends at once, a child of it serves
    connections: list[Mta] = field(default_factory=list)

    @property
    def socket(self) -> str:
        return str(self.folder / "socket")

    def connect(self, suffix: str = "") -> Mta:
        """Connects as soon as the program listens on its socket (or one with a longer name)."""
        return self.keep(self.until(lambda: Mta.unix(self.socket + suffix), OSError))

    def keep(self, mta: Mta) -> Mta:
        self.connections.append(mta)
        return mta

    def until(self, look: Callable[[], Any], *errors: type[Exception]) -> Any:
        """Calls `look` until it gives something true, for as long as the program runs."""
        end = time.monotonic() + DEADLINE
        while True:
            running = self.forks or self.process.poll() is None
            try:
                found = look()
            except errors:
                found = None
            if found:
                return found
            if not running or time.monotonic() > end:
                raise AssertionError(
                    f"program {'hangs' if running else 'ended'}; it saw {self.seen()}\n"
                    f"{self.output()}"
                )
            time.sleep(0.01)

    def seen(self) -> list[tuple[Any, ...]]:
        """What the program has written down so far."""
        path = self.folder / "record"
        text = path.read_text() if path.exists() else ""
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [json.loads(line, object_hook=_decoded) for line in lines]

    def steps(self) -> list[str]:
        """The names of what was seen."""
        return [what[0] for what in self.seen()]

    def await_steps(self, *steps: str) -> list[tuple[Any, ...]]:
        """Waits until the program has seen exactly these steps; returns them with arguments."""
        self.until(lambda: len(self.steps()) >= len(steps))
        assert self.steps() == list(steps)
        return self.seen()

    def await_step(self, step: str, count: int = 1) -> list[tuple[Any, ...]]:
        """Waits until a step was seen `count` times; returns these."""
        self.until(lambda: self.steps().count(step) >= count)
        return [what for what in self.seen() if what[0] == step]

    def await_lines(self, count: int) -> None:
        """Waits until the program has written so many lines."""
        self.until(lambda: len(self.seen()) >= count)

    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def wait(self) -> int:
        """The exit status of a program that ends by itself."""
        return self.process.wait(DEADLINE)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def finish(self) -> None:
        for mta in self.connections:
            mta.close()
        try:
            if self.ours and self.process.poll() is None:
                self.signal(signal.SIGTERM)
                assert self.wait() in (0, -signal.SIGTERM), self.output()
            if self.ours and not self.tracebacks:
                assert "Traceback" not in self.output(), self.output()
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody of its group is left
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


Start = Callable[..., Program]


def start_program(
    implementation: str,
    folder: Path,
    source: str,
    *args: str,
    tracebacks: bool = False,
    forks: bool = False,
    under: Sequence[str] = (),
    **env: str,
) -> Program:
    """Runs a program's text, with all of `seen`, in a folder of its own: see run_program."""
    folder.mkdir(exist_ok=True)
    script = folder / "program.py"
    script.write_text("from seen import *\n" + textwrap.dedent(source))
    return run_program(
        implementation,
        folder,
        script,
        *args,
        tracebacks=tracebacks,
        forks=forks,
        under=under,
        **env,
    )


def run_program(
    implementation: str,
    folder: Path,
    script: Path,
    *args: str,
    tracebacks: bool = False,
    forks: bool = False,
    printed: str = "output",
    under: Sequence[str] = (),
    **env: str,
) -> Program:
    """Runs a program in a folder. `tracebacks`: it is to print some; `forks`: it puts itself into
    the background; `printed`: the file for what it prints, if not that of its errors; `under`: a
    command that runs it."""
    need(implementation)
    ours = implementation != "oracle"
    modules = [str(HERE / "filters")]
    if ours and "PYTHONPATH" in os.environ:  # where another build of ours is to be tested
        modules.append(os.environ["PYTHONPATH"])
    with (folder / "output").open("ab") as output, (folder / printed).open("ab") as standard:
        process = subprocess.Popen(
            [
                *under,
                sys.executable if ours else ORACLE_PYTHON,
                *(["-W", "error"] if ours else []),
                str(script),
                *args,
            ],
            cwd=folder,
            stdout=standard,
            stderr=output,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(modules),
                "PYTHONUNBUFFERED": "1",
                "RECORD": str(folder / "record"),
                "SOCKET": f"unix:{folder}/socket",
                "WAY": "lowlevel" if implementation == "ours-lowlevel" else "runmilter",
                **env,
            },
        )
    return Program(process, folder, ours, tracebacks, forks)


@pytest.fixture(params=["oracle", "ours-lowlevel", "ours-fast"])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(implementation: str, tmp_path: Path) -> Iterator[Start]:
    """Starts filter programs, and ends them after the test."""
    programs: list[Program] = []

    def begin(source: str, *args: str, **options: Any) -> Program:
        folder = tmp_path / str(len(programs))
        programs.append(start_program(implementation, folder, source, *args, **options))
        return programs[-1]

    yield begin
    for program in programs:
        program.finish()


@pytest.fixture
def free_port() -> int:
    """A TCP port that was free a moment ago, on IPv4 and IPv6."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(params=["oracle", "ours"])
def package(request: pytest.FixtureRequest) -> str:
    """An implementation, for what does not depend on the way in."""
    return str(request.param)


@pytest.fixture
def evaluate(package: str, tmp_path: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Runs a program that needs no MTA to its end; returns what it wrote down."""

    def run(source: str, **env: Any) -> list[tuple[Any, ...]]:
        program = start_program(package, tmp_path / "program", source, **env)
        status = program.wait()
        assert status == 0, program.output()
        return program.seen()

    return run


@pytest.fixture
def pair() -> Iterator[Callable[[Milter.Server], Mta]]:
    """Connects to servers by socket pairs, and closes them after the test."""
    made: list[Mta] = []

    def connect(server: Milter.Server) -> Mta:
        ours, theirs = socket.socketpair()
        made.append(Mta(theirs))
        with ours:  # which closes what was not adopted
            server.adopt(ours)
        return made[-1]

    yield connect
    for mta in made:
        mta.close()
