"""`milterkit record`: stands between an MTA and a filter and writes down what passes."""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path
from typing import Any

from Milter._sockets import Socket
from Milter.cli.exits import CommandError, Exit
from Milter.cli.run import octal
from Milter.testing import ConnectError
from Milter.testing.recording import Recorder

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Adds `record` to the subparsers of `milterkit`; the function that runs it is `command`."""
    parser = commands.add_parser(
        "record",
        usage="milterkit record [OPTION ...] --listen SPEC --to SPEC FOLDER",
        help="write down what passes between an MTA and a filter",
        description="Listen in a filter's place, pass everything on to the filter and back, and "
        "write each connection to a file of its own in FOLDER when it is over: a transcript, for "
        "`milterkit replay`. Whatever happens to the writing, the mail goes on. SIGTERM, SIGHUP "
        "and Ctrl-C end it once the open connections have ended, at most 30 s later.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER",
                        help="where the transcripts go; made if it is missing. They hold mail: "
                        "only their owner can read them")  # fmt: skip
    parser.add_argument("--listen", required=True, metavar="SPEC",
                        help="where the MTA connects: unix:PATH, inet:PORT@HOST, inet6:PORT@HOST"
                        )  # fmt: skip
    parser.add_argument("--to", required=True, metavar="SPEC", help="where the filter listens")
    parser.add_argument("--mode", type=octal, metavar="OCTAL", help="mode of the unix socket")
    parser.add_argument("--mask", action="store_true",
                        help="replace addresses, names, header values, bodies and texts by "
                        "fillers of the same length")  # fmt: skip
    parser.set_defaults(command=_record)


def _record(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level="INFO", format="%(asctime)s %(name)s %(levelname)s %(message)s")
    try:
        recorder = Recorder(
            arguments.listen,
            arguments.to,
            arguments.folder,
            masked=arguments.mask,
            mode=arguments.mode,
        )
    except ConnectError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{arguments.folder}: {error.strerror}") from error
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: recorder.stop())
    logging.getLogger("Milter").info(
        "recording to %s what passes between %s and %s%s",
        arguments.folder,
        recorder.address,
        arguments.to,
        Socket.parse(recorder.address).note,
    )
    recorder.run()
    recorder.close()
    return Exit.ACCEPTED
