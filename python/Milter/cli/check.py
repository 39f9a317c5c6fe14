"""`milterkit check`: looks at a filter without running it."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from Milter.checking import CHECKS, findings, negotiation, settings, subject_of
from Milter.cli.exits import CommandError, Exit
from Milter.cli.load import load_only, split_target
from Milter.macros import MTAS

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Adds `check` to the subparsers of `milterkit`; the function that runs it is `command`."""
    parser = commands.add_parser(
        "check",
        help="look for mistakes in a filter, and say how to set the MTA up for it",
        description="Say what a filter negotiates with the MTA, look for likely mistakes in it, "
        "and print the lines for the MTA's configuration. The file is loaded, but nothing is "
        "served.",
        epilog="It looks for: "
        + "; ".join(f"{check.mistake} ({name})" for name, check in CHECKS.items())
        + ". Exit status: 0 nothing was found, 1 something was, 2 the file cannot be read.",
    )
    parser.add_argument("filter", metavar="FILE.py[:NAME]",
                        help="the file; NAME is the class or factory in it, needed if there are "
                        "several classes derived from Milter.Base")  # fmt: skip
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT",
                        help="what a program that reads its arguments is loaded with")  # fmt: skip
    parser.add_argument("--socket", metavar="SPEC",
                        help="where the filter listens; default: what the file says, or a socket "
                        "in /run")  # fmt: skip
    parser.add_argument("--mta", choices=tuple(MTAS),
                        help="the only MTA that the filter is meant for")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print the findings alone")
    parser.set_defaults(command=_check)


def _check(arguments: argparse.Namespace) -> int:
    mtas = tuple(MTAS[name] for name in MTAS if arguments.mta in (name, None))
    file, _ = split_target(arguments.filter)
    name = re.sub(r"\W+", "-", Path(file).stem)
    argv, sys.argv = sys.argv, [file, *arguments.arguments]
    try:
        module, klass, by_factory = load_only(arguments.filter)
        subject = subject_of(module, file, klass, by_factory=by_factory)
        found = findings(subject, mtas)
        spec = arguments.socket or subject.socket or f"unix:/run/{name}.sock"
        lines = settings(subject, spec, name, mtas)
    except CommandError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    except ValueError as error:
        raise CommandError(f"{file}: {error}", Exit.USAGE) from error
    finally:
        sys.argv = argv
    if not arguments.quiet:
        print(f"{file}: {subject.title}\n")
        print("It negotiates, with an MTA that offers everything:")
        for topic, words in negotiation(subject):
            print(f"  {topic + ':':<13}{words}")
        for where, group in lines:
            print(f"\n{where}:", *group, sep="\n  ")
        print("\nNothing was found to be wrong." if not found else "\nLikely mistakes:")
    for each in found:
        print(each)
    return Exit.ERROR if found else Exit.ACCEPTED
