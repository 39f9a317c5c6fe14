"""Checks of changes to the message: where they are made, and what they are given."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import milter

from Milter.checking.code import Code, ancestors, blocks, called_name, calls, literal
from Milter.checking.finding import Finding, at, via
from Milter.checking.subject import Subject, Use

__all__ = ["ACTIONS", "ascending", "headers", "index", "not_asked_for", "outside_eom", "used"]

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
_HEADER_NAME = re.compile(r"[!-9;-~]+")
_ACTION_NAMES = {getattr(milter, name): name for name in (
    "ADDHDRS", "CHGHDRS", "ADDRCPT", "ADDRCPT_PAR", "DELRCPT", "CHGBODY", "CHGFROM", "QUARANTINE",
)}  # fmt: skip


def used(subject: Subject, *methods: str) -> Iterator[tuple[str, Use]]:
    """The calls of these methods with the callbacks that lead to them; each call once."""
    told: set[ast.Call] = set()
    for callback, uses in subject.uses.items():
        for use in uses:
            if use.method in methods and use.call not in told:
                told.add(use.call)
                yield callback, use


def outside_eom(subject: Subject, _: Any) -> Iterator[Finding]:
    """Changes outside eom, and lists of macros outside negotiate."""
    told: set[ast.Call] = set()  # a helper may be called from several callbacks
    for callback, uses in subject.uses.items():
        for use in uses:
            if use.call in told:
                continue
            way = f"{use.method} {via(callback, use.inside, subject)}"
            if use.method in ACTIONS and callback != "eom":
                told.add(use.call)
                yield at(use.inside, use.call, f"{way}: it works in eom only; keep what it needs "
                         "in self and call it there")  # fmt: skip
            if use.method == "setsymlist" and callback != "negotiate":
                yield at(use.inside, use.call, f"{way}: it works in negotiate only")


def not_asked_for(subject: Subject, _: Any) -> Iterator[Finding]:
    """Actions that set_flags leaves out."""
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
                yield at(use.inside, use.call, f"{use.method} needs {' and '.join(lacks)}, which "
                         "set_flags leaves out: add it there")  # fmt: skip


# ------------------------------------------------------------------------------------- headers


def _argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    if len(call.args) > place:
        return call.args[place]
    return next((each.value for each in call.keywords if each.arg == name), None)


def headers(subject: Subject, _: Any) -> Iterator[Finding]:
    """Names and values that are written out and cannot be sent."""
    for _callback, use in used(subject, "addheader", "chgheader"):
        value_at = 1 if use.method == "addheader" else 2
        name = literal(_argument(use.call, 0, "field"))
        value = literal(_argument(use.call, value_at, "value"))
        for wrong in (_wrong_name(name), _wrong_value(value, use.method)):
            if wrong:
                yield at(use.inside, use.call, f"{use.method} {wrong}")


def _text(value: Any) -> str | None:
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return text if isinstance(text, str) else None


def _wrong_name(name: Any) -> str | None:
    text = _text(name)
    if text is not None and not _HEADER_NAME.fullmatch(text):
        return f"with the name {name!r}: it is refused; a header's name has printable ASCII " \
               "without space and colon"  # fmt: skip
    return None


def _wrong_value(value: Any, method: str) -> str | None:
    if isinstance(value, int | float) or (value is None and method == "addheader"):
        return f"with the value {value!r}: it must be a str"
    text = (_text(value) or "").rstrip("\r\n").replace("\r\n", "\n")
    if "\0" in text or "\r" in text:
        return "with a NUL or a CR in the value: it is refused; take it out"
    if any(not line.startswith((" ", "\t")) for line in text.split("\n")[1:]):
        return "with a line of the value that does not start with white space: it is refused, " \
               "since it would be another header; fold it by a space"  # fmt: skip
    return None


def index(subject: Subject, _: Any) -> Iterator[Finding]:
    """chgheader with the index 0 or less."""
    for _callback, use in used(subject, "chgheader"):
        number = literal(_argument(use.call, 1, "idx"))
        if isinstance(number, int) and number < 1:
            means = "MTAs take 0 as 1" if number == 0 else "it is refused"
            yield at(use.inside, use.call, f"chgheader with the index {number}: headers of a name "
                     f"are counted from 1, {means}; write 1 for the first one")  # fmt: skip


def ascending(subject: Subject, _: Any) -> Iterator[Finding]:
    """Several headers of one name deleted from the first to the last."""
    text = "headers of one name are deleted from the first on: after a deletion MTAs count " \
           "differently; delete from the last to the first"  # fmt: skip
    for _callback, use in used(subject, "chgheader"):
        if _deletes(use.call) and _goes_up(use.call, use.inside):
            yield at(use.inside, use.call, text)


def _deletes(call: ast.Call) -> bool:
    return called_name(call) == "chgheader" and literal(_argument(call, 2, "value")) in (None, "")


def _goes_up(call: ast.Call, code: Code) -> bool:
    return _in_a_rising_loop(call, code) or _behind_a_lower_one(call, code)


def _in_a_rising_loop(call: ast.Call, code: Code) -> bool:
    name, number = _argument(call, 0, "field"), _argument(call, 1, "idx")
    for each, child in ancestors(call, code.node):
        if isinstance(each, ast.For) and child in each.body and name and number:
            varying = _names(each.target)
            same_name = not _names(name) & varying
            counts = _names(number) & varying and _rises(each.iter)
            # always the same place, for all that are to go
            repeats = literal(number) in (0, 1) and called_name(_as_call(each.iter)) == "range"
            ends = any(isinstance(inner, ast.Break | ast.Return) for inner in ast.walk(each))
            return bool(same_name and (counts or repeats) and not ends)
    return False


def _behind_a_lower_one(call: ast.Call, code: Code) -> bool:
    """Whether the same block deletes one of the name with a lower index before it."""
    number, name = literal(_argument(call, 1, "idx")), _argument(call, 0, "field")
    if not isinstance(number, int) or name is None:
        return False
    for block in blocks(code.node):
        plain = [
            each.value
            for each in block
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Call)
        ]
        if call in plain:
            for other in plain[: plain.index(call)]:
                its, its_name = literal(_argument(other, 1, "idx")), _argument(other, 0, "field")
                same = its_name is not None and ast.dump(its_name) == ast.dump(name)
                if _deletes(other) and same and isinstance(its, int) and its <= number:
                    return True
    return False


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _as_call(node: ast.expr) -> ast.Call:
    return node if isinstance(node, ast.Call) else ast.Call(ast.Name(""), [], [])


def _rises(loop: ast.expr) -> bool:
    """Whether it counts up: range without a step or with a positive one, or enumerate."""
    call = _as_call(loop)
    if called_name(call) == "range":
        step = literal(call.args[2]) if len(call.args) == 3 else 1
        return isinstance(step, int) and step > 0
    return called_name(call) == "enumerate" and not any(
        called_name(each) == "reversed" for each in calls(call)
    )
