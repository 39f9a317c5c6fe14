"""The filter that is looked at: its callbacks, their source, and which calls these lead to."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import milter

import Milter
from Milter._plan import METHODS, plan
from Milter.checking.code import (
    Code,
    Function,
    called_name,
    calls,
    first_parameter,
    is_super,
    parameters,
    starts,
)
from Milter.checking.program import socket_of

__all__ = ["CALLBACKS", "Subject", "Use", "subject_of"]

#: The names of callbacks, as classes have them.
CALLBACKS = METHODS
#: What low-level programs call a step, where classes call it otherwise.
_LOW_LEVEL = {"helo": "hello"}
_SETTER = re.compile(r"set_([a-z]+)_callback")
_LIBRARY = Path(Milter.__file__).parent


class Use(NamedTuple):
    """A call of one of the library's methods on the object or context, as `self.addheader(...)`.

    inside: the function that it stands in; the callback's own or one that it calls.
    """

    method: str
    call: ast.Call
    inside: Code


@dataclass
class Subject:
    """A filter.

    title: what it is. file: as it was given. klass: of its objects; None for a low-level program.
    callbacks: by the name that methods have, those that are the filter's own; None where it
    cannot be told what is called. attributes: the same as the class has them, decorators and all.
    actions: flags that count for it, None for all that the MTA offers. socket: where it is served,
    if the file says so. by_factory: whether something else than the class makes its objects.
    """

    title: str
    file: str
    module: ModuleType
    klass: type | None
    callbacks: dict[str, Code | None]
    attributes: dict[str, Any]
    actions: int | None = None
    socket: str | None = None
    by_factory: bool = False
    _trees: dict[str, ast.Module] = field(default_factory=dict)

    def code_of(self, function: object) -> Code | None:
        """The source of a function; None if it is the library's, or not written in Python."""
        function = inspect.unwrap(function) if callable(function) else function
        if isinstance(function, staticmethod | classmethod):
            function = function.__func__
        if not isinstance(function, FunctionType):
            return None
        file = function.__code__.co_filename
        if Path(file).is_relative_to(_LIBRARY):
            return None
        for node in ast.walk(self.tree(file)):
            if isinstance(node, Function) and starts(node) == (
                function.__code__.co_firstlineno,
                function.__code__.co_name,
            ):
                return Code(node, file, function.__globals__)
        return None

    def tree(self, file: str) -> ast.Module:
        """A file's syntax; empty if it cannot be read, as for code that was typed in."""
        if file not in self._trees:
            try:
                self._trees[file] = ast.parse(Path(file).read_bytes())
            except (OSError, SyntaxError, ValueError):
                self._trees[file] = ast.Module([], [])
        return self._trees[file]

    def attribute(self, name: str) -> Any:
        """What the class has under a name, not bound to anything; None if there is none. A private
        name, as `__check`, is that of any of its classes."""
        if self.klass is None:
            return None
        names = [name]
        if name.startswith("__") and not name.endswith("__"):
            names = [f"_{each.__name__.lstrip('_')}{name}" for each in self.bases]
        found = (inspect.getattr_static(self.klass, each, None) for each in names)
        return next((each for each in found if each is not None), None)

    @property
    def source(self) -> str:
        """The file, by the name that its code has."""
        return self.module.__file__ or self.file

    @cached_property
    def uses(self) -> dict[str, list[Use]]:
        """The calls of the library's methods that each callback leads to, by callback."""
        return {
            name: list(self._uses_in(code, first_parameter(code.node), set()))
            for name, code in self.callbacks.items()
            if code
        }

    def functions(self, callback: str) -> Iterator[tuple[Code, str | None]]:
        """The functions that a callback leads to, itself first, each with the name by which it
        knows the object or context."""
        code = self.callbacks.get(callback)
        seen: set[ast.AST] = set()
        todo = [(code, first_parameter(code.node))] if code else []
        while todo:
            inside, receiver = todo.pop(0)
            if inside.node in seen:
                continue
            seen.add(inside.node)
            yield inside, receiver
            for call in calls(inside.node, receiver):
                todo += self._callee(call, inside, receiver)

    def reached(self, callback: str) -> Iterator[tuple[ast.Call, Code]]:
        """All calls that a callback leads to, with the functions in which they stand."""
        for code, receiver in self.functions(callback):
            for call in calls(code.node, receiver):
                yield call, code

    def called(self, call: ast.Call, code: Code) -> list[Code]:
        """The filter's own function that a call in a function leads to, if that can be told."""
        return [each for each, _ in self._callee(call, code, first_parameter(code.node))]

    @cached_property
    def methods(self) -> dict[str, Code]:
        """The functions that the class has, the library's left out, by their names."""
        names = dict.fromkeys(name for each in self.bases for name in vars(each))
        found = {name: self.code_of(self.attribute(name)) for name in names}
        return {name: code for name, code in found.items() if code}

    @property
    def bases(self) -> list[type]:
        """The class and those that it is derived from, the library's and object left out."""
        return [
            each
            for each in getattr(self.klass, "__mro__", ())
            if each is not object and each.__module__.partition(".")[0] not in ("Milter", "milter")
        ]

    @cached_property
    def files(self) -> dict[str, Mapping[str, Any]]:
        """The files that the filter's code is in, each with the names of its module."""
        codes = [*self.methods.values(), *(code for code in self.callbacks.values() if code)]
        modules = [sys.modules.get(each.__module__) for each in self.bases]
        found: dict[str, Mapping[str, Any]] = {self.source: vars(self.module)}
        found.update((code.file, code.scope) for code in codes)
        for module in modules:
            file = getattr(module, "__file__", None) or ""
            if file.endswith(".py") and module:
                found.setdefault(file, vars(module))
        return found

    def class_store(self, name: str) -> tuple[str, ast.stmt] | None:
        """The file and the statement by which a class of the filter gives an attribute a value."""
        for each in self.bases:
            if name not in vars(each):
                continue
            file = getattr(sys.modules.get(each.__module__), "__file__", None) or ""
            for node in ast.walk(self.tree(file)):
                if isinstance(node, ast.ClassDef) and node.name == each.__name__:
                    for statement in node.body:
                        targets = getattr(statement, "targets", [getattr(statement, "target", 0)])
                        if any(getattr(target, "id", "") == name for target in targets):
                            return file, statement
        return None

    def _uses_in(self, code: Code, receiver: str | None, seen: set[Any]) -> Iterator[Use]:
        if (code.node, receiver) in seen:
            return
        seen.add((code.node, receiver))
        for call in calls(code.node, receiver):
            method = _method_called(call, receiver)
            if method in _LIBRARY_METHODS and self._is_library(call, method):
                yield Use(method, call, code)
            for callee, its_receiver in self._callee(call, code, receiver):
                yield from self._uses_in(callee, its_receiver, seen)

    def _is_library(self, call: ast.Call, method: str) -> bool:
        """Whether the method is not one that the filter's class has of its own."""
        on_super = isinstance(call.func, ast.Attribute) and is_super(call.func.value)
        return on_super or self.code_of(self.attribute(method)) is None

    def _callee(
        self, call: ast.Call, inside: Code, receiver: str | None
    ) -> list[tuple[Code, str | None]]:
        """The filter's own function that a call leads to, if that can be told, and the name by
        which that one knows the object or context."""
        if isinstance(call.func, ast.Name):
            code = self.code_of(inside.scope.get(call.func.id))
            if code is None:
                return []
            passed = [
                name
                for name, value in zip(parameters(code.node), call.args, strict=False)
                if isinstance(value, ast.Name) and value.id == receiver
            ]
            return [(code, passed[0] if passed else None)]
        method = _method_called(call, receiver)
        attribute = self.attribute(method) if method else None
        code = self.code_of(attribute)
        if code is None or isinstance(attribute, staticmethod):
            return [(code, None)] if code else []
        return [(code, first_parameter(code.node))]


#: What Base has beside callbacks: actions and questions.
_LIBRARY_METHODS = {
    name
    for name in dir(milter.Context)
    if not name.startswith("_") and name not in ("setpriv", "getpriv")
}


def _method_called(call: ast.Call, receiver: str | None) -> str | None:
    """The method's name, of a call on the object or on its context."""
    if not isinstance(call.func, ast.Attribute) or receiver is None:
        return None
    value = call.func.value
    if isinstance(value, ast.Attribute) and value.attr == "_ctx":
        value = value.value
    on_receiver = isinstance(value, ast.Name) and value.id == receiver
    return call.func.attr if on_receiver or is_super(value) else None


# ------------------------------------------------------------------------------------ making one


def subject_of(
    module: ModuleType, file: str, klass: type | None, *, by_factory: bool = False
) -> Subject:
    """The filter whose objects are of a class, or without one what the module's file gives to the
    functions of `milter`. Raises ValueError if there is no filter."""
    if klass is None:
        return _low_level(module, file)
    attributes = {
        name: inspect.getattr_static(klass, _override(klass, name), None)
        for name, entry in zip(CALLBACKS, plan(klass), strict=True)
        if entry is not None
    }
    subject = Subject(
        f"class {klass.__name__}", file, module, klass, {}, attributes, by_factory=by_factory,
    )  # fmt: skip
    _read_settings(subject)
    if issubclass(klass, Milter.Base):
        subject.actions = None  # its negotiate asks for all
    codes = {name: subject.code_of(value) for name, value in attributes.items()}
    subject.callbacks.update({name: code for name, code in codes.items() if code})
    return subject


def _override(klass: type, name: str) -> str:
    """The attribute that is called for a callback: envfrom or envfrom_bytes."""
    own = inspect.getattr_static(klass, f"{name}_bytes", None)
    library = inspect.getattr_static(Milter.Base, f"{name}_bytes", None)
    return name if own is None or own is library else f"{name}_bytes"


def _low_level(module: ModuleType, file: str) -> Subject:
    subject = Subject(
        "functions given to milter", file, module, None, {}, {},
    )  # fmt: skip
    _read_settings(subject)
    for call in calls(subject.tree(subject.source)):
        name = called_name(call)
        setter = _SETTER.fullmatch(name)
        given = {setter[1]: call.args[0]} if setter and call.args else {}
        if name == "register":
            given = {each.arg or "": each.value for each in call.keywords}
        for step, value in given.items():
            known = _LOW_LEVEL.get(step, step)
            if known in CALLBACKS and not (isinstance(value, ast.Constant) and value.value is None):
                function = getattr(module, value.id, None) if isinstance(value, ast.Name) else None
                code = (
                    Code(value, subject.source, vars(module))
                    if isinstance(value, ast.Lambda)
                    else None
                )
                subject.callbacks[known] = code or subject.code_of(function)
                subject.attributes[known] = function
    if not subject.callbacks:
        raise ValueError("no class in it is derived from Milter.Base, and no callback is set")
    return subject


def _read_settings(subject: Subject) -> None:
    """Takes what the file itself says of the socket and of the actions, where that is written out:
    usually in a part that loading does not run."""
    subject.actions = milter.CURR_ACTS
    for call in calls(subject.tree(subject.source)):
        name = called_name(call)
        if name == "set_flags" and call.args:
            flags = _flag_value(call.args[0])
            subject.actions = milter.CURR_ACTS if flags is None else flags
    subject.socket = socket_of(subject.tree(subject.source), vars(subject.module))


def _flag_value(node: ast.expr) -> int | None:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.Add):
        left, right = _flag_value(node.left), _flag_value(node.right)
        return None if left is None or right is None else left | right
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    value = getattr(milter, name, None)
    return value if isinstance(value, int) else None
