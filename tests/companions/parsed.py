"""A program for the older package and for ours: what Milter.sgmllib calls for texts. They come as
JSON on stdin, each a list of the pieces in which it is fed."""

from __future__ import annotations

import json
import sys
from typing import Any

from Milter.sgmllib import SGMLParser


class Told(SGMLParser):
    """Notes its calls. s and u have an end, n has none, d is empty; l and m begin text."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        super().__init__()

    def handle_data(self, data: str) -> None:
        if self.calls and self.calls[-1][0] == "data":
            self.calls[-1][1] += data
        else:
            self.calls.append(["data", data])

    def unknown_starttag(self, tag: str, attrs: Any) -> None:
        self.calls.append(["start", tag, attrs, self.get_starttag_text()])

    def start_l(self, attrs: Any) -> None:
        self.calls.append(["start_l", attrs])
        self.setliteral()

    def start_m(self, attrs: Any) -> None:
        self.calls.append(["start_m", attrs])
        self.setnomoretags()


def note(name: str) -> Any:
    return lambda self, *args: self.calls.append([name, *args])


for each in (
    *("handle_comment", "handle_decl", "handle_pi", "unknown_endtag", "unknown_charref"),
    *("unknown_entityref", "unknown_decl", "report_unbalanced"),
    *("start_s", "end_s", "start_u", "end_u", "start_n", "do_d", "end_l"),
):
    setattr(Told, each, note(each))


def told(pieces: list[str]) -> Any:
    """The calls for a text in these pieces, and what is open at its end."""
    parser = Told()
    try:
        for piece in pieces:
            parser.feed(piece)
        parser.calls.append(["closed"])
        parser.close()
    except Exception as error:
        return type(error).__name__
    return [parser.calls, parser.stack]


if __name__ == "__main__":
    print(json.dumps([told(pieces) for pieces in json.load(sys.stdin)]))
