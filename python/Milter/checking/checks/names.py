"""Checks of names: of callbacks and actions, and of what the library does not have."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import milter

import Milter
from Milter.checking.code import (
    Code,
    called_name,
    first_parameter,
    guarded,
    module_code,
    own,
    parameters,
    resolve,
    stores,
)
from Milter.checking.finding import Finding, at
from Milter.checking.subject import CALLBACKS, Subject

__all__ = ["hidden", "misspelt", "unknown"]

#: What people call callbacks by mistake, besides misspelling them.
_OTHER_NAMES = {
    "helo": "hello", "ehlo": "hello", "mail": "envfrom", "mailfrom": "envfrom", "rcpt": "envrcpt",
    "rcptto": "envrcpt", "headers": "header", "endofheaders": "eoh", "endofmessage": "eom",
    "endofbody": "eom",
}  # fmt: skip
#: Base's methods that are neither callbacks nor actions.
_ASIDE = ("log", "protocol_mask")
_METHODS = [
    name
    for name in dir(Milter.Base)
    if not name.startswith("_") and callable(getattr(Milter.Base, name)) and name not in _ASIDE
]


def misspelt(subject: Subject, _: Any) -> Iterator[Finding]:
    """Methods that are nearly called like a callback."""
    if not subject.klass:
        return
    for name in sorted({name for each in subject.klass.__mro__ for name in vars(each)}):
        code = subject.code_of(subject.attribute(name))
        if code is None or name.startswith("_") or hasattr(Milter.Base, name):
            continue
        plain = name.replace("_", "").lower()
        near = difflib.get_close_matches(plain, CALLBACKS, 1, 0.83)
        meant = _OTHER_NAMES.get(plain) or (near[0] if near else None)
        if meant and meant not in subject.callbacks and not _is_mentioned(name, subject):
            yield at(code, code.node, f"{name} is no callback and nothing here calls it: "
                     f"is it meant to be {meant}?")  # fmt: skip


def _is_mentioned(name: str, subject: Subject) -> bool:
    return any(
        isinstance(node, ast.Attribute) and node.attr == name
        for file in subject.files
        for node in ast.walk(subject.tree(file))
    )


# ------------------------------------------------------------------------------------- hidden


def hidden(subject: Subject, _: Any) -> Iterator[Finding]:
    """Attributes that stand where a callback or an action is looked for, and cannot be called."""
    if not isinstance(subject.klass, type) or not issubclass(subject.klass, Milter.Base):
        return
    logs = ["log"] if issubclass(subject.klass, Milter.Milter) else []  # its callbacks call it
    for name in (*_METHODS, *logs):
        value = subject.attribute(name)
        place = subject.class_store(name)
        if place and value is not None and not callable(value) and not hasattr(value, "__get__"):
            yield Finding(place[0], place[1].lineno, f"{name}{_effect(name, subject)}")
    for code in subject.methods.values():
        told = set()
        for store in stores(code.node, first_parameter(code.node)):
            known = store.name in _METHODS or store.name in logs
            if known and store.name not in told and _is_data(store.value, code, subject):
                told.add(store.name)
                yield at(code, store.node, f"self.{store.name}{_effect(store.name, subject)}")


def _effect(name: str, subject: Subject) -> str:
    instead = "give the attribute another name"
    if name.removesuffix("_bytes") not in CALLBACKS:
        return f" takes the place of the method {name}, which cannot be called any more: {instead}"
    if name.removesuffix("_bytes") in subject.attributes:
        return f" takes the place of the callback {name}, and calling it fails: the exception " \
               f"policy answers, by 451 if nothing is set; {instead}"  # fmt: skip
    return f" has the name of the callback {name}: as soon as the class has that step, it is " \
           f"called in its place and fails; {instead}"  # fmt: skip


def _is_data(value: ast.expr | None, code: Code, subject: Subject) -> bool:
    """Whether a value surely is nothing that could be called."""
    if isinstance(value, ast.IfExp):
        return all(_is_data(each, code, subject) for each in (value.body, value.orelse))
    if isinstance(value, ast.Name):  # what a callback is given
        is_callback = any(code == each for each in subject.callbacks.values())
        return is_callback and value.id in parameters(code.node)[1:]
    if isinstance(value, ast.Call):
        made = resolve(value.func, code) if not _is_builtin(value) else _BUILTINS[value.func.id]  # type: ignore[attr-defined]
        is_class = isinstance(made, type) and made is not type
        if is_class:
            return not any("__call__" in vars(each) for each in made.__mro__)
        of = value.func.value if isinstance(value.func, ast.Attribute) else None
        return isinstance(of, ast.Constant | ast.JoinedStr)  # a method of a str or bytes
    return isinstance(
        value,
        ast.Constant | ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.ListComp
        | ast.SetComp | ast.DictComp | ast.Compare | ast.BinOp | ast.UnaryOp,
    )  # fmt: skip


_BUILTINS = {each.__name__: each for each in (
    bool, bytes, bytearray, dict, float, frozenset, int, list, set, str, tuple,
)}  # fmt: skip


def _is_builtin(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in _BUILTINS


# ------------------------------------------------------------------------------------ unknown


def unknown(subject: Subject, _: Any) -> Iterator[Finding]:
    """Names that the library does not have."""
    for file, scope in subject.files.items():
        tree = subject.tree(file)
        whole = module_code(file, scope)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Load):
                continue
            owner = resolve(node.value, whole)
            lacks = owner in (Milter, milter) and not _has(owner, node.attr)
            if lacks and not guarded(node, tree, "AttributeError"):
                near = _near(node.attr, dir(owner))
                yield Finding(file, node.lineno, _told(ast.unparse(node.value), node, near))
    if subject.klass:
        yield from _unknown_of_self(subject)
    else:
        yield from _unknown_of_context(subject)


def _has(module: ModuleType, name: str) -> bool:
    if hasattr(module, name):
        return True
    return hasattr(module, "__path__") and (
        importlib.util.find_spec(f"{module.__name__}.{name}") is not None
    )


def _told(owner: str, node: ast.Attribute, near: str | None) -> str:
    return f"{owner}.{node.attr} does not exist" + (f": is {owner}.{near} meant?" if near else "")


def _near(name: str, names: Iterable[str]) -> str | None:
    by_plain = {each.replace("_", "").lower(): each for each in names if not each.startswith("_")}
    near = difflib.get_close_matches(name.replace("_", "").lower(), by_plain, 1, 0.75)
    return by_plain[near[0]] if near else None


def _unknown_of_context(subject: Subject) -> Iterator[Finding]:
    for name in subject.callbacks:
        for code, receiver in subject.functions(name):
            for node in _loads(code, receiver):
                if not hasattr(milter.Context, node.attr):
                    near = _near(node.attr, dir(milter.Context))
                    yield at(code, node, _told(str(receiver), node, near))


def _loads(code: Code, receiver: str | None) -> Iterator[ast.Attribute]:
    """Where a function looks at an attribute of its object or context."""
    for node in own(code.node):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Load)
            and isinstance(node.value, ast.Name)
            and node.value.id == receiver
        ):
            yield node


def _unknown_of_self(subject: Subject) -> Iterator[Finding]:
    """Attributes that nothing gives to the object, if there is one that is nearly called so."""
    mentioned = _mentioned(subject)
    if mentioned is None:
        return
    given = {*dir(subject.klass)}.union(*(_given(subject.tree(each)) for each in _sources(subject)))
    for name, code in subject.methods.items():
        if isinstance(subject.attribute(name), staticmethod | classmethod):
            continue
        for node in _loads(code, first_parameter(code.node)):
            if node.attr.startswith("_"):  # those have other names in the class
                continue
            # the class's own names come last, so they win over others that are spelt alike
            near = _near(node.attr, [*sorted(given), *dir(subject.klass)])
            unknown = node.attr not in given | mentioned
            if near and unknown and not guarded(node, code.node, "AttributeError"):
                yield at(code, node, _told(ast.unparse(node.value), node, near))


def _mentioned(subject: Subject) -> set[str] | None:
    """Names that the filter may look for or set as text; None if there is no telling, because it
    gives attributes out or sets them by names that are made up."""
    if hasattr(subject.klass, "__getattr__"):
        return None
    found = set()
    for file in subject.files:
        for node in ast.walk(subject.tree(file)):
            if isinstance(node, ast.Call) and called_name(node) in ("setattr", "vars"):
                return None
            if isinstance(node, ast.Attribute) and node.attr == "__dict__":
                return None
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def _given(tree: ast.AST) -> set[str]:
    """The names of attributes that something in a file gets."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


def _sources(subject: Subject) -> set[str]:
    """The files of the filter, and of the classes of others that it is derived from."""
    found = {*subject.files}
    for each in subject.bases:
        try:
            found.add(inspect.getsourcefile(each) or "")
        except TypeError:  # it is written in C
            continue
    return found - {""}
