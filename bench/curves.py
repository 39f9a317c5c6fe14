"""How cost grows: one thing about the load is varied, all else stays. The tables of what is varied
and of the programs that are asked, and what is printed."""

from __future__ import annotations

import dataclasses
from statistics import median

from cases import OURS, PEER, Case, Effort, Result
from report import Row, Table, busy_note, number, ratios, spread

PROGRAMS = (OURS, "ours, no replies", PEER, "C on milterkit.h", "C on libmilter", "floor")

FULL = Effort(rounds=3, cpu_seconds=0.5, most=50, growth=(0, 0), idle=0)
QUICK = dataclasses.replace(FULL, rounds=1, cpu_seconds=0.1)


@dataclasses.dataclass(frozen=True)
class Axis:
    """What is varied: a field of Case, at these points. `unit` names what a cost is given for, and
    is `per` steps of the field; none: it is not divided."""

    name: str
    title: str
    points: tuple[int, ...]
    messages: int = 5  # per connection
    unit: str = ""
    per: int = 1

    def case(self, point: int) -> Case:
        """The load at a point."""
        usual = Case(self.name, self.title, "every", total=0, messages=self.messages)
        case = dataclasses.replace(usual, **{self.name: point})
        return dataclasses.replace(case, total=max(200, case.connections * case.messages))


AXES = {
    axis.name: axis
    for axis in (
        Axis("connections", "connections at once", (1, 10, 100, 1_000, 10_000)),
        Axis("idle", "open connections that send nothing, beside 20 busy", (0, 1_000, 10_000)),
        Axis(
            "body",
            "bytes of body",
            (0, 4_096, 100_000, 1_000_000, 5_000_000, 25_000_000),
            unit="MB",
            per=1_000_000,
        ),
        Axis("recipients", "recipients", (1, 10, 100, 1_000), unit="recipient"),
        Axis("headers", "headers", (1, 10, 100, 500), unit="header"),
    )
}


def milliseconds(us: float) -> str:
    """Microseconds as milliseconds."""
    return number(us / 1000)


def row_of(
    axis: Axis,
    program: str,
    point: int,
    results: dict[str, Result],
    before: tuple[int, float] | None,
) -> Row:
    """A line of an axis's table; `before` is the point before, and its cost in microseconds."""
    found = results[program]
    base = results.get(PEER)
    if found.left_out:
        return (program, f"{point:,}", f"failed: {found.left_out}")
    middle = {metric: median(values) for metric, values in found.samples.items()}
    more = ""
    if before:
        more = number((middle["cpu"] - before[1]) / (point - before[0]) * axis.per)
    return (
        program,
        f"{point:,}",
        number(middle["cpu"]),
        spread(ratios(found, base, "cpu")) if base and not base.left_out else "-",
        *((more,) if axis.unit else ()),
        milliseconds(middle["p50"]),
        milliseconds(middle["p99"]),
        number(middle["rss_peak"]),
        number(middle["calls_per_packet"]) if "calls_per_packet" in middle else "-",
    )


def table_of(axis: Axis, found: dict[int, dict[str, Result]]) -> Table:
    """An axis's table, the programs one after the other."""
    headings = (
        "",
        axis.name,
        "CPU us/message",
        f"ratio to {PEER}",
        *((f"us per further {axis.unit}",) if axis.unit else ()),
        "p50 ms",
        "p99 ms",
        "peak MiB",
        "calls/packet",
    )
    rows: list[Row] = []
    for program in next(iter(found.values())):
        before: tuple[int, float] | None = None
        for point, results in found.items():
            result = results[program]
            rows.append(row_of(axis, program, point, results, before))
            if not result.left_out:
                before = (point, median(result.samples["cpu"]))
    width = len(headings)
    rows = [row + ("",) * (width - len(row)) for row in rows]
    everything = {
        f"{point:,} {name}": result
        for point, results in found.items()
        for name, result in results.items()
        if not result.left_out
    }
    case = axis.case(axis.points[0])
    load = ", ".join(
        f"{getattr(case, name):,} {text}"
        for name, text in (
            ("connections", "connections"),
            ("messages", "messages each"),
            ("headers", "headers"),
            ("recipients", "recipient"),
            ("body", "bytes of body"),
        )
        if name != axis.name
    )
    heading = f"by {axis.title}; every step answered, {load}"
    return Table(heading, [headings, *rows], busy_note(everything))
