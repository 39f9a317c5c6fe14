"""`milterkit run` on functions given to `milter`: the same bytes as from milter.main()."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from Milter.cli import main
from Milter.testing import MTA

FILE = """
import sys
import milter

def told(step, result=milter.CONTINUE):
    def callback(ctx, *args):
        if step == "connect":
            assert ctx.getpriv() is None
            ctx.setpriv("mine")
        elif step != "negotiate":
            assert ctx.getpriv() == "mine", step
        with open("told", "a") as file:
            print(step, args, file=file)
        if step == "envrcpt" and args[0] == b"<raise@d>":
            raise RuntimeError("deliberate")
        if step == "eom":
            ctx.addheader("X-Seen", "yes")
            ctx.quarantine("allowed to those who negotiate themselves")
        return result
    return callback

for step in ("connect", "helo", "envfrom", "envrcpt", "header", "eoh", "body", "eom", "abort"):
    getattr(milter, f"set_{step}_callback")(told(step))
milter.set_close_callback(told("close"))
milter.set_flags(milter.ADDHDRS)
milter.set_exception_policy(milter.REJECT)
milter.register("functions", data=told("data"), unknown=told("unknown") MORE)

if __name__ == "__main__":
    milter.setconn("unix:socket")
    milter.opensocket(True)
    print(" serving ", file=sys.stderr, flush=True)
    milter.main()
"""
NEGOTIATE = ', negotiate=told("negotiate", milter.ALL_OPTS)'
COMMANDS = {
    "main": [sys.executable, "filter.py"],
    "run": [sys.executable, "-m", "Milter", "run", "filter.py", "--socket", "unix:socket",
            "--name", "functions"],
}  # fmt: skip


def session(folder: Path, command: Sequence[str], content: str) -> tuple[list[object], str]:
    """Sends to the filter; returns what passed, and what its functions were told."""
    folder.mkdir()
    (folder / "filter.py").write_text(content)
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            assert " serving " in process.stderr.readline()
            with MTA(folder / "socket", keep_bytes=True) as mta:
                first = mta.send(b"A: b\nC:\xff\n\nhi\n", "a@d", ["raise@d", "b\udce9@d"])
                with mta.session() as another:
                    another.mail("a@d")
                    another.unknown("WHAT?")
                    another.rcpt("b@d")
                    another.abort()
                passed = [first.passed, another.bytes, first.recipients]
        finally:
            process.terminate()
        log = process.stderr.read()
    assert process.returncode == 0
    assert "RuntimeError: deliberate" in log
    assert ("QUARANTINE was not negotiated" in log) == (NEGOTIATE not in content)
    return passed, (folder / "told").read_text()


@pytest.mark.parametrize("more", ["", NEGOTIATE], ids=["without negotiate", "with negotiate"])
def test_both_ways_are_the_same(tmp_path: Path, more: str) -> None:
    content = FILE.replace(" MORE", more)
    theirs, ours = (session(tmp_path / each, COMMANDS[each], content) for each in COMMANDS)
    assert ours == theirs
    assert all(f"{step} " in ours[1] for step in ("unknown", "data", "abort", "close"))


def test_send_to_such_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "adds.py"
    file.write_text(
        "import milter\n"
        "def eom(ctx):\n"
        "    ctx.addheader('X-Seen', 'yes')\n"
        "    return milter.CONTINUE\n"
        "milter.set_eom_callback(eom)\n"
    )
    message = tmp_path / "hello.eml"
    message.write_text("From: a@b\nTo: c@d\nSubject: hello\n\nhi\n")
    assert main(["send", "--to", str(file), str(message)]) == 0
    assert "add header X-Seen: yes" in capsys.readouterr().out
