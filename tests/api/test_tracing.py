"""What looks into threads sees callbacks: coverage, profilers, debuggers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .mta import DEADLINE
from .test_server_life import TESTS, run_python

PROGRAM = """
    import socket, sys, threading, Milter
    sys.path.insert(0, {tests!r})
    from api.mta import Mta
    class Filter(Milter.Base):
        def hello(self, name):
            return Milter.REJECT
    seen = set()
    def look(frame, event, argument):
        seen.add(frame.f_code.co_name)
    {set}
    with Milter.Server(Filter, None) as server:
        ours, theirs = socket.socketpair()
        server.adopt(ours)
        with Mta(theirs) as mta:
            mta.negotiate()
            assert mta.helo() == "r"
    {unset}
    assert {expected}, seen
    """


@pytest.mark.parametrize("which", ["settrace", "setprofile"])
def test_functions_for_threads(which: str) -> None:
    source = PROGRAM.format(
        tests=TESTS,
        set=f"threading.{which}(look)",
        unset=f"threading.{which}(None)",
        expected="'hello' in seen",
    )
    run_python(source)


def test_without_them_nothing_is_traced() -> None:
    """A function for one thread is not one for others."""
    source = PROGRAM.format(
        tests=TESTS, set="sys.setprofile(look)", unset="", expected="'hello' not in seen"
    )
    run_python(source)


def test_a_function_that_cannot_be_had() -> None:
    """The callback runs none the less."""
    source = PROGRAM.format(
        tests=TESTS,
        set="threading.gettrace = None; sys.unraisablehook = lambda _: seen.add('told')",
        unset="",
        expected="'told' in seen",
    )
    run_python(source)


def test_coverage_of_callbacks(tmp_path: Path) -> None:
    """`coverage run -m pytest` counts the lines of callbacks that ran, and no others."""
    (tmp_path / "words.py").write_text(
        "import Milter\n"
        "class Filter(Milter.Base):\n"
        "    def envfrom(self, sender, *params):\n"
        "        if sender == '<bad@a>':\n"
        "            return Milter.REJECT\n"
        "        return Milter.CONTINUE\n"
    )
    (tmp_path / "test_words.py").write_text(
        "from Milter.testing import MTA\n"
        "from words import Filter\n"
        "def test_it():\n"
        "    with MTA(Filter) as mta:\n"
        "        assert mta.send(b'Subject: x\\n\\n', sender='good@a').verdict == 'accepted'\n"
    )
    coverage = [sys.executable, "-m", "coverage"]
    for command in (["run", "--include=words.py", "-m", "pytest", "-q"], ["json", "-o", "report"]):
        done = subprocess.run(
            coverage + command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report").read_text())["files"]["words.py"]
    assert report["executed_lines"] == [1, 2, 3, 4, 6]
    assert report["missing_lines"] == [5]
