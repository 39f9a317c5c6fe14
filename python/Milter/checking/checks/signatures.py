"""Checks of what callbacks take, and of how objects are made."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

from Milter.checking.code import called_name
from Milter.checking.finding import Finding, at
from Milter.checking.subject import Subject

__all__ = ["constructor", "signatures"]

#: How many arguments a callback gets besides the object or context; "more" may be any number more.
_ARGUMENTS = {
    "connect": 3, "hello": 1, "envfrom": 1, "envrcpt": 1, "data": 0, "header": 2, "eoh": 0,
    "body": 1, "eom": 0, "unknown": 1, "abort": 0, "close": 0, "negotiate": 1,
}  # fmt: skip
_WITH_PARAMETERS = ("envfrom", "envrcpt")


def signatures(subject: Subject, _: Any) -> Iterator[Finding]:
    """Callbacks that do not take what they are called with."""
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
            yield at(code, code.node, f"{what}{more}, which it does not take")
        elif name in _WITH_PARAMETERS and not _takes(function, count + 2):
            yield at(code, code.node, f"{what} and one for each ESMTP parameter that the client "
                                      "gives: add *params")  # fmt: skip


def constructor(subject: Subject, _: Any) -> Iterator[Finding]:
    """An __init__ that needs arguments, unless the program has a factory that gives them."""
    if not subject.klass or subject.by_factory or _takes(subject.klass, 0):
        return
    if _has_factory(subject):
        return
    init = subject.code_of(subject.attribute("__init__"))
    if init:
        yield at(init, init.node, "an object is made for each connection without arguments, which "
                 "__init__ does not allow: give them defaults, or name the factory that gives "
                 "them, as FILE.py:NAME")  # fmt: skip


def _has_factory(subject: Subject) -> bool:
    """Whether the file serves something else than the class itself."""
    given: list[ast.expr] = []
    for node in ast.walk(subject.tree(subject.source)):
        if isinstance(node, ast.Assign):
            named = [getattr(each, "attr", "") for each in node.targets]
            given += [node.value] if "factory" in named else []
        if isinstance(node, ast.Call) and called_name(node) == "Server":
            given += node.args[:1]
    klass = getattr(subject.klass, "__name__", "")
    return any(getattr(each, "id", getattr(each, "attr", "")) != klass for each in given)


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
