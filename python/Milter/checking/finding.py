"""What a check finds, and what a check is."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from Milter import macros
from Milter.checking.code import Code
from Milter.checking.subject import Subject

__all__ = ["Check", "Finding", "at", "via"]


class Finding(NamedTuple):
    """A likely mistake. file and line: where; text: what is wrong and what to do; check: its name
    in the table."""

    file: str
    line: int
    text: str
    check: str = ""

    def __str__(self) -> str:
        file = os.path.relpath(self.file)
        shown = self.file if file.startswith("..") else file
        return f"{shown}:{self.line}: {self.text} [{self.check}]"


@dataclass(frozen=True)
class Check:
    """A row of the table. mistake: what it looks for, in words; look: does it, for the MTAs that
    the filter is meant for."""

    mistake: str
    look: Callable[[Subject, tuple[macros.MtaMacros, ...]], Iterator[Finding]]


def at(code: Code, node: ast.AST, text: str) -> Finding:
    """A finding at a node of a function."""
    return Finding(code.file, getattr(node, "lineno", code.node.lineno), text)


def via(callback: str, inside: Code, subject: Subject) -> str:
    """How a function is reached: "in eom", "in helper(), called from eom"."""
    own = subject.callbacks[callback]
    name = f"in {callback}"
    return name if own is inside or own == inside else f"in {inside.name}(), called from {callback}"
