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
    Effort,
    Program,
    Result,
    Results,
)
from prepare import ROOT, BenchError, Tools, prepare


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a short form, about a minute")
    parser.add_argument("--rounds", type=int, help=f"of each case ({FULL.rounds})")
    parser.add_argument("--cases", help=f"of {','.join(ALL_CASES)} (all)")
    parser.add_argument("--programs", help=f"of {', '.join(PROGRAMS)}, separated by ';' (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all samples there")
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


def available(names: tuple[str, ...] | list[str], wanted: list[str], tools: Tools) -> list[Program]:
    """The programs of a case that can run here."""
    return [
        PROGRAMS[name] for name in names if name in wanted and not tools.missing(PROGRAMS[name])
    ]


def keep_foreign_failure(program: Program, error: BenchError) -> None:
    """Says that a peer failed and goes on without it; passes on that one of ours did."""
    if not program.foreign:
        raise error
    print(f"{program.name}: left out, {error}", flush=True)


def run_case(name: str, programs: list[Program], tools: Tools, effort: Effort) -> dict[str, Result]:
    """All rounds of a case. Each round starts with another program."""
    case = CASES[name]
    results = {program.name: Result() for program in programs}
    failed: set[Program] = set()

    def attempt(program: Program, what: Callable[[], dict[str, float]]) -> None:
        try:
            if program not in failed:
                results[program.name].add(**what())
        except BenchError as error:
            keep_foreign_failure(program, error)
            failed.add(program)

    for turn in range(effort.rounds):
        first = turn % len(programs)
        for program in programs[first:] + programs[:first]:
            attempt(program, partial(measure.measure, program, tools, case, effort))
    for program in programs:
        attempt(program, partial(measure.count_calls, program, tools, case))
    return {program.name: results[program.name] for program in programs if program not in failed}


def run_memory(
    name: str, programs: list[Program], tools: Tools, effort: Effort
) -> dict[str, Result]:
    """A case about memory, once for each program."""
    results: dict[str, Result] = {}
    for program in programs:
        try:
            if name == GROWTH:
                values = measure.growth(program, tools, CASES["every"], effort)
            else:
                values = measure.idle(program, tools, effort)
        except BenchError as error:
            keep_foreign_failure(program, error)
            continue
        results[program.name] = Result()
        results[program.name].add(**values)
    return results


# Which programs the cases about memory look at.
MEMORY_PROGRAMS = {GROWTH: (OURS,), IDLE: (OURS, PEER, "C on milterkit.h", "C on libmilter")}


def prove(programs: list[Program], tools: Tools) -> None:
    """Shows what each Python side runs on. That it is the right one is checked at each start;
    here also that it does the work."""
    for program in programs:
        if program.side == "c":
            continue
        for name in ("every",) if program.mode else ("every", "noreply"):
            modules = measure.prove(program, tools, CASES[name])
        print(f"{program.name}: {', '.join(modules)}")


def benchmark(options: argparse.Namespace) -> None:
    """Everything, in order."""
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = dataclasses.replace(effort, rounds=options.rounds)
    cases = chosen(options.cases, ALL_CASES, QUICK_CASES if options.quick else ALL_CASES, ",")
    wanted = chosen(options.programs, tuple(PROGRAMS), tuple(PROGRAMS), ";")
    limit = measure.raise_descriptor_limit()
    effort = dataclasses.replace(effort, idle=min(effort.idle, limit - 200))
    needs_ours = any(PROGRAMS[name].side == "ours" for name in wanted)
    tools = prepare(options.peer_python, options.work.resolve(), needs_ours)

    about = report.machine()
    version = subprocess.check_output((tools.ours_python, "-VV"), text=True).strip()
    about["python"] = f"{version} ({tools.peer_python})"
    print(f"{about['cpu']}, {about['cores']} cores, {about['kernel']}, {about['python']}")
    for name in wanted:
        if reason := tools.missing(PROGRAMS[name]):
            print(f"{name}: left out, {reason}")
    prove(available(wanted, wanted, tools), tools)

    results: Results = {}
    for name in cases:
        names = MEMORY_PROGRAMS[name] if name in MEMORY_PROGRAMS else CASES[name].programs
        programs = available(names, wanted, tools)
        if not programs:
            continue
        run_one = run_memory if name in (GROWTH, IDLE) else run_case
        results[name] = run_one(name, programs, tools, effort)
        print("", *report.table_of(name, results[name]), sep="\n", flush=True)
    print("", *report.figures_table(results), sep="\n")
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
