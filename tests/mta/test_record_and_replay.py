"""`milterkit record` between a real MTA and a filter, and `milterkit replay` of what it wrote."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from mta import Mta, wait_for

FILTER = """
import Milter


class Filter(Milter.Base):
    def envrcpt(self, rcpt, *params):
        if rcpt.startswith("<no"):
            self.setreply("550", "5.1.1", "nobody of that name")
            return Milter.REJECT
        return Milter.CONTINUE

    @Milter.noreply
    def header(self, name, value):
        self.subject = value
        return Milter.CONTINUE

    def eom(self):
        self.addheader("X-Seen", self.subject)
        return Milter.CONTINUE
"""
MESSAGE = b"Subject: number %d\r\n\r\n" + b"line\r\n" * 20000
MILTERKIT = (sys.executable, "-m", "Milter")


def start(stack: ExitStack, *arguments: str | Path) -> "subprocess.Popen[bytes]":
    """Starts a command of milterkit; it is killed at the latest when the stack ends."""
    process = subprocess.Popen([*MILTERKIT, *arguments], stdin=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def replay(folder: Path, file: Path) -> tuple[int, str]:
    """The exit status of `milterkit replay`, and what it prints."""
    done = subprocess.run(
        [*MILTERKIT, "replay", str(folder), "--to", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_record_and_replay(mta: Mta, tmp_path: Path) -> None:
    filter_, folder = tmp_path / "filter.py", tmp_path / "recorded"
    filter_.write_text(FILTER)
    with ExitStack() as stack:
        start(stack, "run", filter_, "--socket", f"unix:{mta.two}")
        recorder = start(
            stack, "record", folder, "--listen", f"unix:{mta.one}", "--to", f"unix:{mta.two}",
            "--mode", "777",
        )  # fmt: skip
        wait_for("both to listen", lambda: mta.one.exists() and mta.two.exists())

        def submit(number: int) -> str:
            return mta.submit(
                "unix", MESSAGE % number, rcpts=["<one@local.test>", "<no@local.test>"]
            )

        with ThreadPoolExecutor(4) as pool:
            ids = list(pool.map(submit, range(8)))
        for number, id_ in enumerate(ids):
            delivered = mta.delivered(id_)
            assert delivered.headers[-1] == f"X-Seen: number {number}"
            assert delivered.body == b"line\n" * 20000
        recorder.send_signal(signal.SIGTERM)
        assert recorder.wait(30) == 0
    assert not mta.one.exists()
    assert replay(folder, filter_) == (0, "8 sessions played, 0 answered otherwise\n")

    filter_.write_text(FILTER.replace("nobody of that name", "no such person"))
    status, said = replay(folder, filter_)
    assert status == 1
    lines = said.splitlines()
    assert lines[-1] == "8 sessions played, 8 answered otherwise"
    assert lines[1:4] == [
        "  @@ > RCPT <no@local.test>",
        "  -< REPLYCODE 550 5.1.1 nobody of that name",
        "  +< REPLYCODE 550 5.1.1 no such person",
    ]
    assert len(lines) == 8 * 4 + 1
