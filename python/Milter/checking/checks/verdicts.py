"""Checks of what callbacks return."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import milter

from Milter.checking.code import Code, goes_past, outcomes, own, resolve
from Milter.checking.finding import Finding, at
from Milter.checking.subject import Subject

__all__ = ["VERDICTS", "returned", "steps", "values", "verdict_of"]

#: The verdicts' names; negotiate has ALL_OPTS beside them.
VERDICTS = ("CONTINUE", "REJECT", "DISCARD", "ACCEPT", "TEMPFAIL", "SKIP", "NOREPLY")
_NUMBERS = {getattr(milter, name): name for name in VERDICTS}
#: Decorators that leave what a callback takes and returns as it is.
_TRANSPARENT = {"noreply", "nocallback", "decode", "symlist", "override", "staticmethod"}
#: Functions and methods that return True or False.
_TELL = {"bool", "isinstance", "issubclass", "any", "all", "callable", "hasattr"}
_TELLING_METHODS = {"startswith", "endswith", "isdigit", "isalpha", "isspace", "isascii"}

_CONNECTION = "takes the filter out of the whole connection"
_IGNORED = "ignores it, with a warning"
#: Verdicts that an MTA does not take as they are meant: (verdict, callback) -> what it does.
_NOT_TAKEN = {
    **{("DISCARD", name): f"Postfix {_IGNORED}" for name in ("connect", "hello")},
    **{
        ("SKIP", name): f"Sendmail {_CONNECTION}"
        for name in ("connect", "hello", "envfrom", "envrcpt", "data")
    },
    ("SKIP", "eom"): "there is nothing left to skip",
}
_INSTEAD = {
    "DISCARD": "return it from envfrom or later",
    "SKIP": "return CONTINUE, or SKIP from body",
}


def returned(code: Code) -> Iterator[tuple[ast.AST, ast.expr | None]]:
    """Pairs of where a function returns, and what."""
    if isinstance(code.node, ast.Lambda):
        yield code.node, code.node.body
        return
    for each in own(code.node):
        if isinstance(each, ast.Return):
            yield each, each.value


def verdict_of(value: ast.expr | None, code: Code) -> str | None:
    """The verdict that an expression names, as Milter.REJECT or REJECT; None for another one."""
    name = getattr(value, "attr", getattr(value, "id", ""))
    if value is None or name not in VERDICTS:
        return None
    return name if resolve(value, code) == getattr(milter, name) else None


def steps(subject: Subject, _: Any) -> Iterator[Finding]:
    """Verdicts at steps where an MTA does not take them."""
    for name in subject.callbacks:
        for code in _answering(subject, name):
            for place, value in returned(code):
                for each in outcomes(value) if value else ():
                    verdict = verdict_of(each, code)
                    what = _NOT_TAKEN.get((verdict or "", name))
                    if what:
                        yield at(code, place, f"{name} returns {verdict}: {what}; "
                                 f"{_INSTEAD[verdict or '']}")  # fmt: skip


def _answering(subject: Subject, name: str) -> Iterator[Code]:
    """The callback, and the methods whose result it returns."""
    todo = [code for code in [subject.callbacks[name]] if code]
    seen: list[Code] = []
    while todo:
        code = todo.pop()
        if code in seen:
            continue
        seen.append(code)
        yield code
        results = [each for _, value in returned(code) if value for each in outcomes(value)]
        todo += [
            callee
            for each in results
            if isinstance(each, ast.Call)
            for callee in subject.called(each, code)
        ]


def values(subject: Subject, _: Any) -> Iterator[Finding]:
    """Callbacks that can return what is no verdict."""
    for name, code in subject.callbacks.items():
        if not code or name in ("abort", "close") or not _is_plain(code):
            continue
        node = code.node
        if isinstance(node, ast.AsyncFunctionDef):
            yield at(code, node, f"{name} is async: callbacks are called as plain functions")
        elif any(isinstance(each, ast.Yield | ast.YieldFrom) for each in own(node)):
            yield at(code, node, f"{name} is a generator: a callback must return a verdict")
        else:
            if isinstance(node, ast.FunctionDef) and goes_past(node.body):
                yield at(code, node, f"{name} can end without a return: return a verdict, for "
                         "example Milter.CONTINUE")  # fmt: skip
            for place, value in returned(code):
                for each in outcomes(value) if value else [None]:
                    yield from _wrong_value(code, name, place, each)


def _wrong_value(
    code: Code, name: str, place: ast.AST, value: ast.expr | None
) -> Iterator[Finding]:
    what = "None" if value is None else None
    if isinstance(value, ast.Constant):
        known = type(value.value) is int and (
            value.value in _NUMBERS or (name == "negotiate" and value.value == milter.ALL_OPTS)
        )
        what = None if known else repr(value.value)
    elif isinstance(value, ast.Tuple | ast.List | ast.Dict | ast.Set | ast.JoinedStr):
        what = "no number"
    if what in ("True", "False"):
        meant = _NUMBERS[what == "True"]
        yield at(code, place, f"{name} returns {what}, which counts as {meant}: return a verdict")
    elif what:
        yield at(code, place, f"{name} returns {what}, which is no verdict: return one, for "
                 "example Milter.CONTINUE")  # fmt: skip
    elif value and _is_bool(value):
        yield at(code, place, f"{name} returns True or False: True counts as REJECT, False as "
                 "CONTINUE; return a verdict")  # fmt: skip


def _is_bool(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        method = value.func.attr if isinstance(value.func, ast.Attribute) else ""
        return method in _TELLING_METHODS or getattr(value.func, "id", "") in _TELL
    return isinstance(value, ast.Compare) or (
        isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
    )


def _is_plain(code: Code) -> bool:
    """Whether no decorator stands between the function and what its caller gets."""
    if isinstance(code.node, ast.Lambda):
        return True
    names = set()
    for each in code.node.decorator_list:
        target = each.func if isinstance(each, ast.Call) else each
        names.add(target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", ""))
    return names <= _TRANSPARENT
