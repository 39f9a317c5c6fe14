"""Results as people read them at a terminal: verdict, reply, what changed."""

from __future__ import annotations

import os
from typing import TextIO

from Milter.testing import Reply, Result, Verdict
from Milter.testing.table import Row
from Milter.testing.table import table as rows_as_lines
from Milter.testing.text import printable

__all__ = ["Printer"]

_RESET = "\x1b[0m"
_BOLD, _DIM, _RED, _GREEN, _YELLOW, _CYAN = (f"\x1b[{n}m" for n in (1, 2, 31, 32, 33, 36))

_VERDICT_COLOURS = {
    Verdict.ACCEPTED: _GREEN,
    Verdict.QUARANTINED: _YELLOW,
    Verdict.DISCARDED: _YELLOW,
    Verdict.TEMPFAILED: _YELLOW,
    Verdict.REJECTED: _RED,
}
# What a line of a unified difference begins with; the first that fits counts.
_DIFF_COLOURS = (("---", _BOLD), ("+++", _BOLD), ("@@", _CYAN), ("+", _GREEN), ("-", _RED))


class Printer:
    """Prints results to a stream.

    colour: whether with colours; None for "if it is a terminal and NO_COLOR is not set".
    """

    def __init__(self, stream: TextIO, *, colour: bool | None = None) -> None:
        self._stream = stream
        if colour is None:
            colour = (
                stream.isatty()
                and not os.environ.get("NO_COLOR")
                and os.environ.get("TERM") != "dumb"
            )
        self._colour = colour

    def result(
        self, name: str, result: Result, *, table: bool = False, trace: bool = False
    ) -> None:
        """One message's outcome. name: what the message is called; table: the steps and their
        answers too; trace: the packets too."""
        verdict = self._paint(str(result.verdict), _VERDICT_COLOURS[result.verdict])
        line = f"{self._paint(printable(name), _BOLD)}: {verdict}"
        if result.step != "eom":
            line += f" at {result.step}"
        if result.verdict is Verdict.QUARANTINED and result.quarantine is not None:
            line += f": {printable(result.quarantine)}"
        self._line(line + _reply(result.reply, indent=2))
        for row in rows_as_lines(result.steps()) if table else ():
            self._line(f"  {self._paint(row, _DIM)}")
        for error in result.errors:
            self._line(f"  {self._paint(f'error {printable(str(error))}', _RED)}")
        for each in result.recipients:
            if each.verdict is not result.verdict:
                colour = _VERDICT_COLOURS[each.verdict]
                self._line(
                    f"  <{printable(each.address)}>: {self._paint(str(each.verdict), colour)}"
                    + _reply(each.reply, indent=4)
                )
        if trace:
            for packet in result.trace:
                self._line(f"  {self._paint(packet, _DIM)}")
        if result.verdict.queued:
            self.diff(result.diff())
        self._stream.flush()

    def session(self, steps: list[Row], trace: list[str]) -> None:
        """What passed in a session without an outcome: its steps and their answers, its packets."""
        for line in (*rows_as_lines(steps), *trace):
            self._line(f"  {self._paint(line, _DIM)}")
        self._stream.flush()

    def diff(self, diff: str) -> None:
        """A unified difference, indented."""
        for line in diff.split("\n") if diff else ():
            colour = next((code for start, code in _DIFF_COLOURS if line.startswith(start)), "")
            self._line(f"  {self._paint(line, colour)}")

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour and colour else text

    def _line(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=self._stream)


def _reply(reply: Reply | None, indent: int) -> str:
    """A reply behind what it belongs to; several lines go below it."""
    if reply is None:
        return ""
    lines = [printable(line) for line in str(reply).split("\n")]
    start = " " if len(lines) == 1 else "\n" + " " * indent
    return ":" + "".join(start + line for line in lines)
