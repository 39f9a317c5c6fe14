"""What the Makefile's targets need from the system: checked, installed where possible, else told.

Usage: needs.py GROUP... checks these groups of the table below. As root with apt it installs what
is missing, and only that; what would be in the way if it were installed (a second mail server, a
daemon that starts) is unpacked below build/ instead. Elsewhere it says what is missing, what is
skipped for it, and the one command that installs it; it fails if nothing can be done without, or
if CI=true.
needs.py --has NAME succeeds if the need of that name is met.
To be run by the interpreter that the project is built for. Knows Debian and Ubuntu.
"""

import ast
import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CI = os.environ.get("CI") == "true"
DEBIAN_PYTHON = "/usr/bin/python3"
# Daemons live where not everybody's PATH leads.
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
BUILD = Path(__file__).resolve().parent.parent / "build"
# For packages that ask: so answered, Postfix configures and starts nothing.
ANSWERS = "postfix postfix/main_mailer_type select No configuration\n"


def output(*command: str, feed: str = "") -> str | None:
    """What a command prints, or None if it fails or does not exist."""
    try:
        done = subprocess.run(command, input=feed, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def program(*names: str) -> Callable[[], bool]:
    """A check for any one of some programs."""
    return lambda: any(shutil.which(name, path=PATH) for name in names)


def debian_python_runs(statements: str) -> Callable[[], bool]:
    """A check by statements for the distribution's own interpreter."""
    return lambda: output(DEBIAN_PYTHON, "-c", statements) is not None


def compiler() -> bool:
    """Whether C can be compiled, libc's headers included."""
    command = (os.environ.get("CC", "cc"), "-x", "c", "-fsyntax-only", "-")
    return output(*command, feed="#include <stdio.h>\n") is not None


def fuzzers() -> bool:
    """Whether there is a clang that can make fuzz targets."""
    clang = shutil.which("clang-14") or "clang"
    options = ("-fsanitize=fuzzer,address", "-x", "c", "-o", os.devnull, "-")
    source = "int LLVMFuzzerTestOneInput(const char *at, long size) { return !at && size; }\n"
    return output(clang, *options, feed=source) is not None


def own_venv() -> bool:
    """Whether this interpreter can make environments."""
    return all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))


def own_headers() -> bool:
    """Whether extensions can be built for this interpreter."""
    here = (sysconfig.get_path("include") + "/Python.h", sysconfig.get_config_h_filename())
    return all(Path(path).exists() for path in here)


def messages() -> bool:
    """Whether the standard library's test suite is there: this interpreter's or a system's."""
    folders = (Path(sysconfig.get_path("stdlib")), *Path("/usr").glob("lib*/python3*"))
    return any((folder / "test/test_email/data/msg_01.txt").exists() for folder in folders)


def plays(target: str) -> Callable[[], bool]:
    """A check for what compiles and runs programs for a target of `make cross`."""

    def check() -> bool:
        description = configparser.ConfigParser()
        description.read(Path(__file__).parent / "cross" / f"{target}.ini")
        found = {name: ast.literal_eval(text) for name, text in description["binaries"].items()}
        with tempfile.TemporaryDirectory() as folder:
            program = f"{folder}/program"
            source = '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n'
            compiled = output(found["c"], "-x", "c", "-o", program, "-", feed=source)
            return compiled is not None and (
                output(*found.get("exe_wrapper", []), program) is not None
            )

    return check


def unpacked(program: str) -> Callable[[], bool]:
    """A check for a program that was unpacked below build/, and for the libraries it links."""
    return lambda: "not found" not in (output("ldd", str(BUILD / program)) or "not found")


def versions() -> dict[str, str]:
    """What stands for the placeholders in names of packages: the version of the distribution's
    interpreter, and of this one (which is the distribution's too, or has no packages)."""
    show = "import sys; print(f'{sys.version_info[0]}.{sys.version_info[1]}')"
    return {
        "debian": (output(DEBIAN_PYTHON, "-c", show) or "3").strip(),
        "own": f"{sys.version_info[0]}.{sys.version_info[1]}",
    }


class Need(NamedTuple):
    """A row of the table. `without` tells what is skipped; empty: nothing can be done without.
    `apart` is the folder in build/ into which the packages are unpacked; empty: installed."""

    group: str
    name: str
    met: Callable[[], bool]
    packages: str
    without: str = ""
    apart: str = ""


def in_python(name: str, modules: str, packages: str) -> Need:
    """A row for a program of others, unpacked with its dependencies, by modules of each."""
    place = str(BUILD / name / "usr/lib/python3/dist-packages")
    check = f"import sys; sys.path.insert(0, {place!r}); import {modules}"
    return Need("test", name, debian_python_runs(check), packages, NO_PROGRAMS, name)


NO_UNIT = "the tests in C (tests/unit) are skipped"
NO_MTA = "the tests with a real Postfix (tests/mta) are skipped"
NO_SENDMAIL = "the tests with a real Sendmail (tests/mta) are skipped"
NO_PROGRAMS = "it is not run on ours (tests/programs)"
NO_OPENSSL = "opendkim and examples/dkim_sign.py are not tested"
NO_CROSS = "tests/unit are not run for"
NO_CORPUS = "the messages of the email package's tests are not sent through the MTAs"
LEFT_OUT = "is left out of the benchmark"
NO_ORACLE = "nothing is compared with the older package"

NEEDS = [
    Need("build", "a C compiler", compiler, "gcc libc6-dev"),
    Need("build", "venv", own_venv, "python{own}-venv"),
    Need("build", "Python.h", own_headers, "python{own}-dev"),
    Need("test", "pkg-config", program("pkg-config"), "pkg-config", NO_UNIT),
    Need(
        "test",
        "cmocka",
        lambda: output("pkg-config", "--exists", "cmocka") is not None,
        "libcmocka-dev",
        NO_UNIT,
    ),
    Need("test", "postfix", program("postfix"), "postfix", NO_MTA),
    Need("test", "root", lambda: os.geteuid() == 0, "", f"{NO_MTA}: run make as root"),
    Need("test", "m4", program("m4"), "m4", NO_SENDMAIL),
    Need(
        "test",
        "sendmail",
        unpacked("sendmail/usr/libexec/sendmail/sendmail"),
        "sendmail-bin sendmail-cf",
        NO_SENDMAIL,
        "sendmail",
    ),
    Need("test", "openssl", program("openssl"), "openssl", NO_OPENSSL),
    Need(
        "test",
        "opendkim",
        unpacked("opendkim/usr/sbin/opendkim"),
        "opendkim",
        NO_PROGRAMS,
        "opendkim",
    ),
    Need(
        "test",
        "miltertest",
        unpacked("miltertest/usr/bin/miltertest"),
        "miltertest",
        NO_PROGRAMS,
        "miltertest",
    ),
    in_python(
        "dkimpy-milter",
        "dkimpy_milter.config, dkim, authres, dns, nacl.signing",
        "dkimpy-milter python3-dkim python3-authres python3-dnspython python3-nacl"
        " python3-cffi-backend",
    ),
    in_python(
        "pyspf-milter",
        "spf_engine, spf, authres, dns",
        "pyspf-milter python3-spf-engine python3-spf python3-authres python3-dnspython",
    ),
    in_python("python3-srs", "SRS", "python3-srs"),
    Need(
        "test",
        "vrfydmn",
        (BUILD / "vrfydmn/usr/sbin/vrfydmn").exists,
        "vrfydmn",
        NO_PROGRAMS,
        "vrfydmn",
    ),
    Need(
        "test",
        "libmilter",
        Path("/usr/include/libmilter/mfapi.h").exists,
        "libmilter-dev binutils",
        "nothing is compared with Sendmail's libmilter",
    ),
    Need("test", "strace", program("strace"), "strace", "system calls are not counted"),
    Need(
        "test",
        "systemd",
        program("systemd-analyze"),
        "systemd",
        "the units in the documentation are not checked",
    ),
    Need("test", "messages", messages, "libpython{debian}-testsuite", NO_CORPUS),
    Need(
        "test",
        "python3-milter",
        debian_python_runs("import milter"),
        "python3-milter",
        NO_ORACLE,
    ),
    Need(
        "test",
        "dbm.gnu",
        debian_python_runs("import dbm.gnu, dbm.ndbm"),
        "python3-gdbm",
        "access maps of GNU dbm and Berkeley DB are not read",
    ),
    Need(
        "bench",
        "python3-milter",
        debian_python_runs("import milter"),
        "python3-milter",
        f"python3-milter {LEFT_OUT}",
    ),
    Need(
        "bench",
        "libmilter",
        Path("/usr/include/libmilter/mfapi.h").exists,
        "libmilter-dev",
        f"the filter in C on libmilter {LEFT_OUT}",
    ),
    Need("bench", "perf", program("perf", "strace"), "strace", "system calls are not counted"),
    Need("peers", "Go", program("go"), "golang-go", f"go-milter {LEFT_OUT}"),
    Need("peers", "Cargo", program("cargo"), "cargo", f"indymilter {LEFT_OUT}"),
    Need("docs", "graphviz", program("dot"), "graphviz", "the diagrams are shown as text"),
    Need("cross", "apt", program("apt-get"), "", f"{NO_CROSS} other machines"),
    Need("cross", "cmake", program("cmake"), "cmake", f"{NO_CROSS} other machines"),
    Need(
        "cross",
        "Debian's keys",
        Path("/usr/share/keyrings/debian-archive-keyring.gpg").exists,
        "debian-archive-keyring",
        f"{NO_CROSS} other machines",
    ),
    Need("cross", "musl", plays("musl"), "musl-tools", f"{NO_CROSS} musl"),
    Need(
        "cross",
        "i386",
        plays("i386"),
        "gcc-i686-linux-gnu libc6-dev-i386-cross",
        f"{NO_CROSS} 32 bits",
    ),
    Need(
        "cross",
        "s390x",
        plays("s390x"),
        "gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user",
        f"{NO_CROSS} big-endian numbers",
    ),
    Need("valgrind", "valgrind", program("valgrind"), "valgrind"),
    Need("fuzz", "clang with libFuzzer", fuzzers, "clang libclang-rt-dev"),
    Need("lint", "clang-format", program("clang-format-14", "clang-format"), "clang-format"),
    Need("lint", "clang-tidy", program("clang-tidy-14", "clang-tidy"), "clang-tidy"),
    Need("lint", "cppcheck", program("cppcheck"), "cppcheck"),
]


def packages_of(needs: list[Need]) -> list[str]:
    """The packages that meet some needs."""
    names = " ".join(need.packages for need in needs).format(**versions())
    return sorted(set(names.split()))


def apt_get(*arguments: str, folder: str | None = None) -> bool:
    """Runs apt-get without a question, and once more with fresh lists of packages if those at
    hand do not do; shows what it said only if it failed."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ("-qq", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root")
    wanted = ["apt-get", *options, *arguments]
    for command in (wanted, ["apt-get", *options, "update"], wanted):
        done = subprocess.run(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode == 0 and command is wanted:
            return True
    print(done.stdout)
    return False


def install(packages: list[str]) -> None:
    """Installs packages."""
    print("installing", *packages, flush=True)
    if "postfix" in packages:
        output("debconf-set-selections", feed=ANSWERS)
    apt_get("install", "--no-install-recommends", *packages)


def unpack(need: Need) -> None:
    """Unpacks a need's packages into its folder, and installs the libraries they depend on."""
    packages = packages_of([need])
    print("unpacking", *packages, "into", BUILD / need.apart, flush=True)
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        if not apt_get("download", *packages, folder=folder):
            return
        libraries = set()
        for file in Path(folder).glob("*.deb"):
            output("dpkg-deb", "-x", str(file), str(BUILD / need.apart))
            depends = output("dpkg-deb", "-f", str(file), "Depends") or ""
            names = (each.split()[0] for each in depends.split(","))
            libraries |= {name for name in names if name.startswith("lib")}
    apt_get("install", "--no-install-recommends", *sorted(libraries))


def main(arguments: list[str]) -> int:
    """Does what the text at the top says; returns the exit status."""
    if arguments[:1] == ["--has"]:
        return not all(need.met() for need in NEEDS if need.name in arguments[1:])

    missing = [need for need in NEEDS if need.group in arguments and not need.met()]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        if packages := packages_of([need for need in missing if not need.apart]):
            install(packages)
        for need in missing:
            if need.apart:
                unpack(need)
        missing = [need for need in missing if not need.met()]
    packages = packages_of([need for need in missing if not need.apart])
    for need in missing:
        print(f"missing: {need.name}: {need.without or 'nothing can be done without it'}")
    if packages and shutil.which("apt-get"):
        print("install it by: sudo", sys.executable, Path(__file__).resolve(), *arguments)
    elif packages:
        print("install it by your system's means; Debian's packages are:", *packages)
    return any(CI or not need.without for need in missing)


sys.exit(main(sys.argv[1:]))
