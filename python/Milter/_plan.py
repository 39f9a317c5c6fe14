"""How the engine calls the objects of a class: read once from the class, never from an object."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

from ._base import Base, _marks_of
from ._decorators import INNER, OPTIONAL_CALLBACKS

#: Methods in the order of the engine's steps (enum mkit_step).
METHODS = (
    "connect",
    "hello",
    "envfrom",
    "envrcpt",
    "data",
    "header",
    "eoh",
    "body",
    "eom",
    "unknown",
    "abort",
    "close",
    "negotiate",
)
#: Methods that do nothing as long as they are Base's own.
_EMPTY_IN_BASE = ("eom", "abort", "close")

#: A function that takes the object first, its no-reply bit, and how its text is decoded.
Entry = tuple[Callable[..., Any], int, str]


def _lookup(klass: type, name: str) -> Any:
    return inspect.getattr_static(klass, name, None)


def _callable_of(klass: type, attribute: Any) -> Callable[..., Any]:
    """Return something to call with the object first, whatever kind of attribute it is."""
    if isinstance(attribute, FunctionType):
        wrapper, inner = getattr(attribute, INNER, (None, None))
        if wrapper is attribute and isinstance(inner, FunctionType):
            return inner  # the engine itself does what @noreply's wrapper does
        return attribute
    bind = getattr(type(attribute), "__get__", None)
    if bind is None:
        return lambda _self, *args: attribute(*args)
    return lambda self, *args: bind(attribute, self, klass)(*args)


def _entry(klass: type, name: str) -> Entry | None:
    attribute = _lookup(klass, name)
    bytes_attribute = _lookup(klass, f"{name}_bytes")
    strategy = getattr(attribute, "error_strategy", "surrogateescape")
    if bytes_attribute is not None and bytes_attribute is not _lookup(Base, f"{name}_bytes"):
        attribute, strategy = bytes_attribute, "bytes"
    if attribute is None or (name in _EMPTY_IN_BASE and attribute is _lookup(Base, name)):
        return None
    no_reply, no_send = OPTIONAL_CALLBACKS.get(name, (0, 0))
    marks = _marks_of(klass, name)
    if marks & no_send:
        return None
    return _callable_of(klass, attribute), marks & no_reply, strategy


def plan(klass: type) -> list[Entry | None]:
    """Return for each step how it is called on objects of a class; None where it is not."""
    return [_entry(klass, name) for name in METHODS]
