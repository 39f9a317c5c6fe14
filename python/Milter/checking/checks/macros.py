"""Checks of macros: those that are read, and those that are asked for."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from Milter import macros
from Milter._decorators import symlists
from Milter.checking.checks.actions import used
from Milter.checking.code import Code, called_name, literal
from Milter.checking.finding import Finding, at, via
from Milter.checking.subject import Subject, Use

__all__ = ["asked_for", "braces", "macros_read", "missing_macros", "unsent"]


class Read(NamedTuple):
    """A macro that a callback reads: its name as MTAs write it, where, and in which callback."""

    name: str
    callback: str
    use: Use


def macros_read(subject: Subject) -> Iterator[Read]:
    """The macros that the filter reads, as far as their names are written out."""
    for callback, uses in subject.uses.items():
        for use in uses:
            given = use.call.args[0] if use.method == "getsymval" and use.call.args else None
            if isinstance(given, ast.Constant) and isinstance(given.value, str) and given.value:
                yield Read(macros.written(given.value), callback, use)


def asked_for(subject: Subject) -> dict[str, tuple[str, ...]]:
    """The macros that a class asks for by @symlist, by stage."""
    return {macros.LAST_STAGE[name]: names for name, names in symlists(subject.klass).items()}


def missing_macros(subject: Subject, mta: macros.MtaMacros) -> dict[str, list[str]]:
    """The macros that the filter reads and that an MTA sends only if told to, by the stage at
    which they first have a value."""
    asked = asked_for(subject)
    missing: dict[str, list[str]] = {}
    for read in macros_read(subject):
        if mta.lack(read.name, read.callback, asked) is macros.Lack.UNSENT:
            names = missing.setdefault(mta.known[read.name].since, [])
            if read.name not in names:
                names.append(read.name)
    return missing


def unsent(subject: Subject, mtas: tuple[macros.MtaMacros, ...]) -> Iterator[Finding]:
    """Macros that have no value where they are read."""
    asked = asked_for(subject)
    for read in macros_read(subject):
        start = f"macro {read.name} {via(read.callback, read.use.inside, subject)}"
        code, call = read.use.inside, read.use.call
        alike: dict[tuple[macros.Lack, str], list[macros.MtaMacros]] = {}
        for mta in mtas:
            since = mta.known[read.name].since if read.name in mta.known else ""
            alike.setdefault((mta.lack(read.name, read.callback, asked), since), []).append(mta)
        for (lack, since), which in alike.items():
            who = " and ".join(each.mta for each in which)
            have, send = ("has", "sends") if len(which) == 1 else ("have", "send")
            if lack is macros.Lack.UNKNOWN:
                yield at(code, call, f"{start}: {who} {have} no such macro"
                          f"{_spelling(read.name, which)}")  # fmt: skip
            elif lack is macros.Lack.LATER:
                first = macros.CALLBACK[since]
                yield at(code, call, f"{start}: {who} {have} it from {first} on: read it there")
            elif lack is macros.Lack.UNSENT:
                way = _way(subject, read.name, since)
                yield at(code, call, f"{start}: {who} {send} it only if told to: {way}")


def _way(subject: Subject, name: str, stage: str) -> str:
    if subject.klass is None:
        return "see the lines of the configuration"
    asking = f'@Milter.symlist("{name}") on {macros.CALLBACK[stage]}'
    return f"let the filter ask, by {asking}, or see the lines of the configuration"


def _spelling(name: str, mtas: Iterable[macros.MtaMacros]) -> str:
    known = [each for mta in mtas for each in mta.known]
    if f"{{{name}}}" in known:
        return f": a longer name needs its braces, {{{name}}}"
    near = difflib.get_close_matches(name, known, 1, 0.8)
    return f": is {near[0]} meant?" if near else ""


# ------------------------------------------------------------------------------------ asked for

_LONG_NAME = re.compile(r"[A-Za-z_]\w+")


def braces(subject: Subject, _: Any) -> Iterator[Finding]:
    """Macros that are asked for by a long name without braces."""
    for callback, names in symlists(subject.klass).items():
        code = subject.callbacks.get(callback)
        if code:
            yield from _without_braces(code, _decorator(code), "@symlist", names)
    for _callback, use in used(subject, "setsymlist"):
        given = [text for text in map(literal, use.call.args[1:]) if isinstance(text, str)]
        yield from _without_braces(use.inside, use.call, "setsymlist", given)


def _without_braces(
    code: Code, node: ast.AST, what: str, names: Iterable[str]
) -> Iterator[Finding]:
    for name in (each for text in names for each in re.split(r"[\s,]+", text)):
        if _LONG_NAME.fullmatch(name):
            yield at(code, node, f"{what} with {name!r}: no MTA knows it; a longer name needs its "
                     f'braces, "{{{name}}}"')  # fmt: skip


def _decorator(code: Code) -> ast.AST:
    marks = getattr(code.node, "decorator_list", [])
    found = [
        each for each in marks if isinstance(each, ast.Call) and called_name(each) == "symlist"
    ]
    return found[0] if found else code.node
