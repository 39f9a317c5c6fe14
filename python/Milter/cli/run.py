"""`milterkit run`: serves a filter from a Python file."""

from __future__ import annotations

import argparse
import ast
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import milter

from Milter import Server
from Milter._server import LIMITS
from Milter.checking.program import socket_of, undone
from Milter.cli.exits import CommandError, Exit, Stopped
from Milter.cli.load import Loaded, load
from Milter.cli.parser import TARGET, add_target, add_traceback, argv_of, program_parser

__all__ = ["add_parser", "octal"]

# Options that are Milter.Server's arguments of the same name; left out when not given.
_SERVER_OPTIONS = (
    "name", "timeout", "mode", "owner", "group", "max_connections", "max_threads", "drain",
    "progress", "grace", "deadline", "backlog",
)  # fmt: skip
# What milter._settings() returns, by the names of these arguments.
_MODULE_SETTINGS = ("actions", "exception_policy", "timeout", "backlog")
_POLICIES = ("tempfail", "reject", "accept", "continue")


def add_parser(commands: Any) -> None:
    """Adds `run` to the subparsers of `milterkit`, with the function that runs it as `command`."""
    parser = program_parser(
        commands,
        "run",
        help="run a filter from a Python file",
        usage=f"milterkit run [OPTION ...] {TARGET} [ARGUMENT ...]",
        description="Run a filter from a Python file until SIGTERM, SIGHUP or Ctrl-C. It logs to "
        "standard error. Exit status: 0 when it was stopped, also while it started; 1 when it "
        "could not be loaded or served.",
    )
    add_target(parser)
    parser.add_argument("--socket", metavar="SPEC",
                        help="where to listen: unix:PATH, inet:PORT@HOST, inet6:PORT@HOST, "
                        "fd:NUMBER; default: what the file gives to runmilter")  # fmt: skip
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
    parser.add_argument("--backlog", type=int, metavar="N",
                        help="how many connections may wait to be accepted; default: the "
                        "system's most")  # fmt: skip
    parser.add_argument("--limit", action="append", type=_limit, metavar="NAME=N", default=[],
                        help="what a peer may send or make the filter hold: packet, macros, "
                        "header_bytes, output (bytes), recipients; can be given several times"
                        )  # fmt: skip
    parser.add_argument("--max-threads", type=int, metavar="N",
                        help="how many callbacks may run at once")  # fmt: skip
    parser.add_argument("--drain", type=int, metavar="SECONDS",
                        help="how long messages may take to finish after a stop; default: 30"
                        )  # fmt: skip
    parser.add_argument("--grace", type=int, metavar="SECONDS",
                        help="how long callbacks may take once all is ended, before they are left "
                        "behind; default: 5")  # fmt: skip
    parser.add_argument("--deadline", type=float, metavar="SECONDS",
                        help="how long a callback may take before its step is answered without it; "
                        "default: any time")  # fmt: skip
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
    parser.add_argument("--log-messages", action="store_true",
                        help="log a line at the level info for each verdict that decides about a "
                        "message, a recipient or a client")  # fmt: skip
    add_traceback(parser)
    parser.set_defaults(command=_run)


def octal(text: str) -> int:
    """The argument of --mode."""
    try:
        return int(text, 8)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no octal number") from None


class _Ending:
    """What SIGTERM and SIGHUP do: end the command while the filter is loaded, then its server."""

    def __init__(self) -> None:
        self.server: Server | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.server is None:
            raise Stopped
        self.server.stop()


@contextmanager
def _ending_by_signals() -> Iterator[_Ending]:
    """Takes these signals, where they have their default action; the filter's file may still set
    handlers of its own."""
    ending = _Ending()
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, ending)
    try:
        yield ending
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is ending:
                signal.signal(number, handler)


def _limit(text: str) -> tuple[str, int]:
    """The argument of --limit."""
    name, _, number = text.partition("=")
    if name not in LIMITS or not number.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=N with a name of {', '.join(LIMITS)}"
        )
    return name, int(number)


def _run(arguments: argparse.Namespace) -> int:
    with _ending_by_signals() as ending:
        return _load_and_serve(arguments, ending)


def _load_and_serve(arguments: argparse.Namespace, ending: _Ending) -> int:
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    with argv_of(arguments):
        loaded = load(arguments.filter)
    factory = loaded.serving()
    spec = arguments.socket or _own_socket(loaded)
    _name_undone(loaded)
    # What the file has set by the functions of `milter` counts, as it does for runmilter.
    settings = dict(zip(_MODULE_SETTINGS, milter._settings(), strict=True))
    given = {
        name: getattr(arguments, name)
        for name in _SERVER_OPTIONS
        if getattr(arguments, name) is not None
    }
    options: dict[str, Any] = {**settings, **given}
    options["limits"] = dict(arguments.limit)
    if arguments.exception_policy:
        options["exception_policy"] = getattr(milter, arguments.exception_policy.upper())
    try:
        server = ending.server = Server(
            factory, spec, log_messages=arguments.log_messages, **options
        )
        server.open()
    except (milter.error, OSError, ValueError, LookupError) as error:
        raise CommandError(f"cannot serve {spec}: {error}") from error
    try:
        server.serve_forever()
    except milter.error as error:
        raise CommandError(f"cannot serve {spec}: {error}") from error
    return Exit.ACCEPTED


def _source(loaded: Loaded) -> ast.Module:
    try:
        return ast.parse(Path(loaded.module.__file__ or "").read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _own_socket(loaded: Loaded) -> str:
    """Where the file itself would be served."""
    found = loaded.socket or socket_of(_source(loaded), vars(loaded.module))
    if not found:
        raise CommandError(
            f"{loaded.file}: it does not say where to listen: give --socket, such as "
            "--socket unix:filter.sock or --socket inet:8894@127.0.0.1",
            Exit.USAGE,
        )
    return found


def _name_undone(loaded: Loaded) -> None:
    """Warns of what the file does as a program, and not as a module."""
    if loaded.module.__name__ == "__main__":
        return
    if left := undone(_source(loaded)):
        line, text = left[0]
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        logging.getLogger("Milter").warning(
            "%s, line %d: what it does as a program before it serves is not done here: %s%s; run "
            "it by python, or do that where the module is loaded",
            loaded.file, line, text, more,
        )  # fmt: skip
