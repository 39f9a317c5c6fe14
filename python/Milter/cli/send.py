"""`milterkit send`: gives messages to a filter and shows what becomes of them."""

from __future__ import annotations

import argparse
import email
import email.message
import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from email.utils import getaddresses
from pathlib import Path
from typing import Any

from Milter import _wire
from Milter.cli.exits import CommandError, Exit
from Milter.cli.load import target_of
from Milter.cli.output import Folder, described, described_load
from Milter.cli.parser import add_traceback
from Milter.cli.places import author_place, callback_place, shown
from Milter.cli.progress import Progress
from Milter.cli.show import Printer
from Milter.cli.sources import Source, sources_in
from Milter.testing import MTA, CallbackError, Client, ConnectError, FilterError, Result
from Milter.testing.mta import PROFILES
from Milter.testing.repeating import Job, Load, repeat
from Milter.testing.steps import STEPS
from Milter.testing.text import printable

__all__ = ["add_parser"]

_NOBODY = "nobody@example.org"
_HEAD = 1 << 16  # bytes in which the addresses of a message are looked for
_ODD = re.compile(r"[\x00-\x20<>\x7f]")


def add_parser(commands: Any) -> None:
    """Adds `send` to the subparsers of `milterkit`, with the function that runs it as `command`."""
    parser = commands.add_parser(
        "send",
        usage="milterkit send [OPTION ...] --to SPEC|FILE.py[:NAME]|MODULE:NAME [MESSAGE ...]",
        help="send messages to a filter, and show what becomes of them",
        description="Give messages to a filter, as an MTA does, and print for each the verdict, "
        "the steps and their answers, and what changed. No mail is delivered.",
        epilog="Exit status: "
        + "; ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit)
        + ". Of several messages the greatest counts. A protocol error is also a filter that "
        "closes, that does not answer in time, or that raises an exception.",
    )
    parser.add_argument("messages", nargs="*", metavar="MESSAGE",
                        help="a file of one message, an mbox or a maildir; - or nothing is "
                        "standard input")  # fmt: skip
    parser.add_argument("--to", "--socket", dest="to", required=True, metavar="SPEC|FILE.py[:NAME]",
                        help="the filter: where it listens (unix:PATH, inet:PORT@HOST, "
                        "inet6:PORT@HOST), or the file that it is in, which is then served for "
                        "this")  # fmt: skip

    envelope = parser.add_argument_group("the envelope and the client")
    envelope.add_argument("--from", dest="sender", metavar="ADDRESS",
                          help="envelope sender; ESMTP parameters may follow, as in 'a@b SIZE=9'; "
                          "default: the message's Return-Path, or else its From")  # fmt: skip
    envelope.add_argument("--rcpt", action="append", metavar="ADDRESS",
                          help="envelope recipient, may be repeated; default: the message's To and "
                          "Cc")  # fmt: skip
    envelope.add_argument("--client", type=_client, metavar="NAME[ADDRESS]:PORT",
                          help="the SMTP client; default: localhost[127.0.0.1]")  # fmt: skip
    envelope.add_argument("--helo", metavar="NAME", help="default: the client's name")
    envelope.add_argument("--auth", metavar="NAME", help="the client has logged in as NAME")
    envelope.add_argument("--tls", action="store_true", help="the client has used STARTTLS")

    mta = parser.add_argument_group("the MTA")
    mta.add_argument("--profile", default="postfix", choices=tuple(PROFILES),
                     help="which MTA to behave as; default: postfix")  # fmt: skip
    mta.add_argument("--hostname", default="mta.example.org", metavar="NAME",
                     help="the MTA's own name; default: mta.example.org")  # fmt: skip
    mta.add_argument("--macro", action="append", type=_macro, default=[], metavar="NAME=VALUE",
                     help="gives a macro a value, may be repeated")  # fmt: skip
    mta.add_argument("--no-macro", action="append", default=[], metavar="NAME",
                     help="leaves a macro without a value, may be repeated")  # fmt: skip
    mta.add_argument("--protocol-version", type=int, default=6, choices=(2, 3, 4, 5, 6),
                     help="the version to offer; default: 6")  # fmt: skip
    mta.add_argument("--actions", type=_mask(_wire.ACTIONS), default=_wire.ALL_ACTIONS,
                     metavar="MASK", help="actions to offer, a number or names such as "
                     "ADDHDRS+CHGBODY; default: all")  # fmt: skip
    mta.add_argument("--protocol", type=_mask(_wire.PROTOCOL), metavar="MASK",
                     help="protocol options to offer, a number or names such as NOBODY+SKIP; "
                     "default: those of the MTA")  # fmt: skip
    mta.add_argument("--timeout", type=_positive(float), default=30.0, metavar="SECONDS",
                     help="how long to wait for an answer; default: 30")  # fmt: skip
    mta.add_argument("--wait", type=_positive(float, or_zero=True), default=1.0, metavar="SECONDS",
                     help="how long to try again while nobody listens at the socket; default: 1"
                     )  # fmt: skip
    mta.add_argument("--time-out-at", choices=tuple(STEPS),
                     help="a step at which the answer is not awaited, as if it came too late"
                     )  # fmt: skip
    mta.add_argument("--default-action", metavar="ACTION",
                     help="do about an error of the filter what the MTA does: tempfail, reject, "
                     "accept, quarantine (postfix), shutdown (sendmail); default: an error ends "
                     "the session")  # fmt: skip

    output = parser.add_argument_group("output")
    output.add_argument("--trace", action="store_true", help="show the packets, both ways")
    output.add_argument("--json", action="store_true", help="print one JSON object a line instead")
    output.add_argument("--quiet", action="store_true", help="print errors alone")
    output.add_argument("--output", type=Path, metavar="DIR",
                        help="write each message that was accepted or quarantined to a file in "
                        "DIR, as the MTA would queue it")  # fmt: skip

    load = parser.add_argument_group("load")
    load.add_argument("--repeat", type=_positive(int), default=1, metavar="N",
                      help="send each message N times, and print one line with figures"
                      )  # fmt: skip
    load.add_argument("--parallel", type=_positive(int), default=1, metavar="N",
                      help="send by N connections at once")  # fmt: skip
    add_traceback(parser)
    parser.set_defaults(command=_send, error=parser.error)


# --------------------------------------------------------------------------------------- arguments


def _client(text: str) -> Client:
    try:
        return Client.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _macro(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _mask(names: Mapping[str, int]) -> Any:
    def parse(text: str) -> int:
        try:
            return int(text, 0) & 0xFFFFFFFF
        except ValueError:
            pass
        try:
            return sum({names[name.upper()] for name in text.split("+")})
        except KeyError as error:
            known = ", ".join(names)
            raise argparse.ArgumentTypeError(f"there is no {error}; there are: {known}") from None

    return parse


def _positive(number: type, or_zero: bool = False) -> Any:
    def parse(text: str) -> Any:
        try:
            value = number(text)
        except ValueError:
            value = -1
        if not (0 < value < 1e9 or (or_zero and value == 0)):
            least = "from 0 on" if or_zero else "above 0"
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {least}")
        return value

    return parse


# --------------------------------------------------------------------------------------- the whole


def _send(arguments: argparse.Namespace) -> int:
    if max(arguments.repeat, arguments.parallel) > 1 and (arguments.output or arguments.trace):
        arguments.error("--repeat and --parallel do not go with --output and --trace")
    if arguments.messages == [] and sys.stdin.isatty():
        arguments.error("no MESSAGE is given, and standard input is a terminal")
    sources = [each for name in arguments.messages or ["-"] for each in sources_in(name)]
    if not sources:
        names = ", ".join(arguments.messages)
        raise CommandError(f"{names}: there is no message in it", Exit.NOTHING)
    if arguments.output:
        folder = Folder(arguments.output)
    target = target_of(arguments.to)
    _quiet_log()

    def make() -> MTA:
        return MTA(
            target,
            profile=arguments.profile,
            version=arguments.protocol_version,
            actions=arguments.actions,
            protocol=arguments.protocol,
            macros={**dict(arguments.macro), **dict.fromkeys(arguments.no_macro)},
            hostname=arguments.hostname,
            timeout=arguments.timeout,
            wait=arguments.wait,
            strict=arguments.default_action is None,
            default_action=arguments.default_action or "tempfail",
        )

    try:
        mta = make()
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error
    if arguments.repeat > 1 or arguments.parallel > 1:
        return _load(make, sources, arguments)
    return _each(mta, sources, arguments, folder if arguments.output else None)


def _quiet_log() -> None:
    """What the filter's server logs, in one line each. What is raised is told as a result."""
    logger = logging.getLogger("Milter")
    if logger.handlers or logging.getLogger().handlers:
        return  # the filter has its own way
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: not record.exc_info)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    logger.addHandler(handler)


# ------------------------------------------------------------------------------------ one by one


def _each(
    mta: MTA, sources: Sequence[Source], arguments: argparse.Namespace, folder: Folder | None
) -> Exit:
    printer = Printer(sys.stdout)
    worst = Exit.ACCEPTED
    with Progress(len(sources)) as progress:

        def tell(name: str, told: Result | FilterError) -> Exit:
            if isinstance(told, FilterError) or not arguments.quiet:
                progress.clear()
            if arguments.json and not arguments.quiet:
                print(json.dumps(described(name, told)), flush=True)
            elif isinstance(told, FilterError):
                sys.stdout.flush()
                _complain(name, told, arguments, mta.tried.filter if mta.tried else None)
                if arguments.trace and mta.tried:
                    printer.session(mta.tried.steps(), mta.tried.trace)
            elif not arguments.quiet:
                printer.result(name, told, table=True, trace=arguments.trace)
            if isinstance(told, FilterError):
                return Exit.PROTOCOL_ERROR
            return max(Exit.of(told.verdict), Exit.PROTOCOL_ERROR if told.errors else Exit.ACCEPTED)

        try:
            for done, source in enumerate(sources):
                progress.step(done)
                try:
                    job = _job(source, arguments)
                    result = mta.send(*job.arguments, **job.options)
                except ConnectError as error:
                    raise CommandError(str(error), Exit.CANNOT_CONNECT) from error
                except FilterError as error:
                    mta.vanish()
                    worst = max(worst, tell(source.name, error))
                else:
                    worst = max(worst, tell(source.name, result))
                    if folder and result.verdict.queued:
                        folder.write(source.file_name, result)
                    del job, result  # before the next one is read
            try:
                mta.close()
            except FilterError as error:
                worst = max(worst, tell("after the last message", error))
        finally:
            mta.vanish()
    return worst


def _complain(
    name: str, error: FilterError, arguments: argparse.Namespace, filter_: object = None
) -> None:
    """Prints an error in a line, with its place where the filter is in this process. filter_: its
    object, if that is known."""
    cause = error.__cause__ if isinstance(error, CallbackError) else None
    if cause and arguments.traceback:
        traceback.print_exception(cause)
    kind = "" if isinstance(error, CallbackError) else "protocol error "
    place = author_place(cause) if cause else None
    if isinstance(error, CallbackError) and not place and filter_ is not None:
        place = callback_place(filter_, error.step)
    where = f" ({shown(place[0])}, line {place[1]})" if place else ""
    line = printable(f"{name}: {kind}{error}{where}").replace("\\x0a", " ")
    print(f"milterkit: {line}", file=sys.stderr)


def _job(source: Source, arguments: argparse.Namespace) -> Job:
    content = source.read()
    sender, rcpts = _addresses(content)
    if arguments.sender is not None:
        sender = arguments.sender.split() or [""]
    if arguments.rcpt:
        rcpts = [rcpt.split() or [""] for rcpt in arguments.rcpt]
    options = {
        "client": arguments.client,
        "helo": arguments.helo,
        "tls": arguments.tls,
        "auth": arguments.auth,
        "time_out_at": arguments.time_out_at,
    }
    return Job(source.name, (content, sender, rcpts), options)


def _addresses(content: bytes) -> tuple[list[str], list[list[str]]]:
    """Sender and recipients as the message's own header has them."""
    head = re.split(rb"\r?\n\r?\n", content[:_HEAD], maxsplit=1)[0]
    fields = email.message_from_bytes(head).raw_items()  # bytes stay, as surrogates
    values: dict[str, list[str]] = {}
    for name, value in fields:
        values.setdefault(name.lower(), []).append(str(value))

    def addresses(*names: str) -> Iterator[str]:
        texts = [text for name in names for text in values.get(name, ())]
        try:
            found = getaddresses(texts)
        except RecursionError:  # thousands of brackets
            return
        for _, address in found:
            if address and not _ODD.search(address):
                yield address

    rcpts = [[address] for address in addresses("to", "cc")]
    is_null = [text.strip() for text in values.get("return-path", ())[:1]] == ["<>"]
    sender = "" if is_null else next(addresses("return-path", "from"), _NOBODY)
    return [sender], rcpts or [[_NOBODY]]


# ------------------------------------------------------------------------------------------- load


def _load(make: Any, sources: Sequence[Source], arguments: argparse.Namespace) -> Exit:
    jobs = [_job(source, arguments) for source in sources]
    with Progress(len(jobs) * arguments.repeat) as progress:
        load = repeat(make, jobs, arguments.repeat, arguments.parallel, progress.step)
    if arguments.json and not arguments.quiet:
        print(json.dumps(described_load(load)))
    elif load.messages and not arguments.quiet:
        print(_figures(load))
    worst = max((Exit.of(verdict) for verdict in load.verdicts), default=Exit.ACCEPTED)
    if load.error:
        name, error = load.error
        sys.stdout.flush()
        if isinstance(error, ConnectError):
            raise CommandError(str(error), Exit.CANNOT_CONNECT) from error
        if not isinstance(error, FilterError):
            raise error
        _complain(name, error, arguments)
        return Exit.PROTOCOL_ERROR
    return worst


def _figures(load: Load) -> str:
    rate = load.messages / load.seconds if load.seconds else 0.0
    latencies = ", ".join(
        f"{name} {load.percentile(share) * 1000:.3f} ms"
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("most", 1))
    )
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(load.verdicts.items()))
    return f"{load.messages} messages in {load.seconds:.2f} s, {rate:.0f}/s; {latencies}" + (
        f"; {verdicts}" if verdicts else ""
    )
