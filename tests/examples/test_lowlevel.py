"""examples/lowlevel.py: as a class, as `milterkit run` serves it, and as the program that it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from Milter.cli.load import load_filter
from Milter.testing import MTA, AddHeader

FILE = Path(__file__).parents[2] / "examples" / "lowlevel.py"
MESSAGE = b"Subject: hello\n\nhow are you?\n"
#: Runs it as a program, but on a socket of the test, which exists before it says so.
PROGRAM = f"""
import runpy
import milter
setconn, main = milter.setconn, milter.main
def serve():
    milter.opensocket(True)
    print("ready", flush=True)
    main()
milter.setconn = lambda spec: setconn("unix:socket")
milter.main = serve
runpy.run_path({str(FILE)!r}, run_name="__main__")
"""


@pytest.fixture(params=["class", "program"])
def mta(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MTA]:
    if request.param == "class":
        with MTA(load_filter(str(FILE))) as mta:
            yield mta
        return
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            with MTA(tmp_path / "socket") as mta:
                yield mta
        finally:
            process.terminate()
    assert process.returncode == 0


def test_it_notes_what_came(mta: MTA) -> None:
    for rcpts in (["b@d", "c@d"], ["b@d"]):
        result = mta.send(MESSAGE, rcpts=rcpts)
        expected = AddHeader("X-Seen", f"{len(rcpts)} recipients, 14 bytes")
        assert result.changes == (expected,)


def test_it_refuses_our_own_name(mta: MTA) -> None:
    result = mta.send(MESSAGE, helo="Mail.Example.ORG")
    assert (result.code, result.enhanced) == (550, "5.7.1")
    assert mta.send(MESSAGE, helo="mail.example.net").verdict == "accepted"


def test_it_asks_for_no_more_than_it_needs(mta: MTA) -> None:
    with mta.session() as session:
        offer = session.negotiated
        assert offer is not None
        assert (offer.version, offer.actions) == (6, 0x1)
        # No DATA, headers, end of headers and unknown commands; SKIP.
        assert offer.protocol == 0x200 | 0x20 | 0x40 | 0x100 | 0x400
