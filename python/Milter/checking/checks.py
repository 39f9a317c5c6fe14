"""What filters get wrong: one function for each mistake, all of them in one table.

A check yields findings for what is surely wrong, or would surprise; what cannot be told is no
finding.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, Final, NamedTuple

import milter

import Milter
from Milter import macros
from Milter._base import _has_single_percent, _marks_of
from Milter._decorators import OPTIONAL_CALLBACKS, symlists
from Milter.checking.subject import CALLBACKS, Code, Subject, Use

__all__ = ["ACTIONS", "CHECKS", "Check", "Finding", "findings", "macros_read", "missing_macros"]

#: Methods that change the message or keep the MTA waiting: the action that they need.
ACTIONS: Final[Mapping[str, int]] = {
    "addheader": milter.ADDHDRS,
    "chgheader": milter.CHGHDRS,
    "addrcpt": milter.ADDRCPT,
    "delrcpt": milter.DELRCPT,
    "replacebody": milter.CHGBODY,
    "chgfrom": milter.CHGFROM,
    "quarantine": milter.QUARANTINE,
    "progress": 0,
}
_ACTION_NAMES = {getattr(milter, name): name for name in (
    "ADDHDRS", "CHGHDRS", "ADDRCPT", "ADDRCPT_PAR", "DELRCPT", "CHGBODY", "CHGFROM", "QUARANTINE",
)}  # fmt: skip
_VERDICTS = ("CONTINUE", "REJECT", "DISCARD", "ACCEPT", "TEMPFAIL", "SKIP", "NOREPLY")
_VERDICT_NUMBERS = {getattr(milter, name): name for name in _VERDICTS}
#: How many arguments a callback gets besides the object or context; "more" may be any number more.
_ARGUMENTS = {
    "connect": 3, "hello": 1, "envfrom": 1, "envrcpt": 1, "data": 0, "header": 2, "eoh": 0,
    "body": 1, "eom": 0, "unknown": 1, "abort": 0, "close": 0, "negotiate": 1,
}  # fmt: skip
_WITH_PARAMETERS = ("envfrom", "envrcpt")
#: What people call callbacks by mistake, besides misspelling them.
_OTHER_NAMES = {
    "helo": "hello", "ehlo": "hello", "mail": "envfrom", "mailfrom": "envfrom", "rcpt": "envrcpt",
    "rcptto": "envrcpt", "headers": "header", "endofheaders": "eoh", "endofmessage": "eom",
    "endofbody": "eom",
}  # fmt: skip
#: Decorators that leave what a callback takes and returns as it is.
_TRANSPARENT = {"noreply", "nocallback", "decode", "symlist", "override", "staticmethod"}


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
    """A row of the table. mistake: what it looks for, in words; look: does it."""

    mistake: str
    look: Callable[[Subject, tuple[macros.MtaMacros, ...]], Iterator[Finding]]


def _at(code: Code, node: ast.AST, text: str) -> Finding:
    return Finding(code.file, getattr(node, "lineno", code.node.lineno), text)


def _via(callback: str, inside: Code, subject: Subject) -> str:
    """How a function is reached: "in eom", "in helper(), called from eom"."""
    own = subject.callbacks[callback]
    name = f"in {callback}"
    return name if own is inside or own == inside else f"in {inside.name}(), called from {callback}"


# ---------------------------------------------------------------------------------- signatures


def _signatures(subject: Subject, _: Any) -> Iterator[Finding]:
    for name, code in subject.callbacks.items():
        attribute = subject.attributes[name]
        bind = getattr(type(attribute), "__get__", None) if subject.klass else None
        function = bind(attribute, object(), subject.klass) if bind else attribute
        if code is None or not callable(function):
            continue
        first = 0 if subject.klass else 1
        count = first + _ARGUMENTS[name]
        what = f"{code.name} is called with {_counted(count - first)}" + (
            " after the context" if first else ""
        )
        if not _takes(function, count):
            more = " and those of ESMTP parameters" if name in _WITH_PARAMETERS else ""
            yield _at(code, code.node, f"{what}{more}, which it does not take")
        elif name in _WITH_PARAMETERS and not _takes(function, count + 2):
            yield _at(code, code.node, f"{what} and one for each ESMTP parameter that the client "
                                       "gives: add *params")  # fmt: skip
    if isinstance(subject.klass, type) and not _takes(subject.klass, 0):
        init = subject.code_of(subject.attribute("__init__"))
        if init:
            yield _at(init, init.node, "an object is made for each connection without arguments, "
                      "which __init__ does not allow: give them defaults, or check the factory "
                      "that gives them, as FILE.py:NAME")  # fmt: skip


def _counted(count: int) -> str:
    return {0: "no argument", 1: "one argument"}.get(count, f"{count} arguments")


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # it has none that could be read; a method without self has none at all
        return not isinstance(function, MethodType)
    return True


# ----------------------------------------------------------------------------------- callbacks


def _names(subject: Subject, _: Any) -> Iterator[Finding]:
    if not subject.klass:
        return
    valid = {*CALLBACKS, *(f"{name}_bytes" for name in ("envfrom", "envrcpt", "header"))}
    for name in sorted({name for each in subject.klass.__mro__ for name in vars(each)}):
        code = subject.code_of(subject.attribute(name))
        if code is None or name in valid or name.startswith("_") or hasattr(Milter.Base, name):
            continue
        plain = name.replace("_", "").lower()
        near = difflib.get_close_matches(plain, CALLBACKS, 1, 0.83)
        meant = _OTHER_NAMES.get(plain) or (near[0] if near else None)
        if meant and meant not in subject.callbacks and not _is_mentioned(name, subject):
            yield _at(code, code.node, f"{name} is no callback and nothing here calls it: "
                      f"is it meant to be {meant}?")  # fmt: skip


def _is_mentioned(name: str, subject: Subject) -> bool:
    files = {code.file for code in subject.callbacks.values() if code} | {subject.source}
    return any(
        isinstance(node, ast.Attribute) and node.attr == name
        for file in files
        for node in ast.walk(subject.tree(file))
    )


def _returns(subject: Subject, _: Any) -> Iterator[Finding]:
    for name, code in subject.callbacks.items():
        if not code or name in ("abort", "close") or not _is_plain(code):
            continue
        node = code.node
        if isinstance(node, ast.AsyncFunctionDef):
            yield _at(code, node, f"{name} is async: callbacks are called as plain functions")
            continue
        own = list(_own(node))
        if any(isinstance(each, ast.Yield | ast.YieldFrom) for each in own):
            yield _at(code, node, f"{name} is a generator: a callback must return a verdict")
            continue
        if isinstance(node, ast.FunctionDef) and _goes_past(node.body):
            yield _at(code, node, f"{name} can end without a return: return a verdict, for example "
                      "Milter.CONTINUE")  # fmt: skip
        if isinstance(node, ast.Lambda):
            yield from _wrong_value(code, name, node, node.body)
        for each in own:
            if isinstance(each, ast.Return):
                yield from _wrong_value(code, name, each, each.value)


def _wrong_value(code: Code, name: str, at: ast.AST, value: ast.AST | None) -> Iterator[Finding]:
    what = "None" if value is None else None
    if isinstance(value, ast.Constant):
        known = type(value.value) is int and (
            value.value in _VERDICT_NUMBERS
            or (name == "negotiate" and value.value == milter.ALL_OPTS)
        )
        what = None if known else repr(value.value)
    elif isinstance(value, ast.Tuple | ast.List | ast.Dict | ast.Set | ast.JoinedStr):
        what = "no number"
    if what in ("True", "False"):
        meant = _VERDICT_NUMBERS[what == "True"]
        yield _at(code, at, f"{name} returns {what}, which counts as {meant}: return a verdict")
    elif what:
        yield _at(code, at, f"{name} returns {what}, which is no verdict: return one, for example "
                  "Milter.CONTINUE")  # fmt: skip


def _is_plain(code: Code) -> bool:
    """Whether no decorator stands between the function and what its caller gets."""
    if isinstance(code.node, ast.Lambda):
        return True
    names = set()
    for each in code.node.decorator_list:
        target = each.func if isinstance(each, ast.Call) else each
        names.add(target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", ""))
    return names <= _TRANSPARENT


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """What a function consists of, without the functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
        ):
            yield child
            yield from _own(child)


def _goes_past(body: list[ast.stmt]) -> bool:
    """Whether the statements can end without return or raise. A call that never comes back, to
    sys.exit for example, is not known as such."""
    last = body[-1] if body else ast.Pass()
    if isinstance(last, ast.Return | ast.Raise | ast.Continue | ast.Break):
        return False
    if isinstance(last, ast.If):
        return _goes_past(last.body) or _goes_past(last.orelse)
    if isinstance(last, ast.With | ast.AsyncWith):
        # A context manager may take an exception, but few do.
        return _goes_past(last.body)
    if isinstance(last, ast.Try):
        if last.finalbody and not _goes_past(last.finalbody):
            return False
        normal = _goes_past(last.orelse if last.orelse else last.body)
        return normal or any(_goes_past(each.body) for each in last.handlers)
    if isinstance(last, ast.While):
        endless = isinstance(last.test, ast.Constant) and bool(last.test.value)
        return not endless or any(isinstance(each, ast.Break) for each in _own(last))
    if isinstance(last, ast.Match):
        everything = any(
            isinstance(each.pattern, ast.MatchAs)
            and each.pattern.pattern is None
            and not each.guard
            for each in last.cases
        )
        return not everything or any(_goes_past(each.body) for each in last.cases)
    return True


def _verdicts(code: Code) -> Iterator[tuple[ast.Return, str]]:
    """The verdicts that a function returns by their names, and where."""
    for each in _own(code.node):
        value = each.value if isinstance(each, ast.Return) else None
        name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
        if isinstance(each, ast.Return) and name in _VERDICTS:
            yield each, name


def _noreply(subject: Subject, _: Any) -> Iterator[Finding]:
    for name, code in subject.callbacks.items():
        no_reply = OPTIONAL_CALLBACKS.get(name, (0, 0))[0]
        if not code or not subject.klass or not _marks_of(subject.klass, name) & no_reply:
            continue
        for each, verdict in _verdicts(code):
            if verdict not in ("CONTINUE", "NOREPLY"):
                yield _at(code, each, f"{name} is @noreply and returns {verdict}, which raises "
                          "where the MTA waits for no answer: take @noreply away")  # fmt: skip


def _skips(subject: Subject, _: Any) -> Iterator[Finding]:
    for name, code in subject.callbacks.items():
        if not code or name in ("header", "eoh", "body"):
            continue
        for each, verdict in _verdicts(code):
            if verdict == "SKIP":
                yield _at(code, each, f"{name} returns SKIP, which is for header, eoh and body; "
                          "here it counts as CONTINUE: return that")  # fmt: skip


# ------------------------------------------------------------------------------------- actions


def _outside_eom(subject: Subject, _: Any) -> Iterator[Finding]:
    told: set[ast.Call] = set()  # a helper may be called from several callbacks
    for callback, uses in subject.uses.items():
        for use in uses:
            if use.call in told:
                continue
            if use.method in ACTIONS and callback != "eom":
                told.add(use.call)
                yield _at(use.inside, use.call, f"{use.method} "
                          f"{_via(callback, use.inside, subject)}: it works in eom only; keep "
                          "what it needs in self and call it there")  # fmt: skip
            if use.method == "setsymlist" and callback != "negotiate":
                yield _at(use.inside, use.call, f"setsymlist "
                          f"{_via(callback, use.inside, subject)}: it works in negotiate only"
                          )  # fmt: skip


def _not_asked_for(subject: Subject, _: Any) -> Iterator[Finding]:
    # A program that negotiates itself may ask for what it likes.
    if subject.actions is None or "negotiate" in subject.attributes:
        return
    for uses in subject.uses.values():
        for use in uses:
            needs = ACTIONS.get(use.method, 0)
            if use.method == "addrcpt" and len(use.call.args) > 1:
                needs |= milter.ADDRCPT_PAR
            lacks = [name for bit, name in _ACTION_NAMES.items() if needs & bit & ~subject.actions]
            if lacks:
                yield _at(use.inside, use.call, f"{use.method} needs {' and '.join(lacks)}, which "
                          "set_flags leaves out: add it there")  # fmt: skip


def _percent(subject: Subject, _: Any) -> Iterator[Finding]:
    for uses in subject.uses.values():
        for use in uses:
            if use.method != "setreply":
                continue
            for argument in use.call.args[2:]:
                parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
                for part in parts:
                    value = part.value if isinstance(part, ast.Constant) else None
                    if isinstance(value, str | bytes) and _has_single_percent(value):
                        yield _at(use.inside, part, "a % in a reply's text is refused: write %%")


def _sleeps(subject: Subject, _: Any) -> Iterator[Finding]:
    told: set[ast.Call] = set()
    for callback in subject.callbacks:
        for call, inside in subject.reached(callback):
            func = call.func
            name = func.id if isinstance(func, ast.Name) else ""
            called = inside.scope.get(name)
            if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
                called = getattr(inside.scope.get(func.value.id), func.attr, None)
            if called is time.sleep and call not in told and callback not in ("abort", "close"):
                told.add(call)
                yield _at(inside, call, f"time.sleep {_via(callback, inside, subject)}: the client "
                          "and a thread wait meanwhile; TEMPFAIL lets the client come again later"
                          )  # fmt: skip


# -------------------------------------------------------------------------------------- macros


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


def _macros(subject: Subject, mtas: tuple[macros.MtaMacros, ...]) -> Iterator[Finding]:
    asked = asked_for(subject)
    for read in macros_read(subject):
        start = f"macro {read.name} {_via(read.callback, read.use.inside, subject)}"
        code, call = read.use.inside, read.use.call
        alike: dict[tuple[macros.Lack, str], list[macros.MtaMacros]] = {}
        for mta in mtas:
            since = mta.known[read.name].since if read.name in mta.known else ""
            alike.setdefault((mta.lack(read.name, read.callback, asked), since), []).append(mta)
        for (lack, since), which in alike.items():
            who = " and ".join(each.mta for each in which)
            have, send = ("has", "sends") if len(which) == 1 else ("have", "send")
            if lack is macros.Lack.UNKNOWN:
                yield _at(code, call, f"{start}: {who} {have} no such macro"
                          f"{_spelling(read.name, which)}")  # fmt: skip
            elif lack is macros.Lack.LATER:
                first = macros.CALLBACK[since]
                yield _at(code, call, f"{start}: {who} {have} it from {first} on: read it there")
            elif lack is macros.Lack.UNSENT:
                way = _way(subject, read.name, since)
                yield _at(code, call, f"{start}: {who} {send} it only if told to: {way}")


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


# --------------------------------------------------------------------------------- the table

CHECKS: Final[Mapping[str, Check]] = {
    "signature": Check("callbacks that do not take what they are called with", _signatures),
    "name": Check("methods that are nearly called like a callback", _names),
    "verdict": Check("callbacks that can return what is no verdict", _returns),
    "noreply": Check("verdicts in callbacks that are @noreply", _noreply),
    "skip": Check("SKIP where there is nothing to skip", _skips),
    "eom-only": Check("changes to the message outside eom", _outside_eom),
    "action": Check("actions that set_flags leaves out", _not_asked_for),
    "macro": Check("macros that the MTA does not send by then", _macros),
    "percent": Check("single % in replies", _percent),
    "sleep": Check("callbacks that sleep", _sleeps),
}


def findings(
    subject: Subject, mtas: tuple[macros.MtaMacros, ...] = tuple(macros.MTAS.values())
) -> list[Finding]:
    """What the checks find, in the order of the file. mtas: those that the filter is meant for."""
    found = {
        each._replace(check=name): None
        for name, check in CHECKS.items()
        for each in check.look(subject, mtas)
    }
    return sorted(found, key=lambda each: (each.file, each.line))
