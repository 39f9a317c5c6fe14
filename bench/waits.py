"""The case `wait`: callbacks that wait a little at the end of the message, by how long and by how
many connections. Its cells, their measurement and its tables."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

import measure
from cases import OURS, PEER, WAIT, Effort, Program, Result, Results
from prepare import Tools
from report import Row, Table, busy_note, number, ratios, spread
from rounds import run_rounds
from shell import BenchError

LOOKUP = "lookup"
RESOLVER_US = 2000  # what the DNS server takes for an answer
# How long a callback waits, by what --cells calls it, milliseconds. A look-up asks twice.
WAITS_MS = {
    **{name: float(name) for name in ("0.2", "0.5", "1", "2", "5", "10", "30")},
    LOOKUP: 2 * RESOLVER_US / 1000,
}
CONNECTIONS = (5, 20, 50, 200)
# Ours beside the same filter on the peer's library.
PAIRS = ((OURS, PEER), ("C on our libmilter", "C on libmilter"))
MOST_CONNECTIONS = 10_000
# libmilter may take long until each connection has been served once.
WARM_SECONDS = 0.5
LOAD_PERCENT = 80  # of a core: above it the load generator is what is measured


@dataclasses.dataclass(frozen=True, order=True)
class Cell:
    """A load: how long each callback waits, as a key of WAITS_MS, and how many connections."""

    wait: str
    connections: int

    def __str__(self) -> str:
        return f"{self.wait}:{self.connections}"

    @property
    def bound(self) -> float:
        """The messages per second that cannot be exceeded."""
        return self.connections * 1000 / WAITS_MS[self.wait]


ALL_CELLS = tuple(Cell(wait, connections) for wait in WAITS_MS for connections in CONNECTIONS)
QUICK_CELLS = (Cell("0.5", 20), Cell("2", 20), Cell(LOOKUP, 20))


def cell_of(text: str) -> Cell:
    """A cell from how it is written. Raises BenchError."""
    wait, _, connections = text.strip().partition(":")
    count = int(connections) if connections.isdecimal() else 0
    if wait not in WAITS_MS or not 0 < count <= MOST_CONNECTIONS:
        raise BenchError(
            f"there is no cell {text!r}: give WAIT:CONNECTIONS, as 2:20, or WAIT alone; "
            f"WAIT is one of {', '.join(WAITS_MS)}, CONNECTIONS are 1 to {MOST_CONNECTIONS}"
        )
    return Cell(wait, count)


def parse_cells(text: str | None, quick: bool) -> list[Cell]:
    """The cells of the command line: WAIT:CONNECTIONS, or WAIT for all connections."""
    if not text:
        return list(QUICK_CELLS if quick else ALL_CELLS)
    cells: list[Cell] = []
    for word in map(str.strip, text.split(",")):
        whole_row = [cell for cell in ALL_CELLS if cell.wait == word]
        cells += whole_row or [cell_of(word)]
    return list(dict.fromkeys(cells))


def waiting_programs(programs: list[Program]) -> list[Program]:
    """Those of PAIRS among the programs, each with the filter that waits."""
    names = [name for pair in PAIRS for name in pair]
    return [
        dataclasses.replace(program, mode="wait", made_by=program.made_by and "waiting")
        for program in programs
        if program.name in names
    ]


@contextmanager
def deed_of(tools: Tools, wait: str) -> Iterator[str]:
    """What the filter is told for a wait; the DNS server runs meanwhile, if it needs it."""
    if wait != LOOKUP:
        yield f"sleep:{WAITS_MS[wait] * 1000:.0f}"
        return
    with subprocess.Popen(
        (tools.c / "resolver", str(RESOLVER_US)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as resolver:
        try:
            assert resolver.stdout
            yield f"lookup:{resolver.stdout.readline().strip()}"
        finally:
            resolver.kill()


def check_waited(program: Program, cell: Cell, p50_us: float) -> None:
    """Makes sure that a filter did wait: a BenchError if it answered earlier."""
    if p50_us < WAITS_MS[cell.wait] * 1000:
        raise BenchError(f"{program.name} answered before it had waited, in cell {cell}")


def measure_cell(program: Program, tools: Tools, cell: Cell, seconds: float) -> dict[str, float]:
    """One sample of a program in a cell."""
    with (
        deed_of(tools, cell.wait) as deed,
        measure.running(program, tools, "wait", deed) as filter_,
    ):
        machine = measure.busy_seconds() - measure.children_seconds()
        wall = time.monotonic()
        began = filter_.cpu_ns()
        found = measure.send_for(tools, filter_, cell.connections, seconds, WARM_SECONDS)
        cpu = filter_.cpu_ns() - began
        wall = time.monotonic() - wall
        others = measure.busy_seconds() - measure.children_seconds() - machine - cpu / 1e9
    check_waited(program, cell, found["message_us"]["p50"])
    return {
        "rate": found["messages_per_second"],
        "p50": found["message_us"]["p50"],
        "p99": found["message_us"]["p99"],
        "cpu": cpu / 1000 / found["messages"],
        "reached": found["messages_per_second"] / cell.bound,
        "starved": cell.connections - found["served"],
        "load": 100 * found["cpu_seconds"] / found["seconds"],
        "others": 100 * max(0.0, others) / (wall * (os.cpu_count() or 1)),
    }


def run(
    programs: list[Program], tools: Tools, effort: Effort, cells: list[Cell]
) -> dict[Cell, dict[str, Result]]:
    """All rounds of all cells. A line for each cell tells how it goes."""
    found: dict[Cell, dict[str, Result]] = {}
    for cell in cells:
        sample = partial(measure_cell, tools=tools, cell=cell, seconds=effort.wait_seconds)
        found[cell] = run_rounds(programs, effort.rounds, sample)
        rates = (
            f"{name} {median(result.samples['rate']):,.0f}"
            for name, result in found[cell].items()
            if not result.left_out
        )
        print(f"wait {cell}: {', '.join(rates)} messages/s", flush=True)
    return found


def two(mine: Result, peer: Result, metric: str, scale: float = 1) -> str:
    """Ours, the peer's and the ratio of a metric, in one field."""
    ours, theirs = (scale * median(result.samples[metric]) for result in (mine, peer))
    return f"{number(ours)} / {number(theirs)} ({number(median(ratios(mine, peer, metric)))})"


def row_of(cell: Cell, mine: Result, peer: Result) -> Row:
    """A cell's line of a pair's table."""
    reached = (f"{100 * median(result.samples['reached']):.0f}" for result in (mine, peer))
    return (
        cell.wait,
        str(cell.connections),
        *(f"{median(result.samples['rate']):,.0f}" for result in (mine, peer)),
        spread(ratios(mine, peer, "rate")),
        two(mine, peer, "p50", 1 / 1000),
        two(mine, peer, "p99", 1 / 1000),
        two(mine, peer, "cpu"),
        " / ".join(reached),
    )


def load_note(results: dict[str, Result]) -> list[str]:
    """A warning when the load generator had little time left: it is then what was measured."""
    busiest = max(
        (median(result.samples["load"]), name)
        for name, result in results.items()
        if not result.left_out
    )
    if busiest[0] < LOAD_PERCENT:
        return []
    return [f"LOAD: the load generator took {busiest[0]:.0f}% of a core ({busiest[1]})"]


def tables(found: dict[Cell, dict[str, Result]]) -> list[Table]:
    """A table for each pair that was measured."""
    return [table for pair in PAIRS if (table := pair_table(found, *pair))]


def pair_table(found: dict[Cell, dict[str, Result]], mine: str, peer: str) -> Table | None:
    """A pair's table; none if one of the two was not measured in any cell."""
    rows: list[Row] = []
    flat: dict[str, Result] = {}
    notes: list[str] = []
    for cell, results in found.items():
        there = {name: results[name] for name in (mine, peer) if name in results}
        notes += [
            f"{cell}: {name} left out, {result.left_out}"
            for name, result in there.items()
            if result.left_out
        ]
        if len(there) == 2 and not any(result.left_out for result in there.values()):
            rows.append(row_of(cell, *there.values()))
            flat.update({f"{name}, {cell}": result for name, result in there.items()})
    if not rows:
        return None
    headings = (
        "wait ms",
        "connections",
        "messages/s, ours",
        "peer",
        "ratio",
        "p50 ms, ours / peer (ratio)",
        "p99 ms",
        "CPU us/message",
        "% of connections/wait",
    )
    notes += [
        f"{where}: {most:.0f} connections got no reply in a whole round"
        for where, result in flat.items()
        if (most := max(result.samples["starved"]))
    ]
    title = f"wait: {mine} against {peer}, each message waits at its end"
    return Table(title, [headings, *rows], [*notes, *busy_note(flat), *load_note(flat)])


def as_results(found: dict[Cell, dict[str, Result]]) -> Results:
    """The cells as cases, for --json."""
    return {f"{WAIT} {cell}": results for cell, results in found.items()}
