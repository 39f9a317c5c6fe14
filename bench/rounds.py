"""Rounds: every program has its turn in each, and one that fails is left out of the rest."""

from __future__ import annotations

from collections.abc import Callable

from cases import Program, Result
from shell import BenchError

Sample = Callable[[Program], dict[str, float]]


def left_out(program: Program, reason: BenchError) -> Result:
    """What stands for a program that is not to be had, or failed."""
    print(f"{program.name}: left out, {reason}", flush=True)
    return Result(left_out=reason.short)


def failure(program: Program, error: BenchError) -> Result:
    """What stands for a peer that failed; passes on that one of ours did."""
    if not program.foreign:
        raise error
    return left_out(program, error)


def add_sample(program: Program, sample: Sample, results: dict[str, Result]) -> None:
    """Takes a sample of a program, unless it was left out."""
    try:
        if not results[program.name].left_out:
            results[program.name].add(**sample(program))
    except BenchError as error:
        results[program.name] = failure(program, error)


def run_rounds(programs: list[Program], rounds: int, sample: Sample) -> dict[str, Result]:
    """All rounds of a case. Each round starts with another program."""
    results = {program.name: Result() for program in programs}
    for turn in range(rounds):
        first = turn % len(programs)
        for program in programs[first:] + programs[:first]:
            add_sample(program, sample, results)
    return results
