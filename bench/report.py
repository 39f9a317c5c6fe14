"""What the benchmark prints: the machine, a table for each case, and whether figures are met."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from cases import CASES, FIGURES, GROWTH, IDLE, METRICS, PEER, Case, Figure, Result, Results

Row = tuple[str, ...]

BUSY_PERCENT = 5  # of the machine


@dataclass(frozen=True)
class Table:
    """What is printed of one thing: a heading, rows of equal length with the columns' names first,
    and notes below."""

    heading: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For a terminal: columns under each other."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        lines = (
            "  ".join(
                cell.ljust(width) if index == 0 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in self.rows
        )
        return "\n".join([self.heading, *(f"  {line.rstrip()}" for line in (*lines, *self.notes))])

    def markdown(self) -> str:
        """For a page."""
        names, *rows = (f"| {' | '.join(row)} |" for row in self.rows)
        rule = f"| --- |{' ---: |' * (len(self.rows[0]) - 1)}"
        return "\n".join([f"**{self.heading}**\n", names, rule, *rows, "", *self.notes])


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
    }


def number(value: float) -> str:
    """A number with three digits that matter."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def spread(values: list[float]) -> str:
    """The median, with the least and the greatest."""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))}-{number(max(values))})"


def ratios(result: Result, base: Result, metric: str) -> list[float]:
    """Ratios round by round, so that what slowed a whole round down does not count."""
    pairs = zip(result.samples.get(metric, ()), base.samples.get(metric, ()), strict=True)
    return [mine / other for mine, other in pairs if other]


def columns(result: Result, base: Result | None) -> Row:
    """One program's line of a case's table, after its name."""
    samples = result.samples
    ratio = spread(ratios(result, base, "cpu")) if base else ""
    calls = samples.get("calls")
    per_packet = samples.get("calls_per_packet")
    return (
        spread(samples["cpu"]),
        ratio,
        f"{median(samples['rate']):,.0f}",
        f"{median(samples['p50']):,.0f}",
        f"{median(samples['p99']):,.0f}",
        f"{median(samples['rss_before']):.1f} > {median(samples['rss_after']):.1f}",
        f"{number(calls[0])} ({number(per_packet[0])})" if calls and per_packet else "-",
    )


HEADINGS = (
    "",
    "CPU us/message",
    f"ratio to {PEER}",
    "messages/s",
    "p50 us",
    "p99 us",
    "RSS MiB",
    "calls/message (/packet)",
)


def load_text(case: Case) -> str:
    """A case's load in words."""
    body = f"{case.body // 1024} KiB" if case.body < 1_000_000 else f"{case.body / 1e6:g} MB"
    return (
        f"{case.connections} connections x {case.messages} messages, "
        f"{case.headers} headers, {body} body"
    )


def busy_note(results: dict[str, Result]) -> list[str]:
    """A warning when other programs kept the machine busy: threads that wait for each other, and
    wake-ups of idle cores, then cost something else than on a quiet machine."""
    shares = [share for result in results.values() for share in result.samples["others"]]
    if not shares or median(shares) < BUSY_PERCENT:
        return []
    return [f"BUSY: other programs took {median(shares):.0f}% of the machine meanwhile"]


def case_table(name: str, results: dict[str, Result]) -> Table:
    """A case's table."""
    case = CASES[name]
    base = results.get(PEER)
    rows = [HEADINGS, *((program, *columns(found, base)) for program, found in results.items())]
    return Table(f"{name}: {case.title} ({load_text(case)})", rows, busy_note(results))


def memory_table(name: str, results: dict[str, Result]) -> Table:
    """The table of one of the two cases about memory."""
    metric, heading = {
        GROWTH: ("growth", "growth: RSS in MiB after few and after many messages"),
        IDLE: ("idle", "idle: RSS in MiB without and with open connections that send nothing"),
    }[name]
    rows: list[Row] = [("", "before", "after", METRICS[metric])]
    for program, found in results.items():
        values = (median(found.samples[key]) for key in ("rss_before", "rss_after", metric))
        rows.append((program, *(number(value) for value in values)))
    return Table(heading, rows)


def measured(figure: Figure, results: Results) -> float | None:
    """A figure's value in this run, None if it was not measured."""
    case = results.get(figure.case, {})
    mine = case.get(figure.program)
    if not mine or figure.metric not in mine.samples:
        return None
    if not figure.base:
        return median(mine.samples[figure.metric])
    base = case.get(figure.base)
    found = ratios(mine, base, figure.metric) if base else []
    return median(found) if found else None


def figures_table(results: Results) -> Table:
    """The figures that issues name, as far as this run measured them."""
    rows: list[Row] = [("", "measured", "at most", "")]
    for figure in FIGURES:
        value = measured(figure, results)
        if value is None:
            continue
        what = f"{figure.case}: {METRICS[figure.metric]}, {figure.program}"
        what += f" against {figure.base}" if figure.base else ""
        verdict = "met" if value <= figure.at_most else "NOT met"
        rows.append((what, f"{value:.3f}", f"{figure.at_most:.2f}", verdict))
    return Table("figures to reach", rows)


def table_of(name: str, results: dict[str, Result]) -> Table:
    """The table of any case, and why programs are not in it."""
    there = {program: found for program, found in results.items() if not found.left_out}
    table = (memory_table if name in (GROWTH, IDLE) else case_table)(name, there)
    table.notes.extend(
        f"{program}: left out, {found.left_out}"
        for program, found in results.items()
        if found.left_out
    )
    return table


def as_json(results: Results, about: dict[str, str]) -> dict[str, object]:
    """Everything that was measured, for other programs."""
    return {
        "machine": about,
        "samples": {
            case: {
                program: found.samples or {"left_out": found.left_out}
                for program, found in programs.items()
            }
            for case, programs in results.items()
        },
        "figures": [
            {**vars(figure), "measured": value}
            for figure in FIGURES
            if (value := measured(figure, results)) is not None
        ],
    }
