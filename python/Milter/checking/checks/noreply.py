"""Checks of callbacks that are @noreply: they have no answer that a verdict or an exception could
be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from Milter._base import _marks_of
from Milter._decorators import OPTIONAL_CALLBACKS
from Milter.checking.checks.verdicts import returned, verdict_of
from Milter.checking.code import (
    Code,
    ancestors,
    called_name,
    calls,
    guarded,
    literal,
    own,
    parameters,
)
from Milter.checking.finding import Finding, at
from Milter.checking.subject import Subject

__all__ = ["raising", "verdicts"]

_WAYS = "the message is then refused at the next step: {}, or take @noreply away"
#: Encodings that every byte has a meaning in.
_WHOLE = {"latin-1", "latin1", "iso-8859-1", "iso8859-1"}


def _marked(subject: Subject) -> Iterator[tuple[str, Code]]:
    for name, code in subject.callbacks.items():
        no_reply = OPTIONAL_CALLBACKS.get(name, (0, 0))[0]
        if code and subject.klass and _marks_of(subject.klass, name) & no_reply:
            yield name, code


def verdicts(subject: Subject, _: Any) -> Iterator[Finding]:
    """A verdict that is no CONTINUE."""
    for name, code in _marked(subject):
        for place, value in returned(code):
            verdict = verdict_of(value, code)
            if verdict and verdict not in ("CONTINUE", "NOREPLY"):
                yield at(code, place, f"{name} is @noreply and returns {verdict}, which raises "
                         "where the MTA waits for no answer: take @noreply away")  # fmt: skip


def raising(subject: Subject, _: Any) -> Iterator[Finding]:
    """What fails for some messages, where nothing catches it."""
    for name, code in _marked(subject):
        told = [*_decodes(code), *_subscripts(name, code)]
        for node, what, instead in told:
            yield at(code, node, f"{name} is @noreply, and {what}: {_WAYS.format(instead)}")


def _decodes(code: Code) -> Iterator[tuple[ast.AST, str, str]]:
    for call in calls(code.node):
        given = [literal(each) for each in call.args] + [each.arg for each in call.keywords]
        if (
            isinstance(call.func, ast.Attribute)
            and call.func.attr == "decode"
            and not any(called_name(each) == "encode" for each in calls(call.func))
            and len(call.args) < 2
            and "errors" not in given
            and str(given[0] if given else "").lower() not in _WHOLE
            and not guarded(call, code.node, "ValueError", "UnicodeError", "UnicodeDecodeError")
        ):
            yield call, "decode() raises for bytes of another encoding", 'give errors="replace"'


def _subscripts(name: str, code: Code) -> Iterator[tuple[ast.AST, str, str]]:
    names = parameters(code.node)
    address = names[3] if name == "connect" and len(names) > 3 else None
    for node in own(code.node):
        if not isinstance(node, ast.Subscript) or not isinstance(node.ctx, ast.Load):
            continue
        key, owner = literal(node.slice), node.value
        if isinstance(owner, ast.Name) and owner.id == address:
            if not _looked_at(names[2:4], node, code):
                yield node, f"{address} may be None or a path", f"look at {address} first"
        elif isinstance(key, str | bytes) and not _is_sure(node, code):
            shown = ast.unparse(owner)
            yield node, f"a message may lack {key!r} in {shown}", f"use {shown}.get({key!r})"


def _looked_at(names: list[str], node: ast.AST, code: Code) -> bool:
    """Whether something before it tests one of these names, or what it raises is caught."""
    tests = [
        each.test for each in own(code.node) if isinstance(each, ast.If | ast.IfExp | ast.While)
    ]
    tests += [
        value for each in own(code.node) if isinstance(each, ast.BoolOp) for value in each.values
    ]
    mentioned = {
        inner.id
        for test in tests
        for inner in ast.walk(test)
        if isinstance(inner, ast.Name) and not _is_subscripted(inner, code)
    }
    return bool(mentioned & {*names}) or guarded(node, code.node, "TypeError", "IndexError")


def _is_subscripted(name: ast.Name, code: Code) -> bool:
    holder = next(ancestors(name, code.node), (None, None))[0]
    return isinstance(holder, ast.Subscript) and holder.value is name


def _is_sure(node: ast.Subscript, code: Code) -> bool:
    """Whether the key is put there, or looked for, in the same function."""
    wanted = ast.dump(node.slice)
    put = any(
        isinstance(each, ast.Subscript)
        and isinstance(each.ctx, ast.Store)
        and ast.dump(each.slice) == wanted
        for each in own(code.node)
    )
    asked = any(
        isinstance(each, ast.Compare)
        and isinstance(each.ops[0], ast.In | ast.NotIn)
        and ast.dump(each.left) == wanted
        for each in own(code.node)
    )
    held = isinstance(node.value, ast.Attribute | ast.Name) and _is_of_message(node.value)
    caught = guarded(node, code.node, "KeyError", "LookupError")
    return put or asked or caught or not held


def _is_of_message(owner: ast.Attribute | ast.Name) -> bool:
    """Whether it is named as what holds a message's headers or the like."""
    name = owner.attr if isinstance(owner, ast.Attribute) else owner.id
    return any(word in name.lower() for word in ("head", "field", "msg", "message", "param"))
