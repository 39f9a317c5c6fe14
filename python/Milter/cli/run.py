"""`milterkit run`: serves a filter from a Python file."""

from __future__ import annotations

import argparse
import logging
from typing import Any

import milter

from Milter import Server
from Milter.cli.exits import CommandError, Exit
from Milter.cli.load import load_filter

__all__ = ["add_parser", "octal"]

# Options that are Milter.Server's arguments of the same name; left out when not given.
_SERVER_OPTIONS = (
    "name", "timeout", "mode", "owner", "group", "max_connections", "max_threads", "drain",
    "progress",
)  # fmt: skip
# What milter._settings() returns, by the names of these arguments.
_MODULE_SETTINGS = ("actions", "exception_policy", "timeout", "backlog")
_POLICIES = ("tempfail", "reject", "accept", "continue")


def add_parser(commands: Any) -> None:
    """Adds `run` to the subparsers of `milterkit`, with the function that runs it as `command`."""
    parser = commands.add_parser(
        "run",
        help="run a filter from a Python file",
        description="Run a filter from a Python file until SIGTERM, SIGHUP or Ctrl-C. It logs to "
        "standard error. Exit status: 0 when it was stopped, 1 when it could not be loaded or "
        "served.",
    )
    parser.add_argument("filter", metavar="FILE.py[:NAME]",
                        help="the file; NAME is the class or factory in it, needed if there are "
                        "several classes derived from Milter.Base; with none, the functions that "
                        "it gives to `milter` are served")  # fmt: skip
    parser.add_argument("--socket", required=True, metavar="SPEC",
                        help="where to listen: unix:PATH, inet:PORT@HOST, inet6:PORT@HOST, "
                        "fd:NUMBER")  # fmt: skip
    parser.add_argument("--name", help="the filter's name in log lines and replies; "
                        "default: what its class or function is called")  # fmt: skip
    parser.add_argument("--timeout", type=int, metavar="SECONDS",
                        help="how long to wait for the MTA; default: 7210")  # fmt: skip
    parser.add_argument("--mode", type=octal, metavar="OCTAL", help="mode of the unix socket")
    parser.add_argument("--owner", metavar="USER", help="owner of the unix socket")
    parser.add_argument("--group", help="group of the unix socket")
    parser.add_argument("--max-connections", type=int, metavar="N",
                        help="how many may be open; past it new ones are closed at once"
                        )  # fmt: skip
    parser.add_argument("--max-threads", type=int, metavar="N",
                        help="how many callbacks may run at once")  # fmt: skip
    parser.add_argument("--drain", type=int, metavar="SECONDS",
                        help="how long messages may take to finish after a stop; default: 30"
                        )  # fmt: skip
    parser.add_argument("--progress", type=float, metavar="SECONDS",
                        help="how long the end of a message may take before the MTA is told to "
                        "wait on; 0: it never is; default: 30")  # fmt: skip
    parser.add_argument("--exception-policy", choices=_POLICIES,
                        help="what the MTA is told when the filter raises; default: what the "
                        "file has set, or tempfail"
                        )  # fmt: skip
    parser.add_argument(
        "--log-level",
        default="info",
        choices=("debug", "info", "warning", "error"),
        help="the least level that is logged; default: info",
    )
    parser.set_defaults(command=_run)


def octal(text: str) -> int:
    """The argument of --mode."""
    try:
        return int(text, 8)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no octal number") from None


def _run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    factory = load_filter(arguments.filter)
    # What the file has set by the functions of `milter` counts, as it does for runmilter.
    settings = dict(zip(_MODULE_SETTINGS, milter._settings(), strict=True))
    given = {
        name: getattr(arguments, name)
        for name in _SERVER_OPTIONS
        if getattr(arguments, name) is not None
    }
    options: dict[str, Any] = {**settings, **given}
    if arguments.exception_policy:
        options["exception_policy"] = getattr(milter, arguments.exception_policy.upper())
    try:
        server = Server(factory, arguments.socket, **options)
        server.open()
    except (milter.error, OSError, ValueError, LookupError) as error:
        raise CommandError(f"cannot serve {arguments.socket}: {error}") from error
    try:
        server.serve_forever()
    except milter.error as error:
        raise CommandError(f"cannot serve {arguments.socket}: {error}") from error
    return Exit.ACCEPTED
