"""Programs of others, unchanged, do the same on Debian's library and on ours."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import in_c
import in_python
import pytest
from in_c import MILTERTEST, ProgramInC
from Milter.testing.recording import Recorder
from Milter.testing.replaying import replay
from Milter.testing.spec import connect
from Milter.testing.transcript import parse
from mta import Mta
from postfix import Postfix
from process import Running
from program import Outcome, Program, mta_for, through_postfix, through_testing

PROGRAMS: list[Program] = [*in_c.PROGRAMS, *in_python.PROGRAMS]
every = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
in_c_only = pytest.mark.parametrize("program", in_c.PROGRAMS, ids=lambda program: program.name)


@dataclass
class Run:
    """What one run of a program gave; it may still be about to end."""

    running: Running
    libraries: list[str]
    facts: dict[str, Any]
    became: dict[str, dict[str, Outcome]]  # by the way they went, and by name
    signalled: dict[signal.Signals, Running]  # others that got other signals than SIGTERM
    scripts: dict[str, tuple[int, str]] = field(default_factory=dict)  # exit code and output


def script(path: Path, where: Path) -> tuple[int, str]:
    """Runs one script for miltertest."""
    done = subprocess.run(
        [MILTERTEST, "-D", f"socket=local:{where}", "-s", path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape")


class Runs:
    """Runs programs on both libraries, each once, behind one private Postfix."""

    def __init__(self, postfix: Mta, stack: ExitStack) -> None:
        self.postfix, self.stack = postfix, stack
        self._runs: dict[str, tuple[Run, Run]] = {}
        self._folders = 0

    def start(self, program: Program, ours: bool) -> Running:
        """A program, in a folder of its own that Postfix reaches; it runs until its end, or that
        of the tests."""
        if why := program.missing():
            pytest.skip(why)
        self._folders += 1
        folder = self.postfix.one.parent / str(self._folders)
        return self.stack.enter_context(Running(program, ours, folder))

    def signalled(self, program: Program, ours: bool, number: signal.Signals) -> Running:
        """A program that has served, and then got a signal."""
        running = self.start(program, ours)
        with mta_for(running.socket) as mta:
            mta.send(b"\r\n")
        os.kill(running.pid, number)
        return running

    def _run(self, program: Program, ours: bool) -> Run:
        others = [number for number in program.signals if number != signal.SIGTERM]
        signalled = {number: self.signalled(program, ours, number) for number in others}
        running = self.start(program, ours)
        self.postfix.one.unlink(missing_ok=True)
        self.postfix.one.symlink_to(running.socket)
        with mta_for(running.socket) as mta:
            became = {
                "Milter.testing": program.messages(through_testing(mta)),
                "Postfix": program.messages(through_postfix(self.postfix, "unix")),
            }
        run = Run(running, running.libraries(), running.facts(), became, signalled)
        if isinstance(program, ProgramInC):
            run.scripts = {path.name: script(path, running.socket) for path in program.scripts()}
        os.kill(running.pid, signal.SIGTERM)
        return run

    def of(self, program: Program) -> tuple[Run, Run]:
        """Its runs on Debian's library and on ours."""
        if program.name not in self._runs:
            self._runs[program.name] = (self._run(program, False), self._run(program, True))
        return self._runs[program.name]


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    """For all programs."""
    if why := Postfix.missing():
        pytest.skip(why)
    with Postfix() as postfix, ExitStack() as stack:
        yield Runs(postfix, stack)


def alike(program: Program, *texts: str) -> list[str]:
    """Texts without what varies in them."""
    return [program.varying.sub("*", text) for text in texts]


@every
def test_library(program: Program, runs: Runs) -> None:
    """Each run was on the library that it is called after."""
    debian, ours = runs.of(program)
    for run, own in ((debian, False), (ours, True)):
        assert [program.own(name) for name in run.libraries] == [own]


@every
def test_facts(program: Program, runs: Runs) -> None:
    """User, umask, background, PID file, socket."""
    debian, ours = runs.of(program)
    assert ours.facts == debian.facts


@every
@pytest.mark.parametrize("way", ["Milter.testing", "Postfix"])
def test_messages(program: Program, runs: Runs, way: str) -> None:
    debian, ours = (run.became[way] for run in runs.of(program))
    assert debian.keys() == program.became.keys()
    for name, theirs in debian.items():
        assert re.search(program.became[name], theirs.text), (name, theirs.text)
        for text, own in ((theirs.text, ours[name].text), (theirs.trace, ours[name].trace)):
            expected, found = alike(program, text, own)
            assert found == expected, name


@in_c_only
def test_scripts(program: ProgramInC, runs: Runs) -> None:
    debian, ours = (run.scripts for run in runs.of(program))
    assert debian
    for name, (code, output) in debian.items():
        assert code == 0, output
        for expected in program.scripted:
            assert re.search(expected, output), (expected, output)
        assert ours[name][0] == code, ours[name][1]
        theirs, own = alike(program, output, ours[name][1])
        assert own == theirs


@in_c_only
def test_recorded_and_replayed(program: ProgramInC, runs: Runs, tmp_path: Path) -> None:
    """What passed between Postfix and the program is answered the same when it is played to it
    again, but for what varies; and otherwise where it is told something else."""
    running, postfix = runs.start(program, False), runs.postfix
    postfix.one.unlink(missing_ok=True)
    target = f"unix:{running.socket}"
    with Recorder(f"unix:{postfix.one}", target, tmp_path / "recorded", mode=0o777):
        assert program.messages(through_postfix(postfix, "unix")).keys() == program.became.keys()
    texts = [path.read_text() for path in sorted((tmp_path / "recorded").iterdir())]
    assert len(texts) >= len(program.became)

    def differences(text: str) -> list[str]:
        [transcript] = parse(text)
        return list(map(str, replay(transcript, connect(target, 30), program.now)))

    assert [differences(text) for text in texts] == [[] for _ in texts]
    changed = [text.replace("example.test", "elsewhere.test") for text in texts]
    assert any(map(differences, changed))


# What follows comes last: until then all programs have had the seconds that Debian's libraries
# take to end.


@every
def test_other_signals(program: Program, runs: Runs) -> None:
    """It ends by them, or goes on."""
    for at, run in enumerate(runs.of(program)):
        for number, running in run.signalled.items():
            code = program.signals[number][at]
            if code is not None:
                assert running.end() == code
                continue
            with mta_for(running.socket) as mta:
                became = program.messages(through_testing(mta))
            assert became.keys() == program.became.keys()


@every
def test_end(program: Program, runs: Runs) -> None:
    """By SIGTERM: the exit code, and what it wrote until then."""
    debian, ours = runs.of(program)
    codes = debian.running.end(), ours.running.end()
    assert codes == program.signals[signal.SIGTERM]
    theirs, own = alike(program, debian.running.said(), ours.running.said())
    if program.says is None:
        assert own == theirs
    else:
        assert re.search(program.says, own), own
