"""Milter.greysql and Milter.greylist: times as in the older package; many threads and processes."""

from __future__ import annotations

import io
import re
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from Milter import greylist
from Milter.greysql import Greylist

from .oracle import agree

_WORK = """
import sys
from Milter.greysql import Greylist
grey = Greylist(sys.argv[1], grey_time=0)
for _ in range(50):
    grey.check("1.2.3.4", "a@b", "c@d")
grey.close()
"""
TIMES = [
    [0, 60, 599, 3600, 3700, 15100, 3110400, 3115400, 6912000],
    [0, 14399, 14402, 15000, 15700],
    [0, 14403, 14900, 15100],
    [0, 300, 590, 901, 1502, 1503],
]


def test_times_as_the_oracle() -> None:
    asked = [
        f"(lambda g: [g.check('1.2.3.4', 'f@b', 't@c', timeinc=t) for t in {times}]"
        " + [g.clean(), g.clean(40 * 86400), g.clean(200 * 86400), g.close()])"
        "(Greylist(':memory:'))"
        for times in TIMES
    ]
    agree("greysql", asked, {})


#: Triples by the seconds at which they were tried, and when clean is called.
HOUR, DAY = 3600, 86400
TRIPLES = [[0], [0, 300], [0, 700], [0, 700, 800], [0, 5 * HOUR], [0, 36 * DAY + 1], [20 * DAY]]
CLEANED = [5 * HOUR, 35 * DAY, 36 * DAY + 100, 36 * DAY + 1000, 37 * DAY, 57 * DAY, 73 * DAY]


def test_clean_as_the_oracle() -> None:
    """Confirmed or not, what was last seen before the retain time goes; nothing else does."""

    def check(times: str) -> str:
        return (
            f"[[g.check(str(n), 'f@b', 't@c', timeinc=t) for t in {times}]"
            f" for n, times in enumerate({TRIPLES})]"
        )

    asked = [
        f"(lambda g: ({check('times')}, g.clean({at}), {check(f'[{at}]')}, g.clean({at})"
        ", g.close()))"
        "(Greylist(':memory:'))"
        for at in CLEANED
    ]
    agree("greysql", asked, {})


def test_clean_leaves_what_waits() -> None:
    """A triple that was never confirmed stays until the retain time, and counts as new."""
    grey = Greylist(":memory:")
    assert grey.check("1.2.3.4", "a@b", "c@d") == 0
    assert [grey.clean(5 * HOUR), grey.clean(36 * DAY - 100)] == [0, 0]
    assert grey.check("1.2.3.4", "a@b", "c@d", 5 * HOUR) == 0
    assert [grey.clean(41 * HOUR), grey.clean(37 * DAY)] == [0, 1]
    grey.close()


def test_processes_and_threads(tmp_path: Path) -> None:
    path = str(tmp_path / "grey.db")
    workers = [subprocess.Popen([sys.executable, "-c", _WORK, path]) for _ in range(3)]
    grey = Greylist(path, grey_time=0)
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: grey.check("1.2.3.4", "a@b", "c@d"), range(100)))
    assert [worker.wait(60) for worker in workers] == [0] * 3
    assert len(set(counts)) == 100
    assert grey.check("1.2.3.4", "a@b", "c@d") == 250
    grey.close()


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database\n" * 100)
    for file, error in (
        (tmp_path / "nowhere" / "db", sqlite3.OperationalError),
        (text, sqlite3.DatabaseError),
    ):
        with pytest.raises(error, match=re.escape(f"{file}: ")):
            Greylist(str(file))


def test_csv(tmp_path: Path) -> None:
    one, two = greylist.Greylist(":memory:", 0), Greylist(str(tmp_path / "two"), 0)
    assert [one.check("::1", 'a"\n,@b', "c") for _ in range(3)] == [0, 1, 2]
    file = io.StringIO(newline="")
    one.export_csv(file)
    file.seek(0)
    two.import_csv(file)
    assert two.check("::1", 'a"\n,@b', "c") == 3
    one.close()
    two.close()


GOOD = "1.2.3.4,a@b,c@d,0,0,1"
BAD = {
    "a,b": "not 6 columns",
    "a,b,c,0,x,0": "could not convert",
    "a,b,c,0,nan,0": "not two times and a count",
    "a,b,c,inf,0,0": "not two times and a count",
    "a,b,c,0,0,9" + "9" * 30: "not two times and a count",
    "a,b,c,0,0,-1": "not two times and a count",
    '"' + "a" * 200000: "field larger than",
}


@pytest.mark.parametrize(("line", "error"), BAD.items(), ids=BAD.values())
def test_csv_that_is_none(line: str, error: str) -> None:
    grey = Greylist(":memory:")
    with pytest.raises(ValueError, match=f"^line 2: {error}"):
        grey.import_csv([GOOD, line])
    assert grey.clean() == 0  # the first line has not been taken either
    grey.import_csv(["\udce9,a,b,0,0,0"])  # and the database can be written to
    assert grey.clean() == 1
    grey.close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "grey.db"
    path.write_text("no database" * 100)
    for name, error in {
        str(path): "file is not a database",
        f"{tmp_path}/no/grey.db": "unable to open",
    }.items():
        with pytest.raises(sqlite3.DatabaseError, match=f"^{name}: {error}"):
            Greylist(name)


def test_a_writer_that_was_killed(tmp_path: Path) -> None:
    """What one was told stays, and the database is free at once for others."""
    path = str(tmp_path / "grey.db")
    script = _WORK.replace("range(50)", "iter(int, 1)").replace("grey.check(", "print(grey.check(")
    script = script.replace('"c@d")', '"c@d"), flush=True)')
    told = []
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True
        ) as worker:
            assert worker.stdout is not None
            told += [int(worker.stdout.readline()) for _ in range(20)]
            worker.kill()
            told += [int(line) for line in worker.stdout if line.endswith("\n")]
    grey = Greylist(path, grey_time=0)
    assert told == sorted(set(told))
    assert grey.check("1.2.3.4", "a@b", "c@d") > told[-1] >= 99
    assert grey.conn.execute("pragma integrity_check").fetchall() == [("ok",)]
    grey.close()


@given(st.text(), st.text())
def test_any_text(sender: str, recipient: str) -> None:
    grey = Greylist(":memory:", grey_time=0)
    assert [grey.check("x", sender, recipient + "\udce9") for _ in range(2)] == [0, 1]
    grey.close()
