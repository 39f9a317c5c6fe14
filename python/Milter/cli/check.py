"""`milterkit check`: looks at a filter without running it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from Milter.checking import CHECKS, findings, negotiation, settings, subject_of
from Milter.cli.exits import CommandError, Exit
from Milter.cli.load import load, split_target
from Milter.cli.parser import TARGET, add_target, add_traceback, argv_of, program_parser
from Milter.macros import MTAS

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Adds `check` to the subparsers of `milterkit`; the function that runs it is `command`."""
    parser = program_parser(
        commands,
        "check",
        usage=f"milterkit check [OPTION ...] {TARGET} [ARGUMENT ...]",
        help="look for mistakes in a filter, and say how to set the MTA up for it",
        description="Say what a filter negotiates with the MTA, look for likely mistakes in it, "
        "and print the lines for the MTA's configuration. The file is loaded, but nothing is "
        "served.",
        epilog="It looks for: "
        + "; ".join(f"{check.mistake} ({name})" for name, check in CHECKS.items())
        + ". Exit status: 0 nothing was found, 1 something was, 2 the file cannot be read.",
    )
    add_target(parser)
    parser.add_argument("--socket", metavar="SPEC",
                        help="where the filter listens; default: what the file says, or a socket "
                        "in /run")  # fmt: skip
    parser.add_argument("--mta", choices=tuple(MTAS),
                        help="the only MTA that the filter is meant for")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print the findings alone")
    add_traceback(parser)
    parser.set_defaults(command=_check)


def _check(arguments: argparse.Namespace) -> int:
    mtas = tuple(MTAS[name] for name in MTAS if arguments.mta in (name, None))
    file, _ = split_target(arguments.filter)
    try:
        with argv_of(arguments):
            loaded = load(arguments.filter)
            file = loaded.file
            name = re.sub(r"\W+", "-", Path(loaded.module.__file__ or file).stem)
            subject = subject_of(loaded.module, file, loaded.klass(), by_factory=loaded.by_factory)
        found = findings(subject, mtas)
        spec = arguments.socket or loaded.socket or subject.socket or f"unix:/run/{name}.sock"
        lines = settings(subject, spec, name, mtas)
    except CommandError as error:
        raise CommandError(str(error), Exit.USAGE) from error.__cause__
    except ValueError as error:  # it says itself what it is about
        raise CommandError(f"{file}: {error}", Exit.USAGE) from error
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
