"""The command line: its parser and what all commands share. A command is a module here with
add_parser(), which names its function."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from Milter import __version__
from Milter.cli import check, record, replay, run, send
from Milter.cli.exits import CommandError, Exit, Stopped
from Milter.cli.parser import Parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status (Milter.cli.exits).

    argv: arguments without the program's name; sys.argv's if None. Errors of the user and of
    filters are one line on standard error, behind their traceback with --traceback; the parser
    ends the process for usage errors.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except CommandError as error:
        if error.__cause__ and getattr(arguments, "traceback", False):
            traceback.print_exception(error.__cause__)
        print(f"milterkit: {error}", file=sys.stderr)
        return error.status
    except Stopped:
        return Exit.ACCEPTED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.ERROR


def _parser() -> Parser:
    parser = Parser(
        prog="milterkit",
        usage="%(prog)s COMMAND ... (`%(prog)s COMMAND --help` says more)",
        description="Run mail filters, check them, and send messages to them.",
    )
    parser.add_argument("--version", action="version", version=f"milterkit {__version__}")
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, prog="milterkit", parser_class=Parser
    )
    for module in (run, send, check, record, replay):
        module.add_parser(commands)
    return parser
