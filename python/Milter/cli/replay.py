"""`milterkit replay`: plays recorded sessions to a filter and shows where it answers otherwise."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from Milter.cli.exits import CommandError, Exit
from Milter.cli.load import target_of
from Milter.cli.parser import add_traceback
from Milter.cli.show import Printer
from Milter.testing import ConnectError
from Milter.testing.replaying import replay
from Milter.testing.target import Target, link_to
from Milter.testing.transcript import Transcript, parse

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Adds `replay` to the subparsers of `milterkit`; the function that runs it is `command`."""
    parser = commands.add_parser(
        "replay",
        usage="milterkit replay [OPTION ...] --to SPEC|FILE.py[:NAME]|MODULE:NAME FILE ...",
        help="play recorded sessions to a filter, and show where it answers otherwise",
        description="Play transcripts, as `milterkit record` writes them, to a filter, and show "
        "where it answers otherwise than it did then: the packet of the MTA, and what it was "
        "answered then (-) and now (+).",
        epilog="Exit status: 0 no difference, 1 differences, 2 a file cannot be read or the filter "
        "cannot be loaded, 3 there was no session to play, 15 the filter cannot be reached.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE",
                        help="transcripts, or folders of .transcript files")  # fmt: skip
    parser.add_argument("--to", required=True, metavar="SPEC|FILE.py[:NAME]",
                        help="the filter: where it listens, or the file that it is in, which is "
                        "then served for this")  # fmt: skip
    parser.add_argument("--ignore", type=_pattern, metavar="REGEX",
                        help="parts of answers that are not compared, such as times")  # fmt: skip
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS",
                        help="how long to wait for an answer; default: 30")  # fmt: skip
    add_traceback(parser)
    parser.set_defaults(command=_replay)


def _pattern(text: str) -> re.Pattern[bytes]:
    try:
        return re.compile(text.encode("utf-8", "surrogateescape"))
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _replay(arguments: argparse.Namespace) -> int:
    transcripts = [found for file in arguments.files for found in _read(file)]
    if not transcripts:
        names = ", ".join(map(str, arguments.files))
        raise CommandError(f"{names}: there is no recorded session in it", Exit.NOTHING)
    printer = Printer(sys.stdout)
    different = 0
    target = _target(arguments.to)
    for file, transcript in transcripts:
        try:
            link = link_to(target, arguments.timeout, {})
        except ConnectError as error:
            raise CommandError(str(error), Exit.CANNOT_CONNECT) from error
        link.socket.settimeout(arguments.timeout)
        try:
            found = replay(transcript, link.socket, arguments.ignore)
        except ValueError as error:
            raise CommandError(f"{file}: {error}", Exit.USAGE) from error
        finally:
            link.end(arguments.timeout)
        different += bool(found)
        if found:
            print(f"{file}: {transcript.title}: answers otherwise", flush=True)
            for each in found:
                printer.diff(str(each))
    print(f"{len(transcripts)} sessions played, {different} answered otherwise")
    return Exit.ERROR if different else Exit.ACCEPTED


def _read(path: Path) -> list[tuple[Path, Transcript]]:
    files = sorted(path.glob("*.transcript")) if path.is_dir() else [path]
    try:
        return [(file, each) for file in files for each in parse(file.read_text("utf-8"))]
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}", Exit.USAGE) from error
    except ValueError as error:
        raise CommandError(f"{path}: {error}", Exit.USAGE) from error


def _target(text: str) -> Target:
    """As target_of; what is wrong with it is a mistake of the command line."""
    try:
        return target_of(text)
    except CommandError as error:
        raise CommandError(str(error), Exit.USAGE) from error.__cause__
