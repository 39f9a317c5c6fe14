"""Checks of what is kept between callbacks, and of what holds them up."""

from __future__ import annotations

import ast
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from Milter.checking.code import (
    Code,
    Store,
    ancestors,
    called_name,
    calls,
    first_parameter,
    local_names,
    module_code,
    own,
    resolve,
    stores,
    walk,
)
from Milter.checking.finding import Finding, at, via
from Milter.checking.subject import Subject

__all__ = ["left_over", "sleeps", "threads"]

#: The callbacks of a connection, and those that each message has again.
_ONCE = ("connect", "hello")
_EACH = ("envfrom", "envrcpt", "data", "header", "eoh", "body", "eom", "abort")
#: Methods that change what they are called on.
_CHANGING = {"append", "appendleft", "extend", "insert", "add", "update", "setdefault", "write"}
_EMPTYING = {"clear", "truncate"}
_CONTAINERS = {"list", "dict", "set", "bytearray", "deque", "defaultdict", "Counter", "OrderedDict",
               "BytesIO", "StringIO"}  # fmt: skip


def sleeps(subject: Subject, _: Any) -> Iterator[Finding]:
    """time.sleep in callbacks."""
    told: set[ast.Call] = set()
    for callback in subject.callbacks:
        for call, inside in subject.reached(callback):
            wanted = callback not in ("abort", "close") and call not in told
            if wanted and resolve(call.func, inside) is time.sleep:
                told.add(call)
                yield at(inside, call, f"time.sleep {via(callback, inside, subject)}: the client "
                         "and a thread wait meanwhile; TEMPFAIL lets the client come again later"
                         )  # fmt: skip


# ------------------------------------------------------------------------------------- threads


def threads(subject: Subject, _: Any) -> Iterator[Finding]:
    """What belongs to a thread, used by callbacks that may run in another one."""
    yield from _locals(subject)
    yield from _databases(subject)


def _locals(subject: Subject) -> Iterator[Finding]:
    """Attributes of a threading.local that one callback sets and another one reads."""
    set_in: dict[str, set[str]] = {}
    read_in: list[tuple[str, str, Code, ast.Attribute]] = []
    for callback in subject.callbacks:
        for code, receiver in subject.functions(callback):
            for node in own(code.node):
                if not isinstance(node, ast.Attribute):
                    continue
                if _is_local(node.value, code, receiver, subject):
                    name = ast.unparse(node)
                    if isinstance(node.ctx, ast.Store):
                        set_in.setdefault(name, set()).add(callback)
                    else:
                        read_in.append((name, callback, code, node))
    for name, callback, code, node in read_in:
        others = set_in.get(name, set())
        if others and callback not in others:
            yield at(code, node, f"{name} is of a thread, and {callback} may run in another one "
                     f"than {sorted(others)[0]}, which sets it: keep it in self")  # fmt: skip


def _is_local(node: ast.expr, code: Code, receiver: str | None, subject: Subject) -> bool:
    if isinstance(resolve(node, code), threading.local):
        return True
    if not isinstance(node, ast.Attribute) or getattr(node.value, "id", None) != receiver:
        return False
    if isinstance(subject.attribute(node.attr), threading.local):
        return True
    return any(
        isinstance(store.value, ast.Call) and resolve(store.value.func, each) is threading.local
        for each in subject.methods.values()
        for store in stores(each.node, first_parameter(each.node))
        if store.name == node.attr
    )


def _databases(subject: Subject) -> Iterator[Finding]:
    """Connections of sqlite3 that are made in one place and used in another."""
    made: dict[str, set[str]] = {}  # the connection as it is written -> methods that make it
    where: dict[str, tuple[Code, ast.AST]] = {}
    for name, code in subject.methods.items():
        for store in stores(code.node, first_parameter(code.node)):
            if store.value and _is_bound_to_thread(store.value, code):
                made.setdefault(f"self.{store.name}", set()).add(name)
                where.setdefault(f"self.{store.name}", (code, store.value))
    for file, scope in subject.files.items():
        whole = module_code(file, scope)
        for node in subject.tree(file).body:
            if isinstance(node, ast.Assign) and _is_bound_to_thread(node.value, whole):
                for target in node.targets:
                    made[ast.unparse(target)] = {"the module"}
                    where[ast.unparse(target)] = (whole, node.value)
    for name, makers in made.items():
        users = [each for each in subject.callbacks if _uses(name, each, makers, subject)]
        if users:
            yield at(*where[name], f"{name} is a connection of sqlite3, which works in the thread "
                     f"that made it, and {users[0]} may run in another one: give "
                     "check_same_thread=False and guard it by a lock, or connect where it is used"
                     )  # fmt: skip


def _is_bound_to_thread(value: ast.expr | None, code: Code) -> bool:
    return (
        isinstance(value, ast.Call)
        and resolve(value.func, code) is sqlite3.connect
        and "check_same_thread" not in [each.arg for each in value.keywords]
    )


def _uses(name: str, callback: str, makers: set[str], subject: Subject) -> bool:
    """Whether a callback uses a connection that it does not make itself."""
    if any(code.name in makers for code, _ in subject.functions(callback)):
        return False
    return any(
        isinstance(node, ast.Attribute | ast.Name)
        and isinstance(node.ctx, ast.Load)
        and _as_self(node, receiver) == name
        for code, receiver in subject.functions(callback)
        for node in own(code.node)
    )


def _as_self(node: ast.expr, receiver: str | None) -> str:
    owner, dot, rest = ast.unparse(node).partition(".")
    return f"self.{rest}" if dot and owner == receiver else owner + dot + rest


# ------------------------------------------------------------------- what a message leaves behind


@dataclass
class _Kept:
    """What happens to an attribute of the object. first: its values before any message. changes:
    where a message changes it. fresh: whether a message gives it a value of its own. read: whether
    a message looks at it."""

    first: list[ast.expr] = field(default_factory=list)
    changes: list[tuple[Code, ast.AST]] = field(default_factory=list)
    fresh: bool = False
    read: bool = False


def left_over(subject: Subject, _: Any) -> Iterator[Finding]:
    """Attributes that are set once a connection, changed by a message, and not set again for the
    next one."""
    if not subject.klass:
        return
    kept: dict[str, _Kept] = {}
    init = subject.methods.get("__init__")
    before = [code for name in _ONCE for code, _ in subject.functions(name)]
    for code in ([init] if init else []) + before:
        for store in stores(code.node, first_parameter(code.node)):
            if store.value:
                kept.setdefault(store.name, _Kept()).first.append(store.value)
    if any(_makes_all_new(code) for name in _EACH for code, _ in subject.functions(name)):
        return
    for name in _EACH:
        for code, receiver in subject.functions(name):
            if not any(code == each for each in before):
                _follow(kept, name, code, receiver)
    for name, its in kept.items():
        if its.first and its.changes and its.read and not its.fresh:
            code, node = its.changes[0]
            yield at(code, node, f"self.{name} is set for the connection only, and what a message "
                     "leaves in it is there for the next message: set it in envfrom"
                     )  # fmt: skip


def _makes_all_new(code: Code) -> bool:
    """Whether it calls self.__init__() again, or sets attributes by names that are made up."""
    names = {called_name(call) for call in calls(code.node)}
    return bool(names & {"__init__", "setattr"}) or any(
        isinstance(node, ast.Attribute) and node.attr == "__dict__" for node in ast.walk(code.node)
    )


def _follow(kept: dict[str, _Kept], callback: str, code: Code, receiver: str | None) -> None:
    """Notes what a function does to the attributes."""
    written = {store.node: store for store in stores(code.node, receiver)}
    for node in walk(code.node, receiver):
        if not isinstance(node, ast.Attribute) or getattr(node.value, "id", None) != receiver:
            continue
        its = kept.get(node.attr)
        if its is None:
            continue
        holder = next(ancestors(node, code.node), (code.node, node))[0]
        if node in written:
            _note_store(its, written[node], callback, code)
        elif isinstance(node.ctx, ast.Del):
            its.fresh = True
        elif isinstance(holder, ast.AugAssign):
            # of messages, envfrom counts; elsewhere it is something of the message
            if callback != "envfrom":
                its.changes.append((code, holder))
        elif isinstance(holder, ast.Subscript) and not isinstance(holder.ctx, ast.Load):
            whole = isinstance(holder.slice, ast.Slice)
            its.fresh |= whole
            same_place = isinstance(holder.slice, ast.Constant) and not _conditions(holder, code)
            if not whole and not same_place and _holds_data(its):
                its.changes.append((code, holder))
        elif isinstance(holder, ast.Attribute) and holder.attr in _EMPTYING:
            its.fresh = True
        elif isinstance(holder, ast.Attribute) and holder.attr in _CHANGING:
            if _holds_data(its):
                its.changes.append((code, holder))
        else:
            its.read = True


def _note_store(its: _Kept, store: Store, callback: str, code: Code) -> None:
    value = ast.dump(store.value) if store.value else ""
    conditional = _conditions(store.node, code)
    again = any(ast.dump(each) == value for each in its.first)
    # "if self.db is None: self.db = connect()": what holds for the connection, at its first use
    once = any(
        isinstance(each, ast.If) and _mentions(each.test, store.name) for each in conditional
    ) and not (store.value and _asks_of_message(store.value, code))
    # in envfrom: of the message only if the sender has to do with it
    worked_out = callback == "envfrom" and not (
        isinstance(store.value, ast.Constant)
        and any(_asks_of_message(each, code) for each in conditional)
    )
    if again or not conditional or worked_out:
        its.fresh = True
    elif not once:
        its.changes.append((code, store.node))


def _conditions(node: ast.AST, code: Code) -> list[ast.AST]:
    """What must hold, or happen, for a function to come to a node."""
    return [
        each
        for each, child in ancestors(node, code.node)
        if isinstance(each, ast.If | ast.For | ast.While | ast.ExceptHandler | ast.match_case)
        and child is not getattr(each, "test", None)
    ]


def _asks_of_message(node: ast.AST, code: Code) -> bool:
    """Whether a condition or a value has to do with what the function was given."""
    given = local_names(code.node) - {first_parameter(code.node)}
    test = getattr(node, "test", node)
    return any(isinstance(each, ast.Name) and each.id in given for each in ast.walk(test))


def _mentions(test: ast.expr, name: str) -> bool:
    return any(isinstance(each, ast.Attribute) and each.attr == name for each in ast.walk(test))


def _holds_data(its: _Kept) -> bool:
    """Whether it begins as a container of its own."""
    return any(
        isinstance(each, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
        or (isinstance(each, ast.Call) and called_name(each) in _CONTAINERS)
        for each in its.first
    )
