"""The commands' parser: what is wrong comes first, then a line of usage; near misses are named."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from Milter.cli.exits import Exit

__all__ = ["TARGET", "Parser", "add_target", "add_traceback", "argv_of", "program_parser"]

TARGET = "FILE.py[:NAME]|MODULE:NAME"
"""How a filter is named."""


def program_parser(commands: Any, name: str, **keywords: Any) -> Any:
    """Adds the parser of a command that loads a program and gives it arguments."""
    kept, commands._parser_class = commands._parser_class, ProgramParser
    try:
        return commands.add_parser(name, **keywords)
    finally:
        commands._parser_class = kept


def add_target(parser: Any) -> None:
    """Adds the program that is loaded, and its arguments."""
    parser.add_argument("filter", metavar=TARGET,
                        help="the file, or a module that can be imported from here; NAME is the "
                        "class or factory in it, needed if there are several classes derived from "
                        "Milter.Base; with none, the functions that it gives to `milter` count"
                        )  # fmt: skip
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT",
                        help="what the program finds in sys.argv; its own options as well, behind "
                        "its name, or all that stands behind --")  # fmt: skip


@contextmanager
def argv_of(arguments: argparse.Namespace) -> Iterator[None]:
    """Lets the program find its own arguments."""
    argv, sys.argv = sys.argv, [arguments.filter, *arguments.arguments]
    try:
        yield
    finally:
        sys.argv = argv


def add_traceback(parser: Any) -> None:
    """Adds --traceback to the parser of a command that loads a filter."""
    parser.add_argument("--traceback", action="store_true",
                        help="show the whole traceback of an error in the filter")  # fmt: skip


class Parser(argparse.ArgumentParser):
    """A parser whose options cannot be abbreviated, and which speaks in two lines. Its `usage` is
    to be one line."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **keywords})
        self._given: list[str] = []

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Refuses what is unknown itself, so that the usage is that of the command."""
        self._given = list(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(args, namespace)
        return found, self.left_over(found, unknown)

    def left_over(self, _found: argparse.Namespace, unknown: list[str]) -> list[str]:
        """What becomes of unknown arguments: an error, for most commands."""
        if unknown:
            options = [each for each in unknown if each.startswith("-")]
            self.error(f"{(options or unknown)[0]}: there is no such " + (
                f"option{self.near(options[0])}" if options else "argument"))  # fmt: skip
        return []

    def near(self, option: str) -> str:
        """`; did you mean ...?` for an option that is nearly one of these."""
        return _meant(option.partition("=")[0], list(self._option_string_actions))

    def _misspelled(self) -> str:
        """What is nearly an option: then that one is what is missing."""
        for each in self._given:
            known = each.partition("=")[0] in self._option_string_actions
            if each.startswith("--") and not known and (meant := self.near(each)):
                return f"{each}: there is no such option{meant}"
        return ""

    def error(self, message: str) -> NoReturn:
        """Ends the process."""
        if message.startswith("the following arguments are required"):
            message = self._misspelled() or message
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            known = re.split(r"[', ]+", choice[2].strip("'"))
            message = message[: choice.start()] + (
                f"{choice[1]!r} is not one of: {', '.join(known)}{_meant(choice[1], known)}"
            )
        print(f"{self.prog}: {message}", file=sys.stderr)
        print(" ".join(self.format_usage().split()), file=sys.stderr)
        sys.exit(Exit.USAGE)


class ProgramParser(Parser):
    """The parser of a command that loads a program: behind the program's name the options that the
    command does not know are the program's, and behind `--` all. A near miss is an error all the
    same."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """The program's arguments are in `arguments`."""
        given = list(sys.argv[1:] if args is None else args)
        at = given.index("--") if "--" in given else len(given)
        found, _ = super().parse_known_args(given[:at], namespace)
        found.arguments = [*found.arguments, *given[at + 1 :]]
        return found, []

    def left_over(self, found: argparse.Namespace, unknown: list[str]) -> list[str]:
        """They are the program's, but for near misses."""
        for each in unknown:
            meant = self.near(each) if each.startswith("--") else ""
            if meant:
                self.error(f"{each}: there is no such option{meant} (write -- before options of "
                           f"{found.filter} itself)")  # fmt: skip
        found.arguments = [*found.arguments, *unknown]
        return []


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    near = near or [each for each in known if len(word) > 3 and each.startswith(word)][:1]
    return f"; did you mean {near[0]}?" if near else ""
