"""Set-up of the benchmark: system packages, a venv with our package, the programs in C.

Ours lives in a venv that cannot see the system's packages; the peer is seen by the bare
interpreter. So neither can stand in for the other; `measure` checks it at each start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cases import Program

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
BUILD_TOOLS = ("meson-python>=0.17", "meson>=1.1", "ninja")


class BenchError(Exception):
    """Something that the benchmark needs failed; the text says what and what to do."""


@dataclass(frozen=True)
class Tools:
    """Where everything is."""

    c: Path  # folder of the programs in C
    libmilter: Path  # folder of our libmilter
    venv: Path
    ours_python: Path
    peer_python: Path
    has_peer: bool

    def missing(self, program: Program) -> str:
        """Returns why a program cannot run here, or an empty text."""
        if program.side == "peer" and not self.has_peer:
            return f"python3-milter is not there for {self.peer_python}"
        if program.side == "c" and not (self.c / program.executable).exists():
            return f"{program.executable} was not built"
        return ""


def run(*command: str | Path, log: Path) -> None:
    """Runs a command; its output goes to `log`, whose end is shown if it fails."""
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(map(str, command))}\n".encode())
        output.flush()
        status = subprocess.call(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        raise BenchError(f"{command[0]} failed with status {status}; all of it is in {log}\n{tail}")


def succeeds(*command: str | Path) -> bool:
    """Whether a command ends with status 0."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def missing_packages(python: Path) -> dict[str, bool]:
    """Returns Debian packages that are missing, and whether nothing works without them."""
    header = "import os, sysconfig; p = sysconfig.get_path('include'); os.stat(p + '/Python.h')"
    checks = {
        "gcc": (shutil.which("cc") is not None, True),
        "python3-dev": (succeeds(python, "-c", header), True),
        "python3-venv": (succeeds(python, "-c", "import venv, ensurepip"), True),
        "python3-milter": (succeeds(python, "-I", "-c", "import Milter, milter"), False),
        "libmilter-dev": (Path("/usr/include/libmilter/mfapi.h").exists(), False),
        "strace": (shutil.which("perf") is not None or shutil.which("strace") is not None, False),
    }
    return {name: needed for name, (there, needed) in checks.items() if not there}


def install_packages(python: Path, log: Path) -> None:
    """Installs what is missing with apt as root; else says what to install, and goes on without
    what is not indispensable."""
    missing = missing_packages(python)
    if not missing:
        return
    command = f"apt-get install -y {' '.join(missing)}"
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing: {command}", flush=True)
        environment = ("env", "DEBIAN_FRONTEND=noninteractive")
        run(*environment, "apt-get", "update", log=log)
        run(*environment, "apt-get", "install", "-y", *missing, log=log)
        missing = missing_packages(python)
    if any(missing.values()):
        raise BenchError(f"missing: {' '.join(missing)}. As root: {command}")
    if missing:
        print(f"left out, for want of {' '.join(missing)} ({command})", flush=True)


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


def build_c(venv: Path, work: Path, log: Path) -> Path:
    """Builds our libraries, the load generator and the filters in C, optimised. Returns where."""
    build = work / "c"
    meson = venv / "bin/meson"
    if not (build / "build.ninja").exists():
        options = ("-Dpython=false", "-Dbench=true", "--buildtype=release")
        run(meson, "setup", build, ROOT, *options, log=log)
    ninja = str(venv / "bin/ninja")
    run("env", f"NINJA={ninja}", meson, "compile", "-C", build, log=log)
    return build


def install_ours(venv: Path, work: Path, log: Path) -> None:
    """Builds our package in release mode and installs it into the venv."""
    path = f"PATH={venv / 'bin'}:{os.environ['PATH']}"
    options = (
        "--no-build-isolation",
        "--no-deps",
        f"--config-settings=build-dir={work / venv.name}-build",
    )
    run("env", path, venv / "bin/pip", "install", *options, ROOT, log=log)


def prepare(peer_python: Path, work: Path, needs_ours: bool) -> Tools:
    """Does all set-up below `work`. Raises BenchError with what to do when something is missing."""
    work.mkdir(parents=True, exist_ok=True)
    log = work / "setup.log"
    log.unlink(missing_ok=True)
    install_packages(peer_python, log)
    print(f"building in {work} ...", flush=True)
    venv = make_venv(peer_python, work, log)
    built = build_c(venv, work, log)
    if needs_ours:
        install_ours(venv, work, log)
    has_peer = succeeds(peer_python, "-I", "-c", "import Milter, milter")
    return Tools(
        built / "bench",
        built / "src/libmilter",
        venv,
        venv / "bin/python",
        peer_python,
        has_peer,
    )
