"""Set-up of the benchmark: system packages, a venv with our package, the programs in C, the peers.

Ours lives in a venv that cannot see the system's packages; python3-milter is seen by the bare
interpreter. So neither can stand in for the other; `measure` checks it at each start.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import peers
from cases import Program
from shell import BenchError, run, succeeds

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
BUILD_TOOLS = ("meson-python>=0.17", "meson>=1.1", "ninja")


@dataclass(frozen=True)
class Tools:
    """Where everything is."""

    c: Path  # folder of the programs in C
    libmilter: Path  # folder of our libmilter
    venv: Path
    ours_python: Path
    peer_python: Path
    has_peer: bool
    registry: dict[str, peers.Peer]  # by the names of their folders

    def missing(self, program: Program) -> str:
        """Returns why a program cannot run here, or an empty text."""
        if program.side == "peer" and not self.has_peer:
            return f"python3-milter is not there for {self.peer_python}"
        if program.side == "c" and not (self.c / program.made_by).exists():
            return f"{program.made_by} was not built"
        if program.side == "registry":
            return self.registry[program.made_by].reason
        return ""


def install_packages(python: Path, programs: list[Program]) -> None:
    """Installs what the table of packaging/needs.py names, as root; else it says what is missing,
    and this fails if that is indispensable."""
    groups = ["build", "bench"]
    if any(program.side == "registry" for program in programs):
        groups.append("peers")
    if subprocess.call((python, ROOT / "packaging/needs.py", *groups)):
        raise BenchError("something that the benchmark needs is missing, see above")


def make_venv(python: Path, work: Path, log: Path) -> Path:
    """Makes the venv for `python`, with the tools to build; one that is there is used again."""
    tag = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.check_output((python, "-I", "-c", tag), text=True).strip()
    venv = work / f"venv-{version}"
    if (venv / "bin/python").resolve() != python.resolve():
        run(python, "-m", "venv", "--clear", venv, log=log)
    if not (venv / "bin/meson").exists():
        run(venv / "bin/pip", "install", *BUILD_TOOLS, log=log)
    return venv


def build_c(venv: Path, source: Path, build: Path, log: Path) -> None:
    """Builds a tree's libraries, load generator and filters in C, optimised, in the folder
    `build`."""
    meson = venv / "bin/meson"
    if not (build / "build.ninja").exists():
        options = ("-Dpython=false", "-Dbench=true", "--buildtype=release")
        run(meson, "setup", build, source, *options, log=log)
    ninja = str(venv / "bin/ninja")
    run("env", f"NINJA={ninja}", meson, "compile", "-C", build, log=log)


def install_ours(venv: Path, source: Path, work: Path, log: Path) -> None:
    """Builds the package of a tree in release mode and installs it into the venv."""
    path = f"PATH={venv / 'bin'}:{os.environ['PATH']}"
    options = (
        "--no-build-isolation",
        "--no-deps",
        f"--config-settings=build-dir={work / venv.name}-build",
    )
    run("env", path, venv / "bin/pip", "install", *options, source, log=log)


def prepare(python: Path, work: Path, source: Path, programs: list[Program]) -> Tools:
    """Does all set-up below `work` for the programs that are wanted. The library that is measured
    as ours is that of the tree `source`; the load generator and the filters are always those beside
    this file. Raises BenchError with what to do when something is missing."""
    if not (source / "pyproject.toml").exists():
        raise BenchError(f"{source} is not a source tree of Milterkit: it has no pyproject.toml")
    work.mkdir(parents=True, exist_ok=True)
    log = work / "setup.log"
    log.unlink(missing_ok=True)
    install_packages(python, programs)
    print(f"building in {work} ...", flush=True)
    venv = make_venv(python, work, log)
    ours = work / "c"
    built = ours if source == ROOT else work / "bench-c"
    build_c(venv, source, ours, log)
    if built != ours:
        build_c(venv, ROOT, built, log)
    if any(program.side == "ours" for program in programs):
        install_ours(venv, source, work, log)
    folders = [program.made_by for program in programs if program.side == "registry"]
    return Tools(
        c=built / "bench",
        libmilter=ours / "src/libmilter",
        venv=venv,
        ours_python=venv / "bin/python",
        peer_python=python,
        has_peer=succeeds(python, "-I", "-c", "import Milter, milter"),
        registry={folder: peers.get(folder, python, work, log) for folder in folders},
    )
