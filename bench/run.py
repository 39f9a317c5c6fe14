#!/usr/bin/env python3
"""The benchmark: our engine against its peers, under the same load, in the same run.

Does its own set-up, then runs every program in turn, several rounds, and prints a table for each
case. Fails if a filter gave a wrong reply; figures that are not met are printed, not failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import curves
import measure
import neighbours
import plot
import report
import waits
from cases import (
    ALL_CASES,
    CASES,
    FULL,
    GROWTH,
    IDLE,
    OURS,
    PEER,
    PROGRAMS,
    QUICK,
    QUICK_CASES,
    QUICK_PROGRAMS,
    SPIN,
    TAIL,
    WAIT,
    WAITING_CASES,
    Case,
    Effort,
    Program,
    Result,
    Results,
)
from prepare import ROOT, Tools, prepare
from report import Table
from rounds import add_sample, failure, left_out, run_rounds
from shell import BenchError


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a short form, one or two minutes")
    parser.add_argument("--rounds", type=int, help=f"of each case ({FULL.rounds})")
    parser.add_argument("--cases", help=f"of {','.join(ALL_CASES)} (all)")
    parser.add_argument(
        "--wait", action="store_true", help=f"the same as --cases {','.join(WAITING_CASES)}"
    )
    parser.add_argument(
        "--cells",
        metavar="WAIT:CONNECTIONS,...",
        help="only these of the case wait, as 2:20,lookup:50 or 2 for all connections",
    )
    parser.add_argument("--curves", action="store_true", help="how cost grows, in place of cases")
    parser.add_argument("--axes", help=f"of the curves: {','.join(curves.AXES)} (all)")
    parser.add_argument("--programs", help=f"of {', '.join(PROGRAMS)}, separated by ';' (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all samples there")
    parser.add_argument(
        "--svg",
        type=Path,
        metavar="FILE",
        help="draws the case wait there, by wait and connections",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="writes all tables there")
    parser.add_argument(
        "--peer-python",
        type=Path,
        default=Path("/usr/bin/python3"),
        metavar="PYTHON",
        help="the interpreter of both sides, the peer installed for it (/usr/bin/python3)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        default=ROOT,
        metavar="FOLDER",
        help="the source tree of what is measured as ours (this one)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="FOLDER",
        help="where to build (build/bench in the source tree)",
    )
    options = parser.parse_args(arguments)
    options.source = options.source.resolve()
    options.work = (options.work or options.source / "build" / "bench").resolve()
    if options.cells and not options.cases:
        options.cases = WAIT
    elif options.wait and not options.cases:
        options.cases = ",".join(WAITING_CASES)
    return options


def chosen(
    text: str | None, known: tuple[str, ...], default: tuple[str, ...], sep: str
) -> list[str]:
    """Names from the command line, in the order of `known`."""
    names = [name.strip() for name in text.split(sep)] if text else list(default)
    for name in names:
        if name not in known:
            raise BenchError(f"there is no {name!r}; there are: {f'{sep} '.join(known)}")
    return [name for name in known if name in names]


def cases_of(options: argparse.Namespace) -> list[str]:
    """The cases that the command line wants."""
    default = QUICK_CASES if options.quick else ALL_CASES
    return chosen(options.cases, ALL_CASES, default, ",")


def run_case(
    case: Case, programs: list[Program], tools: Tools, effort: Effort
) -> dict[str, Result]:
    """All rounds of a case, and then the system calls."""
    sample = partial(measure.measure, tools=tools, case=case, effort=effort)
    results = run_rounds(programs, effort.rounds, sample)
    for program in programs:
        add_sample(program, partial(measure.count_calls, tools=tools, case=case), results)
    return results


def run_memory(
    name: str, programs: list[Program], tools: Tools, effort: Effort
) -> dict[str, Result]:
    """A case about memory, once for each program."""
    results: dict[str, Result] = {}
    for program in programs:
        result = Result()
        try:
            if name == GROWTH:
                result.add(**measure.growth(program, tools, CASES["every"], effort))
            else:
                result.add(**measure.idle(program, tools, effort))
        except BenchError as error:
            result = failure(program, error)
        results[program.name] = result
    return results


# Which programs the cases about memory look at.
MEMORY_PROGRAMS = {GROWTH: (OURS,), IDLE: (OURS, PEER, "C on milterkit.h", "C on libmilter")}


def find_missing(programs: list[Program], tools: Tools) -> dict[str, Result]:
    """What stands for the programs that cannot run here."""
    return {
        program.name: left_out(program, BenchError(reason))
        for program in programs
        if (reason := tools.missing(program))
    }


def prove(programs: list[Program], tools: Tools) -> dict[str, Result]:
    """Shows what each filter that is not in C runs on, and that it does the work. Returns what
    stands for those that do not do it."""
    failed: dict[str, Result] = {}
    for program in programs:
        if program.side == "c":
            continue
        try:
            for name in ("every",) if program.mode else ("every", "noreply"):
                runs_on = measure.prove(program, tools, CASES[name])
            print(f"{program.name}: {', '.join(runs_on)}", flush=True)
        except BenchError as error:
            failed[program.name] = failure(program, error)
    return failed


def show(table: Table, options: argparse.Namespace) -> None:
    """Prints a table, and adds it to the page if one is wanted."""
    print("", table.text(), sep="\n", flush=True)
    if options.markdown:
        with options.markdown.open("a") as page:
            page.write(f"\n{table.markdown()}\n")


def run_waiting(
    name: str, options: argparse.Namespace, programs: list[Program], tools: Tools, effort: Effort
) -> Results:
    """One of the cases with callbacks that wait or compute at the end of the message."""
    programs = waits.waiting_programs(programs)
    if not programs:
        return {}
    if name == WAIT:
        found = waits.run(programs, tools, effort, waits.parse_cells(options.cells, options.quick))
        tables, results = waits.tables(found), waits.as_results(found)
    else:
        run, tables_of = NEIGHBOURS[name]
        results = run(programs, tools, effort)
        tables = tables_of(results)
    for table in tables:
        show(table, options)
    return results


NEIGHBOURS = {
    TAIL: (neighbours.run_tail, neighbours.tail_tables),
    SPIN: (neighbours.run_spin, neighbours.spin_tables),
}


def run_cases(
    options: argparse.Namespace, wanted: list[Program], failed: dict[str, Result], tools: Tools
) -> Results:
    """The cases, and their figures. `failed` stands for programs that are not asked."""
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = dataclasses.replace(effort, rounds=options.rounds)
    limit = measure.raise_descriptor_limit()
    effort = dataclasses.replace(effort, idle=min(effort.idle, limit - 200))
    results: Results = {}
    for name in cases_of(options):
        if name in WAITING_CASES:
            able = [program for program in wanted if program.name not in failed]
            results.update(run_waiting(name, options, able, tools, effort))
            continue
        names = MEMORY_PROGRAMS[name] if name in MEMORY_PROGRAMS else CASES[name].programs
        inside = [program for program in wanted if program.name in names]
        able = [program for program in inside if program.name not in failed]
        if not able:
            continue
        if name in (GROWTH, IDLE):
            found = {**failed, **run_memory(name, able, tools, effort)}
        else:
            found = {**failed, **run_case(CASES[name], able, tools, effort)}
        results[name] = {program.name: found[program.name] for program in inside}
        show(report.table_of(name, results[name]), options)
    figures = report.figures_table(results)
    if len(figures.rows) > 1:
        show(figures, options)
    return results


def run_curves(
    options: argparse.Namespace, wanted: list[Program], failed: dict[str, Result], tools: Tools
) -> None:
    """How cost grows, along each axis."""
    effort = curves.QUICK if options.quick else curves.FULL
    if options.rounds:
        effort = dataclasses.replace(effort, rounds=options.rounds)
    measure.raise_descriptor_limit()
    able = [program for program in wanted if program.name not in failed]
    axes = tuple(curves.AXES)
    for name in chosen(options.axes, axes, axes, ","):
        axis = curves.AXES[name]
        found = {point: run_case(axis.case(point), able, tools, effort) for point in axis.points}
        show(curves.table_of(axis, found), options)


def benchmark(options: argparse.Namespace) -> None:
    """Everything, in order."""
    usual = QUICK_PROGRAMS if options.quick else tuple(PROGRAMS)
    usual = curves.PROGRAMS if options.curves else usual
    wanted = [PROGRAMS[name] for name in chosen(options.programs, tuple(PROGRAMS), usual, ";")]
    if options.cells:
        waits.parse_cells(options.cells, options.quick)  # so that a mistake is told at once
    if options.svg and (options.curves or WAIT not in cases_of(options)):
        raise BenchError("--svg draws the case wait, which is not among those that are to run")
    waiting_only = not options.curves and set(cases_of(options)) <= set(WAITING_CASES)
    if waiting_only:
        wanted = [program for program in wanted if waits.waiting_programs([program])]
    tools = prepare(options.peer_python, options.work, options.source, wanted)

    about = report.machine()
    version = subprocess.check_output((tools.ours_python, "-VV"), text=True).strip()
    about["python"] = f"{version} ({tools.peer_python})"
    line = f"{about['cpu']}, {about['cores']} cores, {about['kernel']}, {about['python']}"
    print(line)
    if options.markdown:
        options.markdown.write_text(f"{line}\n")
    failed = find_missing(wanted, tools)
    if not waiting_only:
        failed |= prove([program for program in wanted if program.name not in failed], tools)

    if options.curves:
        run_curves(options, wanted, failed, tools)
        return
    results = run_cases(options, wanted, failed, tools)
    found = report.as_json(results, about)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.svg:
        options.svg.write_text(plot.svg(plot.points_of(found["samples"])))


def main() -> int:
    """Runs the benchmark; 1 if something failed."""
    try:
        benchmark(parse(None))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
