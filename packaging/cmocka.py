"""cmocka 2 for the machines that `make cross` tests, from Debian's source package.

Usage: cmocka.py TARGET builds it with the compiler of packaging/cross/TARGET.ini into
build/cross/cmocka-TARGET, if it is not there yet. No library for another machine is installed, and
the system's configuration of apt stays as it is: this has a configuration and lists of packages of
its own. Needs apt, cmake and the network; fails with a line that says what went wrong.
"""

import ast
import configparser
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "cross"
SOURCES = (
    "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    " http://deb.debian.org/debian testing main\n"
)


class Failure(Exception):
    """What went wrong, in a line."""


def run(*command: str, folder: Path, **env: str) -> None:
    """Runs a command; shows what it says only if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except OSError as error:
        raise Failure(f"cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise Failure(f"{done.stdout}{' '.join(command)}: exit status {done.returncode}")


def source() -> Path:
    """The folder with the sources, which are downloaded if need be."""
    if found := [path for path in BUILD.glob("source/cmocka-2*") if path.is_dir()]:
        return found[0]
    apt = BUILD / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(SOURCES)
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}";\nDir::State::status "{apt}/status";\nDir::Cache "{apt}/cache";\n'
        f'Dir::Etc::sourcelist "{apt}/sources.list";\nDir::Etc::sourceparts "-";\n'
        'APT::Sandbox::User "root";\n'
    )
    for command in (["update", "--error-on=any"], ["source", "--download-only", "cmocka"]):
        run("apt-get", "-qq", *command, folder=apt, APT_CONFIG=str(apt / "apt.conf"))
    for archive in apt.glob("cmocka_*.orig.tar.*z"):
        (BUILD / "source").mkdir(exist_ok=True)
        run("tar", "-xf", str(archive), folder=BUILD / "source")
    for path in BUILD.glob("source/cmocka-2*"):
        return path
    raise Failure("Debian's package cmocka has no sources of version 2")


def build(target: str) -> None:
    """Builds it for a target, as a static library."""
    prefix = BUILD / f"cmocka-{target}"
    if (prefix / "lib/pkgconfig/cmocka.pc").exists():
        return
    description = configparser.ConfigParser()
    description.read(HERE / "cross" / f"{target}.ini")
    compiler = ast.literal_eval(description["binaries"]["c"])
    print(f"building cmocka for {target}", flush=True)
    objects = BUILD / f"cmocka-{target}-objects"
    settings = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_C_COMPILER": compiler,
        "CMAKE_INSTALL_PREFIX": str(prefix),
        "CMAKE_INSTALL_LIBDIR": "lib",
        "BUILD_SHARED_LIBS": "OFF",
        "WITH_EXAMPLES": "OFF",
    }
    options = [f"-D{name}={value}" for name, value in settings.items()]
    run("cmake", "-S", str(source()), "-B", str(objects), *options, folder=BUILD)
    run("cmake", "--build", str(objects), "--target", "install", folder=BUILD)


def main(arguments: list[str]) -> int:
    """Does what the text at the top says; returns the exit status."""
    BUILD.mkdir(parents=True, exist_ok=True)
    try:
        for target in arguments:
            build(target)
    except Failure as failure:
        print(f"no cmocka 2: {failure}", file=sys.stderr)
        return 1
    return 0


sys.exit(main(sys.argv[1:]))
