"""docs/systemd.md and docs/cores.md: systemd takes the units as the pages show them, and the filter
serves sockets that it was handed."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from Milter.testing import MTA

DOCS = Path(__file__).parents[2] / "docs"
MILTERKIT = Path(sys.executable).parent / "milterkit"
FILTER = """
import os
import Milter

class Filter(Milter.Base):
    def eom(self):
        self.addheader("X-Process", str(os.getpid()))
        return Milter.CONTINUE
"""


def units(page: str) -> dict[str, str]:
    """The units of a page by their names; without one: lines for an earlier one."""
    return dict(
        re.findall(r"^```ini(?: (\S+))?\n(.*?)^```$", (DOCS / page).read_text(), re.M | re.S)
    )


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def filter_py(tmp_path: Path) -> Path:
    path = tmp_path / "filter.py"
    path.write_text(FILTER)
    return path


def verified(folder: Path, files: dict[str, str]) -> str:
    """What systemd says of units; nothing if they are right."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    for name, text in files.items():
        (folder / name).write_text(text.replace("/opt/filter/venv/bin/milterkit", str(MILTERKIT)))
    paths = [folder / name.replace("@", "@1") for name in files]
    for path, name in zip(paths, files, strict=True):
        if path.name != name:
            path.symlink_to(name)
    command = [program, "verify", "--man=no", "--recursive-errors=no", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = done.stdout + done.stderr
    return told or ("" if done.returncode == 0 else f"exit status {done.returncode}")


def test_the_service(tmp_path: Path) -> None:
    assert verified(tmp_path, {"filter.service": units("systemd.md")["filter.service"]}) == ""


def with_socket() -> dict[str, str]:
    """The service and its socket."""
    found = units("systemd.md")
    service = re.sub(r"ExecStart=.*\n", found.pop(""), found["filter.service"])
    return {**found, "filter.service": re.sub(r"Runtime.*\n", "", service)}


def test_the_socket(tmp_path: Path) -> None:
    assert verified(tmp_path, with_socket()) == ""


def test_several_processes(tmp_path: Path) -> None:
    text = units("systemd.md")["filter.socket"]
    line = "Service=filter@1.service"
    assert f"`{line}` below `[Socket]`" in (DOCS / "cores.md").read_text()
    text = text.replace("[Socket]\n", f"[Socket]\n{line}\n")
    assert verified(tmp_path, {"filter.socket": text, **units("cores.md")}) == ""


def test_a_unit_that_is_wrong(tmp_path: Path) -> None:
    text = units("systemd.md")["filter.service"].replace("LimitNOFILE", "LimitNOFILES")
    assert "LimitNOFILES" in verified(tmp_path, {"filter.service": text})


def test_a_socket_that_is_handed_over(tmp_path: Path, filter_py: Path) -> None:
    """As systemd starts the service with the first connection; the socket outlives the filter."""
    activate = shutil.which("systemd-socket-activate")
    if activate is None:
        pytest.skip("systemd-socket-activate is not installed")
    path = tmp_path / "filter.sock"
    start = re.findall(r"ExecStart=(.*)", with_socket()["filter.service"])[0]
    start = start.replace("/opt/filter/venv/bin/milterkit", str(MILTERKIT))
    command = [
        activate,
        "-l",
        str(path),
        *start.replace("/opt/filter/filter.py", str(filter_py)).split(),
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for(path.exists)
        with MTA(f"unix:{path}") as mta:
            assert (
                f"X-Process: {process.pid}\n".encode()
                in mta.send(b"Subject: hello\n\nhi\n").message
            )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert path.exists()
    finally:
        process.kill()
        process.wait()


def test_processes_share_a_socket(tmp_path: Path, filter_py: Path) -> None:
    """Each serves connections of it; when one ends the others go on."""
    path = tmp_path / "filter.sock"
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        command = [MILTERKIT, "run", filter_py, "--socket", f"fd:{listener.fileno()}"]
        processes = []
        for number in range(2):
            log = tmp_path / f"log{number}"
            with log.open("wb") as file:
                each = subprocess.Popen(
                    command, pass_fds=[listener.fileno()], stdout=file, stderr=file
                )
            stack.callback(each.wait)
            stack.callback(each.kill)
            processes.append(each)
            wait_for(lambda log=log: " serving " in log.read_text())
        seen: set[int] = set()

        def ask() -> int:
            with MTA(f"unix:{path}") as mta:
                message = mta.send(b"Subject: hello\n\nhi\n").message
            seen.add(int(re.findall(rb"X-Process: (\d+)", message)[0]))
            return len(seen)

        wait_for(lambda: ask() == 2)
        assert seen == {each.pid for each in processes}
        processes[0].terminate()
        assert processes[0].wait(30) == 0
        assert path.exists()
        seen.clear()
        for _ in range(10):
            ask()
        assert seen == {processes[1].pid}
