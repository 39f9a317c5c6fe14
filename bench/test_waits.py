"""Tests of the cases with callbacks that wait: the resolver, cells, tables and the picture.

Run by meson (`meson test waits`), or as: test_waits.py PATH-OF-RESOLVER
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import neighbours
import plot
import waits
from cases import PROGRAMS, Result
from shell import BenchError
from waits import Cell

RESOLVER = [""]  # with what runs it, where it is for another machine
QUESTION = bytes.fromhex("0100 0001 0000 0000 0000") + b"\4mail\7example\3com\0\0\1\0\1"
SVG = "{http://www.w3.org/2000/svg}"
# What one sample has, in the units of waits.measure_cell.
SAMPLE = {
    "p50": 2100.0,
    "p99": 2500.0,
    "cpu": 40.0,
    "reached": 0.5,
    "load": 20.0,
    "others": 0.0,
    "starved": 0.0,
}


@contextlib.contextmanager
def resolver(delay_us: int) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    """A resolver with a socket that asks it."""
    pipe = subprocess.PIPE
    command = (*RESOLVER, str(delay_us))
    with (
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
    ):
        try:
            assert process.stdout
            asking.settimeout(20)
            asking.connect(("127.0.0.1", int(process.stdout.readline())))
            yield asking, process
        finally:
            process.kill()


class Resolver(unittest.TestCase):
    """The DNS server."""

    def test_many_at_once(self) -> None:
        ids = [number.to_bytes(2, "big") for number in range(100)]
        with resolver(2000) as (asking, _):
            for each in ids:
                asking.send(each + QUESTION)
            answers = [asking.recv(512) for _ in ids]
        assert [answer[:2] for answer in answers] == ids
        question, record = QUESTION[10:], bytes.fromhex("c00c 0001 0001 0000003c 0004 c0000201")
        flags_and_counts = bytes.fromhex("8180 0001 0001 0000 0000")
        assert {answer[2:] for answer in answers} == {flags_and_counts + question + record}

    def test_what_is_no_question(self) -> None:
        with resolver(0) as (asking, _):
            for datagram in (b"", b"short", b"id" + QUESTION):
                asking.send(datagram)
            assert asking.recv(512)[:2] == b"id"

    def test_ends_with_its_input(self) -> None:
        with resolver(0) as (_, process):
            assert process.stdin
            process.stdin.close()
            assert process.wait(timeout=20) == 0

    def test_usage(self) -> None:
        for arguments in ((), ("x",), ("-1",), ("1", "2"), ("10000001",)):
            done = subprocess.run(
                (*RESOLVER, *arguments), capture_output=True, text=True, check=False
            )
            assert (done.returncode, done.stdout) == (2, "")
            assert "usage: resolver MICROSECONDS" in done.stderr


def refusal(call: Callable[[], object]) -> str:
    """What is said when a call is refused; an empty text when it is not."""
    try:
        call()
    except BenchError as error:
        return str(error)
    return ""


class Cells(unittest.TestCase):
    """What --cells takes."""

    def test_right(self) -> None:
        assert waits.parse_cells("2:20, lookup:7", quick=False) == [
            Cell("2", 20),
            Cell("lookup", 7),
        ]
        row = [Cell("0.2", count) for count in waits.CONNECTIONS]
        assert waits.parse_cells("0.2:50,0.2", quick=True) == [row[2], *row[:2], row[3]]
        assert waits.parse_cells(None, quick=True) == list(waits.QUICK_CELLS)
        assert len(waits.parse_cells(None, quick=False)) == 32

    def test_wrong(self) -> None:
        for text in ("3:20", "2:", "2:0", "2:x", "2:20:5", "2:10001", "2:20,"):
            assert "there is no cell" in refusal(lambda text=text: waits.parse_cells(text, False))

    def test_bound(self) -> None:
        assert Cell("2", 20).bound == 10_000
        assert Cell("lookup", 20).bound == 5_000  # two look-ups

    def test_filter_that_does_not_wait(self) -> None:
        program = PROGRAMS["ours"]
        waits.check_waited(program, Cell("2", 20), 2000.0)
        early = refusal(lambda: waits.check_waited(program, Cell("2", 20), 1999.0))
        assert early == "ours answered before it had waited, in cell 2:20"


def result(*rates: float, **changed: float) -> Result:
    """Some samples."""
    found = Result()
    for rate in rates:
        found.add(rate=rate, **(SAMPLE | changed))
    return found


class Tables(unittest.TestCase):
    """What is printed."""

    def test_pair(self) -> None:
        found = {Cell("2", 20): {"ours": result(400, 600), "python3-milter": result(800, 800)}}
        (table,) = waits.tables(found)
        head, row = table.rows
        assert len(head) == len(row)
        assert row[:5] == ("2", "20", "500", "800", "0.62 (0.50-0.75)")
        assert row[5] == "2.10 / 2.10 (1.00)"
        assert table.notes == []

    def test_left_out(self) -> None:
        ours, gone = result(1), Result(left_out="it failed")
        found = {
            Cell("2", 20): {"ours": ours, "python3-milter": gone},
            Cell("2", 5): {"ours": ours, "python3-milter": ours},
        }
        (table,) = waits.tables(found)
        assert len(table.rows) == 2
        assert table.notes == ["2:20: python3-milter left out, it failed"]
        assert waits.tables({Cell("2", 20): {"ours": ours}}) == []

    def test_busy_load_generator(self) -> None:
        both = {"ours": result(1, load=95), "python3-milter": result(1)}
        (table,) = waits.tables({Cell("2", 20): both})
        assert table.notes == ["LOAD: the load generator took 95% of a core (ours, 2:20)"]

    def test_starved_connections(self) -> None:
        both = {"ours": result(1), "python3-milter": result(1, starved=3)}
        (table,) = waits.tables({Cell("2", 20): both})
        assert table.notes == ["python3-milter, 2:20: 3 connections got no reply in a whole round"]

    def test_threads_that_compute(self) -> None:
        before = {"1": 100, "2": 500}
        assert neighbours.computing(before, {"1": 1100, "2": 500}) == 1
        assert neighbours.computing(before, {"1": 1100, "2": 1500, "3": 10}) == 2
        assert neighbours.computing(before, before) == 0

    def test_too_many_runners(self) -> None:
        sample = {"rate": 1.0, "p99": 1.0, "cpu": 1.0, "alive": 4.0, "computing": 1.0}
        results = {}
        for busy, most in zip(neighbours.BUSY_PROGRAMS, (2.0, 3.0), strict=True):
            ours = Result()
            ours.add(**sample, computing_most=most)
            results[f"spin beside {busy}"] = {"ours": ours}
        alone, beside = neighbours.spin_tables(results)
        assert [table.notes[0].rpartition(": ")[2] for table in (alone, beside)] == [
            "met",
            "NOT met",
        ]


class Picture(unittest.TestCase):
    """The SVG."""

    def test_lines(self) -> None:
        names = [name for pair in waits.PAIRS for name in pair]
        samples = {
            f"wait {cell}": {name: {"rate": [cell.bound / 2]} for name in names}
            for cell in waits.ALL_CELLS
        }
        del samples["wait 2:20"]["python3-milter"]["rate"]
        root = ET.fromstring(plot.svg(plot.points_of({"every": {}, **samples})))
        texts = {each.text for each in root.iter(f"{SVG}text")}
        assert {"5 connections", "200 connections", "0.2", "30", *names[1:]} <= texts
        assert "lookup" not in texts
        lines = [each for each in root.iter(f"{SVG}polyline") if "line" in each.get("class", "")]
        assert len(lines) == len(names) * (1 + len(waits.CONNECTIONS))  # the legend's too
        width, height = (float(size) for size in root.get("viewBox", "").split()[2:])
        for dot in root.iter(f"{SVG}circle"):
            assert 0 < float(dot.get("cx", -1)) < width
            assert 0 < float(dot.get("cy", -1)) < height

    def test_nothing_to_draw(self) -> None:
        points = plot.points_of({"wait lookup:20": {"ours": {"rate": [1.0]}}})
        assert "nothing to draw" in refusal(lambda: plot.svg(points))

    def test_one_cell(self) -> None:
        root = ET.fromstring(plot.svg({Cell("2", 20): {"ours": 400.0}}))
        styles = [each.get("class") for each in root.iter(f"{SVG}polyline")]
        assert styles.count("bound") == 1  # the legend's: this one is far above the panel

    def test_command(self) -> None:
        command = (sys.executable, str(Path(plot.__file__)))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (2, "usage: plot.py JSON SVG\n")


if __name__ == "__main__":
    RESOLVER = [*shlex.split(os.environ.get("MESON_EXE_WRAPPER", "")), sys.argv.pop(1)]
    unittest.main()
