"""`milterkit send`: gives messages to a filter and shows what becomes of them."""

from __future__ import annotations

import argparse
import email
import sys
from email.utils import getaddresses
from pathlib import Path
from typing import Any

from Milter.cli.exits import CommandError, Exit
from Milter.cli.show import Printer
from Milter.testing import MTA, Client, ConnectError, FilterError
from Milter.testing.mta import PROFILES

__all__ = ["add_parser"]

_NOBODY = "nobody@example.org"


def add_parser(commands: Any) -> None:
    """Adds `send` to the subparsers of `milterkit`, with the function that runs it as `command`."""
    parser = commands.add_parser(
        "send",
        help="send messages to a running filter",
        description="Send messages to a running filter, as an MTA does, and print for each the "
        "verdict, the reply, and what changed. No mail is delivered.",
        epilog="Exit status: "
        + "; ".join(f"{code.value} {code.name.lower().replace('_', ' ')}" for code in Exit)
        + ". Of several messages the greatest counts.",
    )
    parser.add_argument("messages", nargs="+", metavar="MESSAGE.eml",
                        help="files of one message each; - is standard input")  # fmt: skip
    parser.add_argument("--socket", required=True, metavar="SPEC",
                        help="where the filter listens: unix:PATH, inet:PORT@HOST, "
                        "inet6:PORT@HOST")  # fmt: skip
    parser.add_argument("--from", dest="sender", metavar="ADDRESS",
                        help="envelope sender; default: the message's From")  # fmt: skip
    parser.add_argument("--rcpt", action="append", metavar="ADDRESS",
                        help="envelope recipient, may be repeated; default: the message's To and "
                        "Cc")  # fmt: skip
    parser.add_argument("--client", type=_client, metavar="NAME[ADDRESS]",
                        help="the SMTP client; default: localhost[127.0.0.1]")  # fmt: skip
    parser.add_argument("--helo", metavar="NAME", help="default: the client's name")
    parser.add_argument("--macro", action="append", type=_macro, default=[], metavar="NAME=VALUE",
                        help="gives a macro a value, may be repeated")  # fmt: skip
    parser.add_argument("--profile", default="postfix", choices=tuple(PROFILES),
                        help="which MTA to behave as")  # fmt: skip
    parser.add_argument("--protocol-version", type=int, default=6, choices=(2, 3, 4, 5, 6))
    parser.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS",
                        help="how long to wait for an answer; default: 30")  # fmt: skip
    parser.add_argument("--trace", action="store_true", help="show the packets, both ways")
    parser.set_defaults(command=_send)


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


def _send(arguments: argparse.Namespace) -> int:
    mta = MTA(
        arguments.socket,
        profile=arguments.profile,
        version=arguments.protocol_version,
        macros=dict(arguments.macro),
        timeout=arguments.timeout,
    )
    printer = Printer(sys.stdout)
    worst = Exit.ACCEPTED
    try:
        for name in arguments.messages:
            worst = max(worst, _send_one(mta, printer, name, arguments))
        try:
            mta.close()
        except FilterError as error:
            worst = max(worst, _complain("after the last message", error))
    finally:
        mta.vanish()
    return worst


def _send_one(mta: MTA, printer: Printer, name: str, arguments: argparse.Namespace) -> Exit:
    content = _read(name)
    sender, rcpts = _addresses(content)
    if arguments.sender is not None:
        sender = arguments.sender
    try:
        result = mta.send(
            content, sender, arguments.rcpt or rcpts, client=arguments.client, helo=arguments.helo
        )
    except ConnectError as error:
        raise CommandError(str(error), Exit.CANNOT_CONNECT) from error
    except FilterError as error:
        return _complain(name, error)
    printer.result(name, result, trace=arguments.trace)
    return Exit.of(result.verdict)


def _complain(where: str, error: FilterError) -> Exit:
    sys.stdout.flush()
    print(f"milterkit: {where}: protocol error {error}", file=sys.stderr)
    return Exit.PROTOCOL_ERROR


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from error


def _addresses(content: bytes) -> tuple[str, list[str]]:
    """Sender and recipients as the message's own header has them."""
    message = email.message_from_bytes(content)

    def addresses(*names: str) -> list[str]:
        texts = [str(text) for name in names for text in message.get_all(name, [])]
        return [address for _, address in getaddresses(texts) if address]

    return next(iter(addresses("From")), _NOBODY), addresses("To", "Cc") or [_NOBODY]
