"""Programs of others, unchanged, say the same on Debian's libmilter and on ours."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from Milter.testing.recording import Recorder
from Milter.testing.replaying import replay
from Milter.testing.spec import connect
from Milter.testing.transcript import parse
from mta import Mta, wait_for
from postfix import Postfix
from programs import BUILD, PROGRAMS, Program

MILTERTEST = BUILD / "miltertest" / "usr" / "bin" / "miltertest"
# Another build of it can be tried, for example one with sanitizers.
OURS = Path(os.environ.get("MILTERKIT_LIBMILTER", BUILD / "libmilter" / "src" / "libmilter"))
LIBRARIES = {"debian": None, "ours": OURS}


@dataclass
class Run:
    """What one run of a program gave."""

    libraries: list[str]  # the files of libmilter in the running process
    scripts: dict[str, tuple[int, str]]  # exit code and output by the script's name
    became: dict[str, str]
    exit_code: int
    stderr: str


@pytest.fixture(scope="session")
def postfix() -> Iterator[Mta]:
    """One private Postfix for all programs."""
    if why := Postfix.missing():
        pytest.skip(why)
    with Postfix() as running:
        yield running


def answers(where: Path) -> bool:
    """Whether a unix socket takes connections."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(where)) == 0


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


@contextmanager
def running(
    program: Program, library: Path | None, folder: Path, where: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that serves on a unix socket, on a library; None is the system's own."""
    where.unlink(missing_ok=True)
    arguments = program.configure(folder, where)
    env = {**os.environ, "LD_LIBRARY_PATH": str(library or "")}
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [program.path, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            umask=0,
        )
    try:
        wait_for("the program to answer", lambda: answers(where) or process.poll() is not None)
        assert process.poll() is None, (folder / "stderr").read_text(errors="replace")
        yield process
    finally:
        process.kill()
        process.wait()


def run(program: Program, library: Path | None, folder: Path, postfix: Mta) -> Run:
    """Runs all there is for a program on a library."""
    where = postfix.one
    with running(program, library, folder, where) as process:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        libraries = sorted(set(re.findall(r"\S*/libmilter\.so\S*", maps)))
        scripts = {path.name: script(path, where) for path in program.scripts()}
        became = program.messages(postfix, "unix")
        process.send_signal(signal.SIGTERM)
        exit_code = process.wait(30)
    said = (folder / "stderr").read_text(errors="replace")
    return Run(libraries, scripts, became, exit_code, said)


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda program: program.name)
def program(request: pytest.FixtureRequest) -> Program:
    """Each program in turn."""
    found: Program = request.param
    for path in (found.path, MILTERTEST, OURS / "libmilter.so.1.0.1"):
        if not path.exists():
            pytest.skip(f"there is no {path}")
    return found


@pytest.fixture(scope="module")
def runs(
    program: Program, postfix: Mta, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Run]:
    """Its runs by the library's name."""
    return {
        name: run(program, library, tmp_path_factory.mktemp(f"{program.name}-{name}"), postfix)
        for name, library in LIBRARIES.items()
    }


def test_library(runs: dict[str, Run]) -> None:
    """Each run was on the library that it is called after."""
    assert runs["ours"].libraries == [str(OURS / "libmilter.so.1.0.1")]
    assert len(runs["debian"].libraries) == 1
    assert runs["debian"].libraries != runs["ours"].libraries


def test_scripts(program: Program, runs: dict[str, Run]) -> None:
    assert program.scripts()
    for name, (code, output) in runs["debian"].scripts.items():
        assert code == 0, output
        for expected in program.scripted:
            assert re.search(expected, output), (expected, output)
        ours = runs["ours"].scripts[name]
        alike = [program.varying.sub("*", each) for each in (output, ours[1])]
        assert ours[0] == code, ours[1]
        assert alike[1] == alike[0]


def test_messages(program: Program, runs: dict[str, Run]) -> None:
    assert runs["debian"].became.keys() == program.became.keys()
    for name, became in runs["debian"].became.items():
        assert re.search(program.became[name], became), became
        alike = [program.varying.sub("*", each) for each in (became, runs["ours"].became[name])]
        assert alike[1] == alike[0]


def test_end(runs: dict[str, Run]) -> None:
    """By SIGTERM, with the same exit code and the same words."""
    assert runs["debian"].exit_code == 0
    assert runs["ours"].exit_code == 0
    assert runs["ours"].stderr == runs["debian"].stderr


def test_recorded_and_replayed(program: Program, postfix: Mta, tmp_path: Path) -> None:
    """What passed between Postfix and the program is answered the same when it is played to it
    again, but for what varies; and otherwise where it is told something else."""
    folder = tmp_path / "recorded"
    socket_ = postfix.two
    with running(program, None, tmp_path, socket_):
        with Recorder(f"unix:{postfix.one}", f"unix:{socket_}", folder, mode=0o777):
            assert program.messages(postfix, "unix").keys() == program.became.keys()
        texts = [path.read_text() for path in sorted(folder.iterdir())]
        assert len(texts) >= len(program.became)

        def differences(text: str) -> list[str]:
            [transcript] = parse(text)
            return list(map(str, replay(transcript, connect(f"unix:{socket_}", 30), program.now)))

        assert [differences(text) for text in texts] == [[] for _ in texts]
        changed = [text.replace("example.test", "elsewhere.test") for text in texts]
        assert any(map(differences, changed))
