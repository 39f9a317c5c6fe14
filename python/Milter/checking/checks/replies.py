"""Checks of setreply: what it is given, and what becomes of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from Milter._base import _has_single_percent
from Milter.checking.checks.actions import used
from Milter.checking.checks.verdicts import returned, verdict_of
from Milter.checking.code import Code, blocks, called_name, calls, literal, outcomes
from Milter.checking.finding import Finding, at, via
from Milter.checking.subject import CALLBACKS, Subject, Use

__all__ = ["at_connect", "codes", "percent", "unsuited", "unused"]

_REPLY_CODE = re.compile(r"[45][0-9][0-9]")
_ENHANCED_CODE = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_MOST_LINES, _LONGEST_LINE = 32, 980
#: The class of a reply that goes with a verdict.
_CLASS = {"REJECT": "5", "TEMPFAIL": "4"}


def _given(call: ast.Call, place: int, name: str) -> Any:
    """A constant argument by its place or name; NOTHING if it is not one."""
    named = [each.value for each in call.keywords if each.arg == name]
    return literal(next(iter([*call.args[place : place + 1], *named]), None))


def percent(subject: Subject, _: Any) -> Iterator[Finding]:
    """A single % in a text."""
    for _callback, use in used(subject, "setreply"):
        named = [each.value for each in use.call.keywords if each.arg == "msg"]
        for argument in (*use.call.args[2:], *named):
            parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
            for part in parts:
                value = literal(part)
                if isinstance(value, str | bytes) and _has_single_percent(value):
                    yield at(use.inside, part, "a % in a reply's text is refused: write %%")


def codes(subject: Subject, _: Any) -> Iterator[Finding]:
    """Codes and lines that are written out and are refused."""
    for _callback, use in used(subject, "setreply"):
        wrong = _wrong(use.call)
        if wrong:
            yield at(use.inside, use.call, f"setreply {wrong}")


def _wrong(call: ast.Call) -> str | None:
    code, enhanced = _given(call, 0, "rcode"), _given(call, 1, "xcode")
    lines = [*call.args[2:], *(each.value for each in call.keywords if each.arg == "msg")]
    if isinstance(code, int):
        return f'with {code}: the code is a str, write "{code}"'
    if isinstance(code, str) and not _REPLY_CODE.fullmatch(code):
        return f"with {code!r}: the code must be 4yz or 5yz, as for example 550"
    if isinstance(enhanced, str) and not _ENHANCED_CODE.fullmatch(enhanced):
        return f"with {enhanced!r}: the enhanced code must be like 5.7.1"
    if isinstance(code, str) and isinstance(enhanced, str) and code[0] != enhanced[0]:
        return f"with {code} and {enhanced}: they are of different classes and are refused; " \
               f"write {code[0]}{enhanced[1:]}"  # fmt: skip
    if len([each for each in lines if not isinstance(each, ast.Starred)]) > _MOST_LINES:
        return f"with {len(lines)} lines: at most {_MOST_LINES} can be sent"
    for text in map(literal, lines):
        if isinstance(text, str) and any(each < " " and each != "\t" for each in text):
            return "with a line end or a control character in a line: give each line as an " \
                   "argument of its own"  # fmt: skip
        if isinstance(text, str) and len(text.encode("utf-8", "replace")) > _LONGEST_LINE:
            return f"with a line of more than {_LONGEST_LINE} bytes: give it as several"
    return None


def at_connect(subject: Subject, _: Any) -> Iterator[Finding]:
    """A text at a step where no client sees it."""
    for callback, use in used(subject, "setreply"):
        texts = [*use.call.args[2:], *(each for each in use.call.keywords if each.arg == "msg")]
        if callback == "connect" and texts:
            yield at(use.inside, use.call, f"setreply {via(callback, use.inside, subject)}: no "
                     "client sees the text, MTAs leave it out there; refuse in hello or later, "
                     "or return the verdict alone")  # fmt: skip


# ------------------------------------------------------------------------ and the verdict behind


def unsuited(subject: Subject, _: Any) -> Iterator[Finding]:
    """A reply of one class before a verdict of the other."""
    for _callback, use, verdict, place in _followed(subject):
        code = _given(use.call, 0, "rcode")
        suits = _CLASS.get(verdict)
        if suits and isinstance(code, str) and _REPLY_CODE.fullmatch(code) and code[0] != suits:
            other = {"5": "REJECT", "4": "TEMPFAIL"}[code[0]]
            yield at(use.inside, place, f"{verdict} after setreply with {code}: the text is not "
                     f"used; return {other}, or set a code of {suits}yz")  # fmt: skip


def unused(subject: Subject, _: Any) -> Iterator[Finding]:
    """A reply before a verdict that has none, where no later step could use it."""
    followed = [*_followed(subject)]
    with_own = {place for *_, place in followed}
    for callback, use, verdict, place in followed:
        if verdict in _CLASS:
            continue
        if verdict == "CONTINUE" and _refuses_later(subject, callback, with_own):
            continue
        code = _given(use.call, 0, "rcode")
        meant = "TEMPFAIL" if isinstance(code, str) and code.startswith("4") else "REJECT"
        yield at(use.inside, place, f"{verdict} after setreply: the reply is not used; return "
                 f"{meant}, or leave setreply out")  # fmt: skip


def _followed(subject: Subject) -> Iterator[tuple[str, Use, str, ast.AST]]:
    """The calls of setreply after which a verdict is returned, as far as that is plain: with the
    callback, the verdict, and where it is returned."""
    for callback, use in used(subject, "setreply"):
        for value, place in _behind(use.call, use.inside):
            for each in outcomes(value):
                verdict = verdict_of(each, use.inside)
                if verdict:
                    yield callback, use, verdict, place


def _behind(call: ast.Call, code: Code) -> Iterator[tuple[ast.expr, ast.AST]]:
    """What is returned behind a call: in the same statement, or the first return in its block with
    no other setreply between."""
    for place, value in returned(code):
        if isinstance(value, ast.BoolOp) and call in value.values:
            yield value, place
    for block in blocks(code.node):
        at_call = next((i for i, each in enumerate(block) if _is_call(each, call)), None)
        if at_call is None:
            continue
        for each in block[at_call + 1 :]:
            if isinstance(each, ast.Return) and each.value:
                yield each.value, each
            if isinstance(each, ast.Return) or _replies(each):
                break


def _is_call(statement: ast.stmt, call: ast.Call) -> bool:
    return isinstance(statement, ast.Expr) and statement.value is call


def _replies(statement: ast.stmt) -> bool:
    return any(called_name(each) == "setreply" for each in calls(statement))


def _refuses_later(subject: Subject, callback: str, with_own: set[ast.AST]) -> bool:
    """Whether a later step can return a refusal that has no reply of its own (with_own: where one
    is returned that has), so that it uses the one which was set before."""
    later = CALLBACKS[CALLBACKS.index(callback) + 1 :]
    return any(
        verdict_of(each, code) in _CLASS
        for name in later
        for code, _ in subject.functions(name)
        for place, value in returned(code)
        if value and place not in with_own
        for each in outcomes(value)
    )
