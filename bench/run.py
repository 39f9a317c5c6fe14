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
from collections.abc import Callable
from functools import partial
from pathlib import Path

import curves
import measure
import report
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
    Case,
    Effort,
    Program,
    Result,
    Results,
)
from prepare import ROOT, Tools, prepare
from report import Table
from shell import BenchError


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a short form, about a minute")
    parser.add_argument("--rounds", type=int, help=f"of each case ({FULL.rounds})")
    parser.add_argument("--cases", help=f"of {','.join(ALL_CASES)} (all)")
    parser.add_argument("--curves", action="store_true", help="how cost grows, in place of cases")
    parser.add_argument("--axes", help=f"of the curves: {','.join(curves.AXES)} (all)")
    parser.add_argument("--programs", help=f"of {', '.join(PROGRAMS)}, separated by ';' (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all samples there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="writes all tables there")
    parser.add_argument(
        "--peer-python",
        type=Path,
        default=Path("/usr/bin/python3"),
        metavar="PYTHON",
        help="the interpreter of both sides, the peer installed for it (/usr/bin/python3)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / "build" / "bench",
        metavar="FOLDER",
        help="where to build (build/bench)",
    )
    return parser.parse_args(arguments)


def chosen(
    text: str | None, known: tuple[str, ...], default: tuple[str, ...], sep: str
) -> list[str]:
    """Names from the command line, in the order of `known`."""
    names = [name.strip() for name in text.split(sep)] if text else list(default)
    for name in names:
        if name not in known:
            raise BenchError(f"there is no {name!r}; there are: {f'{sep} '.join(known)}")
    return [name for name in known if name in names]


def left_out(program: Program, reason: BenchError) -> Result:
    """What stands for a program that is not to be had, or failed."""
    print(f"{program.name}: left out, {reason}", flush=True)
    return Result(left_out=reason.short)


def failure(program: Program, error: BenchError) -> Result:
    """What stands for a peer that failed; passes on that one of ours did."""
    if not program.foreign:
        raise error
    return left_out(program, error)


def run_case(
    case: Case, programs: list[Program], tools: Tools, effort: Effort
) -> dict[str, Result]:
    """All rounds of a case. Each round starts with another program."""
    results = {program.name: Result() for program in programs}

    def attempt(program: Program, what: Callable[[], dict[str, float]]) -> None:
        try:
            if not results[program.name].left_out:
                results[program.name].add(**what())
        except BenchError as error:
            results[program.name] = failure(program, error)

    for turn in range(effort.rounds):
        first = turn % len(programs)
        for program in programs[first:] + programs[:first]:
            attempt(program, partial(measure.measure, program, tools, case, effort))
    for program in programs:
        attempt(program, partial(measure.count_calls, program, tools, case))
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


def prove(programs: list[Program], tools: Tools) -> dict[str, Result]:
    """Shows what each filter that is not in C runs on, and that it does the work. Returns what
    stands for those that cannot run or do not do it."""
    failed: dict[str, Result] = {}
    for program in programs:
        if reason := tools.missing(program):
            failed[program.name] = left_out(program, BenchError(reason))
            continue
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
    default = QUICK_CASES if options.quick else ALL_CASES
    for name in chosen(options.cases, ALL_CASES, default, ","):
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
    show(report.figures_table(results), options)
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
    tools = prepare(options.peer_python, options.work.resolve(), wanted)

    about = report.machine()
    version = subprocess.check_output((tools.ours_python, "-VV"), text=True).strip()
    about["python"] = f"{version} ({tools.peer_python})"
    line = f"{about['cpu']}, {about['cores']} cores, {about['kernel']}, {about['python']}"
    print(line)
    if options.markdown:
        options.markdown.write_text(f"{line}\n")
    failed = prove(wanted, tools)

    if options.curves:
        run_curves(options, wanted, failed, tools)
        return
    results = run_cases(options, wanted, failed, tools)
    if options.json:
        options.json.write_text(json.dumps(report.as_json(results, about), indent=1) + "\n")


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
